"""What the conversions to single files share: a model as one function of constants, and a file that is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keraslight.errors import ExportError, MissingDependencyError

INPUT_NAME, OUTPUT_NAME = "images", "probabilities"


def check_convertible(model: Any, *, several: bool = False) -> None:
    """Raises unless a model has one input of a fixed image size, one output and finite weights.

    Args:
        several: Whether a dict of outputs with `probabilities` in it will do, too.

    Raises:
        ExportError: a rule is broken.
        MissingDependencyError: TensorFlow is not installed.
    """
    named = several and OUTPUT_NAME in (_dict_of_outputs(model) or ())
    if len(model.inputs) != 1 or (len(model.outputs) != 1 and not named):
        raise ExportError(
            "A model to convert must have one input and one output. "
            f"Received: {model.name!r} with {len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"Conversion needs TensorFlow: pip install 'keraslight[export]'. Received: {error}."
        ) from error
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ExportError(f"A model to convert must have a fixed image size. Received: image shape {shape}.")
    unset = [weight.name for weight in model.weights if not np.isfinite(weight.numpy()).all()]
    if unset:  # the converters would crash the process
        raise ExportError(f"A model to convert must have finite weights. Received: NaN or infinity in {unset[:5]}.")


def _dict_of_outputs(model: Any) -> dict[str, Any] | None:
    """What a model gives, if that is a dict."""
    # A sequential model that was never called has no `output`; reading it raises.
    output = getattr(model, "output", None)
    return output if isinstance(output, dict) else None


def frozen_function(model: Any, batch_size: int | None) -> Any:
    """The inference graph as a `tf.function` of `images`, float32 (B, H, W, C), that gives a dict of `probabilities`.

    A model that gives a dict has all of its outputs in it, under its names.

    With variables, the TFLite converter writes and restores a SavedModel and then looks for what is never assigned to:
    17 seconds where constants take one, and a Keras 3 model comes out with its variables left in (and unset). So they
    become constants first. That forgets the outputs' names, so a second function gives them back.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((batch_size, *model.inputs[0].shape[1:]), tf.float32, name=INPUT_NAME)

    # TensorFlow flattens a dict by its sorted names.
    names = sorted(_dict_of_outputs(model) or [OUTPUT_NAME])

    @tf.function(input_signature=[spec])
    def infer(images):
        return tf.nest.flatten(model(images, training=False))

    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())

    @tf.function(input_signature=[spec])
    def serve(images):
        return dict(zip(names, tf.nest.flatten(frozen(images)), strict=True))

    return serve


def write_file(path: Path, content: bytes, verify: Callable[[Path], None] | None = None) -> Path:
    """Writes a file under another name, lets `verify` look at it, and only then puts it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        if verify is not None:
            verify(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
