"""What the conversions to single files share: a model or graph as one function of constants."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keraslight.errors import ExportError
from keraslight.graph import (
    Call,
    Graph,
    UnreadableModelError,
    any_names,
    check_ends,
    flat_layers,
    graph_name,
    infer,
    remembered_task,
    run,
    without_auxiliary,
)
from keraslight.rewrite import HALVES, SparseForms, in_float32

INPUT_NAME, OUTPUT_NAME, VALUES_NAME = "images", "probabilities", "outputs"
"""Of images, of scores of classes, and of the numbers of a regression (as TensorFlow Serving's Regress calls them)."""


@dataclasses.dataclass(frozen=True)
class Network:
    """What is converted: a model or a graph, as a function of images, float32 (B, H, W, C)."""

    name: str
    function: Callable[[tf.Tensor], Any]
    inputs: Sequence[tuple[int | None, ...]]  # shapes with the batch
    outputs: Sequence[str]  # names; of a dict in the order in which TensorFlow flattens it
    weights: Sequence[keras.Variable]
    trainable_weights: Sequence[keras.Variable]

    @classmethod
    def of_model(cls, model: keras.Model) -> Network:
        """A Keras 3 or tf_keras model, called as it is."""
        # A sequential model that was never called has no `output`; reading it raises.
        structure = getattr(model, "output", None)
        return cls(
            model.name,
            lambda images: model(images, training=False),
            [tuple(tensor.shape) for tensor in model.inputs],
            _names(structure if isinstance(structure, dict) else model.outputs, remembered_task(model)),
            model.weights,
            model.trainable_weights,
        )

    @classmethod
    def of_graph(cls, graph: Graph, forms: SparseForms | None = None) -> Network:
        """A graph, run call by call under its model's name; with `forms` as these run it."""

        layers = [layer for layer in graph.layers().values() if isinstance(layer, keras.Layer)]
        return cls(
            graph.name,
            _Runner(graph, forms),
            [call.outputs[0].shape for call in graph.input_calls],
            _names(graph.outputs if isinstance(graph.outputs, dict) else keras.tree.flatten(graph.outputs), graph.task),
            [weight for layer in layers for weight in layer.weights],
            [weight for layer in layers for weight in layer.trainable_weights],
        )

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """(H, W, C) of the first input."""
        return self.inputs[0][1:]


class _Runner:
    """A graph as a function of images.

    Attributes:
        failed: The name of the layer that raised an error, and the error: TensorFlow makes another of it.
    """

    def __init__(self, graph: Graph, forms: SparseForms | None) -> None:
        self.graph = graph
        self.forms = forms
        self.failed: tuple[str, Exception] | None = None

    def __call__(self, images: tf.Tensor) -> Any:
        with keras.name_scope(graph_name(self.graph.name)):
            dtype = self.graph.input_calls[0].outputs[0].dtype
            images = tf.cast(images, dtype)
            if self.forms is not None and self.forms.mirrored:
                images = tf.reverse(images, (1, 2))
            return run(self.graph, [images], self._infer)

    def _infer(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return (self.forms or infer)(call, args, kwargs)
        except Exception as error:
            self.failed = call.name, error
            raise


def convertible(model: Any) -> Any:
    """A model without its auxiliary heads, or where it computes in 16 bits its float32 twin.

    Raises:
        UnreadableModelError: The model does not know its inputs and outputs, or computes in 16 bits and has no graph.
        CompressionError: A layer of it can't be made again in float32.
    """
    check_ends(model, foreign=True)
    if not isinstance(model, keras.Model):
        return model  # of tf_keras
    model = without_auxiliary(model)
    try:
        return in_float32(model)
    except UnreadableModelError:
        if any(layer.compute_dtype in HALVES for layer in flat_layers(model)):
            raise
        return model


def _names(outputs: Any, task: str | None) -> list[str]:
    name = VALUES_NAME if task == "regression" else OUTPUT_NAME
    return sorted(outputs) if isinstance(outputs, dict) else [name] * len(outputs)


def check_convertible(network: Network, *, several: bool = False) -> None:
    """Raises ExportError unless a network has one input of a fixed image size, one output and finite weights.

    If `several`, a dict of outputs that includes `probabilities` is accepted, too.
    """
    named = several and OUTPUT_NAME in network.outputs and len(set(network.outputs)) == len(network.outputs)
    if len(network.inputs) != 1 or (len(network.outputs) != 1 and not named):
        raise ExportError(
            "A model to convert must have one input and one output. "
            f"Received: {network.name!r} with {len(network.inputs)} inputs and {len(network.outputs)} outputs."
        )
    if None in network.image_shape:
        raise ExportError(
            f"A model to convert must have a fixed image size. Received: image shape {network.image_shape}."
        )
    unset = [
        getattr(weight, "path", weight.name) for weight in network.weights if not np.isfinite(weight.numpy()).all()
    ]
    if unset:  # the converters would crash the process
        raise ExportError(f"A model to convert must have finite weights. Received: NaN or infinity in {unset[:5]}.")


_RUNNING_EAGERLY = threading.RLock()


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Put around what a function does while TensorFlow traces it: makes the graph one that converters can read.

    - Layers may have any name; see `keraslight.graph.any_names`.
    - Functions inside it are traced in place. Keras compiles grouped convolutions with XLA, in functions that can't
      be inlined afterwards and that tf2onnx and other runtimes don't know.
    """
    with _RUNNING_EAGERLY, any_names():
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def refusals(name: str) -> Iterator[None]:
    """Makes whatever a converter raises for the model `name` an ExportError."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"The converter must accept every layer. Received: {name!r}; it said: {error}") from error


def frozen_function(network: Network, batch_size: int | None, *, loops: bool = False) -> Any:
    """`named` of `frozen`."""
    return named(network, frozen(network, batch_size, loops=loops))


def frozen(network: Network, batch_size: int | None, *, loops: bool = False) -> Any:
    """The inference graph as a concrete function of images, float32 (B, H, W, C), without variables.

    With variables, the TFLite converter writes and restores a SavedModel and then looks for what is never assigned to:
    17 seconds where constants take one, and a Keras 3 model keeps its variables (unset). So they become constants
    first. A `batch_size` of None leaves it open.

    With `loops`, recurrent layers stay loops, as tf2onnx reads them; otherwise they become single steps that jump.
    """
    spec = tf.TensorSpec((batch_size, *network.image_shape), tf.float32, name=INPUT_NAME)

    @tf.function(input_signature=[spec])
    def trace(images: tf.Tensor) -> list[tf.Tensor]:
        with tracing():
            return list(tf.nest.flatten(network.function(images)))

    try:
        function = trace.get_concrete_function()
    except Exception as error:
        layer, reason = getattr(network.function, "failed", None) or (network.name, error)
        raise ExportError(
            "Every layer of a model to convert must run on TensorFlow's symbolic tensors with a batch of "
            f"{batch_size or 'any size'}. Received: {layer!r}, which raised {type(reason).__name__}: {reason}"
        ) from error
    return convert_variables_to_constants_v2(function, lower_control_flow=not loops)


def named(network: Network, function: Any) -> Any:
    """A frozen function as a `tf.function` of `images` that returns a dict of the outputs: freezing drops names."""
    (images,) = function.inputs
    spec = tf.TensorSpec(images.shape, images.dtype, name=INPUT_NAME)

    @tf.function(input_signature=[spec])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(network.outputs, tf.nest.flatten(function(images)), strict=True))

    return serve


def output_paths(network: Network, function: Any) -> dict[str, str]:
    """Output of a frozen function -> the path of the operation that makes it."""

    def path(tensor: Any) -> str:
        while tensor.op.type == "Identity":
            (tensor,) = tensor.op.inputs
        return str(tensor.op.name)

    return {name: path(tensor) for name, tensor in zip(network.outputs, function.outputs, strict=True)}
