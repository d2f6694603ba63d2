"""LiteRT (TensorFlow Lite) files: conversion, and a report of what is in one."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError
from keraslight.preprocessing import LAYER_NAME

INPUT_NAME, OUTPUT_NAME, SIGNATURE_NAME = "images", "probabilities", "serving_default"
QUANTIZATIONS = (None, "float16", "dynamic", "int8")
INPUT_DTYPES = ("float32", "uint8", "int8")

_SAMPLES = 128  # representative images; ranges hardly move beyond a hundred


def to_litert(
    model: Any,
    path: str | os.PathLike,
    *,
    quantization: str | None = None,
    representative_data: Any = None,
    input_dtype: str = "float32",
    batch_size: int | None = 1,
) -> Path:
    """Converts a model to a .tflite file with one signature, `serving_default`: `images` -> `probabilities`.

    Args:
        model: A Keras 3 model with one input (B, H, W, C) and one output, or a quantization-aware tf_keras model of
            `keraslight.compress`. One that gives a dict with `probabilities` in it has all of them in the signature.
        path: The file to write. It is replaced in one step; its folder is made.
        quantization: None (float32), `"float16"` weights, `"dynamic"` (int8 weights, activations quantized as they
            come) or `"int8"` (weights and activations). A quantization-aware model is always `"int8"` (None stands for
            it).
        representative_data: For int8 of a Keras 3 model: images, or images and labels, as arrays or as a data set of
            batches. The first 128 images are used.
        input_dtype: What the file takes: `"float32"`, or for int8 also `"uint8"` or `"int8"`. A model that normalizes
            in its graph takes raw pixels 0..255 in each case (int8: pixel - 128). The output is float32 always.
        batch_size: The fixed batch size, or None for one that `resize_tensor_input` sets. Fixed is faster: the file
            then has no operators that work out shapes.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: arguments that do not go together.
        ExportError: the model has several inputs or outputs, or the converter refuses it.
        MissingDependencyError: TensorFlow is not installed.
    """
    path = Path(path)
    quantization_aware = is_quantization_aware(model)
    if quantization_aware and quantization is None:
        quantization = "int8"
    _check(quantization, representative_data, input_dtype, batch_size, quantization_aware)
    named = isinstance(model.output, dict) and OUTPUT_NAME in model.output
    if len(model.inputs) != 1 or (len(model.outputs) != 1 and not named):
        raise ExportError(
            "A model to convert must have one input and one output. "
            f"Received: {model.name!r} with {len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )
    try:
        import tensorflow as tf
    except ImportError as error:
        raise MissingDependencyError(
            f"Conversion needs TensorFlow: pip install 'keraslight[export]'. Received: {error}."
        ) from error

    shape = (batch_size, *model.inputs[0].shape[1:])
    if None in shape[1:]:
        raise ExportError(f"A model to convert must have a fixed image size. Received: input shape {shape}.")
    unset = [weight.name for weight in model.weights if not np.isfinite(weight.numpy()).all()]
    if unset:  # the converter would crash the process
        raise ExportError(f"A model to convert must have finite weights. Received: NaN or infinity in {unset[:5]}.")
    with tempfile.TemporaryDirectory() as folder:
        _save_frozen(model, shape, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            converter.inference_input_type = tf.as_dtype(input_dtype)
            if not quantization_aware:
                pixels = any(layer.name == LAYER_NAME for layer in model.layers)
                samples = list(_samples(representative_data, batch_size or 1, pixels))
                converter.representative_dataset = lambda: ([sample] for sample in samples)
        try:
            content = converter.convert()
        except Exception as error:  # the converter raises whatever its C++ side throws
            raise ExportError(
                f"The converter must accept every layer. Received: {model.name!r}; it said: {error}"
            ) from error
    return _write(path, content)


def _save_frozen(model: Any, shape: tuple, folder: str) -> None:
    """Writes the model's inference graph, its variables as constants, as a SavedModel."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec(shape, tf.float32, name=INPUT_NAME)

    # TensorFlow flattens a dict by its sorted names.
    names = sorted(model.output) if isinstance(model.output, dict) else [OUTPUT_NAME]

    @tf.function(input_signature=[spec])
    def infer(images):
        return tf.nest.flatten(model(images, training=False))

    # With variables, the converter writes and restores a SavedModel and then looks for what is never assigned to:
    # 17 seconds where constants take one, and a Keras 3 model comes out with its variables left in (and unset). So
    # they become constants first. That forgets the outputs' names, so a second function gives them back.
    frozen = convert_variables_to_constants_v2(infer.get_concrete_function())

    @tf.function(input_signature=[spec])
    def serve(images):
        return dict(zip(names, tf.nest.flatten(frozen(images)), strict=True))

    # Saved here rather than by the converter, which can't leave out the custom gradients. Those of silu hold a tensor
    # of the first function: with them the converter's own saving fails, silently, and the file has no signature.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    signatures = {SIGNATURE_NAME: serve.get_concrete_function()}
    tf.saved_model.save(tf.Module(), folder, signatures=signatures, options=options)


def is_quantization_aware(model: Any) -> bool:
    """Whether a model carries tensorflow_model_optimization's quantizers."""
    # By name: the classes can't be imported where tensorflow-model-optimization is not installed.
    classes = (base.__name__ for layer in getattr(model, "layers", ()) for base in type(layer).__mro__)
    return "QuantizeWrapper" in classes


def _check(quantization, representative_data, input_dtype, batch_size, quantization_aware) -> None:
    if quantization not in QUANTIZATIONS:
        raise InvalidArgumentError(f"`quantization` must be one of {QUANTIZATIONS}. Received: {quantization!r}.")
    if input_dtype not in INPUT_DTYPES:
        raise InvalidArgumentError(f"`input_dtype` must be one of {INPUT_DTYPES}. Received: {input_dtype!r}.")
    if quantization_aware and quantization != "int8":
        raise InvalidArgumentError(
            f"A quantization-aware model must be converted to int8. Received: quantization={quantization!r}."
        )
    if input_dtype != "float32" and quantization != "int8":
        raise InvalidArgumentError(
            "`input_dtype` must be 'float32' unless quantization='int8'. "
            f"Received: input_dtype={input_dtype!r}, quantization={quantization!r}."
        )
    if quantization == "int8" and not quantization_aware and representative_data is None:
        raise InvalidArgumentError(
            "int8 of a Keras 3 model needs `representative_data`, from which the ranges of its activations are taken. "
            "Received: representative_data=None. Or train it with `keraslight.compress.train_quantized`."
        )
    if batch_size is not None and batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1, or None. Received: {batch_size}.")


def _samples(data: Any, batch_size: int, pixels: bool) -> Iterator[np.ndarray]:
    """Float32 batches of `batch_size` images from whatever `representative_data` was."""

    def images_of(part):
        return np.asarray(part[0] if isinstance(part, tuple | list) else part, np.float32)

    parts = (data,) if isinstance(data, np.ndarray | tuple | list) else data
    rows = itertools.islice((image for part in parts for image in images_of(part)), max(_SAMPLES, batch_size))
    images = list(rows)
    if len(images) < batch_size:
        raise InvalidArgumentError(
            f"`representative_data` must hold at least a batch of {batch_size} images. Received: {len(images)}."
        )
    if pixels:
        # Two pixels of one image pin the input's range to 0..255, so that its scale is exactly 1 and a raw uint8
        # image goes in as it is, even if no sample happens to be black and white.
        images[0] = images[0].copy()
        images[0].reshape(-1)[:2] = 0.0, 255.0
    for start in range(0, len(images) - batch_size + 1, batch_size):
        yield np.stack(images[start : start + batch_size])


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@dataclasses.dataclass(frozen=True)
class LiteRTOperator:
    """One operator of a file.

    Attributes:
        kind: Its name, such as `"CONV_2D"`.
        inputs, outputs: The dtypes of its tensors in order, such as `("INT8", "INT8", "INT32")`.
        name: The name of its first output tensor.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str


@dataclasses.dataclass(frozen=True)
class LiteRTReport:
    """What a .tflite file holds; `str()` is a table.

    Attributes:
        path: The file.
        size: Its bytes.
        signatures: Signature name -> (input names, output names).
        operators: Every operator of the main graph, in order.
    """

    path: Path
    size: int
    signatures: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    operators: tuple[LiteRTOperator, ...]

    @property
    def float_operators(self) -> tuple[LiteRTOperator, ...]:
        """The operators that read or write floats, less those that only convert at the file's ends."""
        return tuple(
            operator
            for operator in self.operators
            if operator.kind not in ("QUANTIZE", "DEQUANTIZE")
            and any(dtype.startswith("FLOAT") for dtype in (*operator.inputs, *operator.outputs))
        )

    def __str__(self) -> str:
        floats = Counter(operator.kind for operator in self.float_operators)
        lines = [f"{self.path} ({self.size:,} bytes)"]
        lines += [f"  {name}: {', '.join(ins)} -> {', '.join(outs)}" for name, (ins, outs) in self.signatures.items()]
        for kind, count in sorted(Counter(operator.kind for operator in self.operators).items()):
            lines.append(f"  {count:>4}  {kind}" + (f"  ({floats[kind]} in float)" if floats[kind] else ""))
        return "\n".join(lines)


def litert_report(path: str | os.PathLike) -> LiteRTReport:
    """Reads which operators a .tflite file has, and in which dtypes they work.

    The file itself is read, not an interpreter, whose delegates replace operators by their own.

    Raises:
        ExportError: it is not a .tflite file.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingDependencyError(
            f"Reading a .tflite file needs ai-edge-litert: pip install 'keraslight[export]'. Received: {error}."
        ) from error
    path = Path(path)
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ExportError(f"A LiteRT file must have the identifier TFL3. Received: {path}.")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    dtypes = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    graph = model.subgraphs[0]

    def dtypes_of(indices):
        return tuple(dtypes[graph.tensors[index].type] for index in indices if index >= 0)  # -1: left out (no bias)

    operators = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]  # old files only have the second
        name = graph.tensors[operator.outputs[0]].name.decode()
        operators.append(LiteRTOperator(kind, dtypes_of(operator.inputs), dtypes_of(operator.outputs), name))
    signatures = {
        signature.signatureKey.decode(): (
            tuple(entry.name.decode() for entry in signature.inputs),
            tuple(entry.name.decode() for entry in signature.outputs),
        )
        for signature in model.signatureDefs or ()
    }
    return LiteRTReport(path, len(content), signatures, tuple(operators))
