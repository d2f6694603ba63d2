"""A model as a .tflite file."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export._frozen import INPUT_NAME, check_convertible, frozen_function, write_file
from keraslight.export._memory import return_free_memory
from keraslight.export.litert._float16 import halve_weights
from keraslight.export.litert._metadata import add_metadata
from keraslight.graph import Graph, UnreadableModelError, is_quantization_aware, own_preprocessing, read, run
from keraslight.preprocessing import LAYER_NAME, Preprocessing
from keraslight.rewrite import in_forms, reparameterized

log = logging.getLogger(__name__)

SIGNATURE_NAME = "serving_default"
QUANTIZATIONS = (None, "float16", "dynamic", "int8")
DTYPES = ("float32", "uint8", "int8")

_SPARSE = (None, "float16")  # what has kernels that unpack the sparse form
_SPARSE_FROM = 0.6  # share of zeros; in float16 a weight's place takes as much as the weight, so half is no gain
_SAMPLES = 128  # representative images; ranges hardly move beyond a hundred


def to_litert(
    model: Any,
    path: str | os.PathLike,
    *,
    quantization: str | None = None,
    representative_data: Any = None,
    input_dtype: str = "float32",
    output_dtype: str = "float32",
    batch_size: int | None = 1,
    sparse: bool | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    xnnpack: bool = True,
    verify: Callable[[Path], None] | None = None,
) -> Path:
    """Converts a model to a .tflite file with one signature, `serving_default`: `images` -> `probabilities`.

    Branches that RepVGG trains in parallel are joined, and some layers become other operators: see `xnnpack`.

    With `labels`, MediaPipe Tasks' `ImageClassifier` reads the file as it is, if its images have three channels and it
    takes float32 or uint8.

    Args:
        model: A Keras 3 model with one input (B, H, W, C) and one output, or a quantization-aware tf_keras model of
            `keraslight.compress`. One that gives a dict with `probabilities` in it has all of them in the signature.
        path: The file to write. It is replaced in one step; its folder is made.
        quantization: None (float32), `"float16"` weights (but for the smallest constants, 8% of the bytes, whose
            rounding would do most harm), `"dynamic"` (int8 weights, activations quantized as they come) or `"int8"`
            (weights and activations). A quantization-aware model is always `"int8"` (None stands for it).
        representative_data: For int8 of a Keras 3 model: images, or images and labels, as arrays or as a data set of
            batches, as the file will take them (raw pixels, if the file normalizes). The first 128 are used.
        input_dtype: What the file takes: `"float32"`, or for int8 also `"uint8"` or `"int8"`. A model that normalizes
            in its graph takes raw pixels 0..255 in each case (int8: pixel - 128).
        output_dtype: What the file gives: `"float32"`, or for int8 also `"uint8"` (probability * 256, for a softmax)
            or `"int8"` (the same less 128). MediaPipe reads float32 and uint8.
        batch_size: The fixed batch size, or None for one that `resize_tensor_input` sets. Fixed is faster: the file
            then has no operators that work out shapes.
        sparse: Store only what is not zero of a pruned model's kernels, in float32 or float16 files; None does where
            at least 60% of the weights are zeros. The file of a MobileNetV2 with 75% zeros is 0.37 of the dense one's
            size in float32, 0.49 in float16. It gives the same numbers in the same time (the interpreter unpacks it
            when it starts), and gzips to the same size. Int8 has no such kernels.
        labels: One name a class, in the order of the outputs. They go into the file with a description of its images
            (TFLite Metadata); None writes no metadata.
        preprocessing: For a model that takes normalized images: its normalization goes into the file, which then takes
            raw pixels. None leaves the model as it is.
        xnnpack: Write what XNNPACK, which runs files on CPUs, has no kernels for as other operators that give the same:
            depthwise convolutions of more than 25 taps, slices with steps, and in int8 hard swish, lone ReLUs, average
            pooling and GRN's division. A ConvNeXt takes a quarter of its float file's time in int8; without, three
            times that. False is for GPU delegates, which take the plain operators. A quantization-aware model has these
            forms since it was made.
        verify: Called with the finished file before it takes its place; what it raises stops the conversion. Such as
            `lambda file: litert_parity(model, file, held_out).require(max_drop=0.01)`.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: arguments that do not go together.
        DisagreementError: what `LiteRTParity.require` raises in `verify`; an older file at `path` stays as it was.
        ExportError: the model has several inputs or outputs, or the converter refuses it.
        MissingDependencyError: TensorFlow is not installed.
    """
    path = Path(path)
    quantization_aware = is_quantization_aware(model)
    if quantization_aware and quantization is None:
        quantization = "int8"
    _check(quantization, representative_data, (input_dtype, output_dtype), batch_size, quantization_aware)
    if sparse and quantization not in _SPARSE:
        raise InvalidArgumentError(
            f"`sparse` must come with a quantization of {_SPARSE}. Received: quantization={quantization!r}."
        )
    check_convertible(model, several=True)
    if preprocessing is not None:
        model = _with_normalization(model, preprocessing, quantization_aware)
    elif labels is not None and not _takes_pixels(model):
        log.warning(
            "The model carries no preprocessing (no ImageNormalization layer), so an app will give it raw pixels "
            "0..255. If it was trained on normalized images, pass that Preprocessing."
        )
    content = _converted(
        model,
        quantization,
        quantization_aware,
        sparse,
        representative_data,
        (input_dtype, output_dtype),
        batch_size,
        xnnpack,
    )
    return_free_memory()
    if quantization == "float16":
        content = halve_weights(content)
    if labels is not None:
        numbers = quantization or "float32"
        content = add_metadata(
            content,
            name=model.name,
            description=f"An image classifier with {len(labels)} classes, {numbers}, made with keraslight.",
            labels=[str(label) for label in labels],
            channels=model.inputs[0].shape[-1],
        )
    return write_file(path, content, verify)


class _Inference:
    """What is converted: a graph in the forms for a file, called like the model that it was made from."""

    def __init__(self, graph: Graph, model: Any) -> None:
        self.graph, self.name = graph, model.name
        self.inputs, self.output = model.inputs, model.output

    def __call__(self, images: Any, training: bool = False) -> Any:
        import keras

        with keras.name_scope(self.name):
            return run(self.graph, [images])


def _prepared(model: Any, xnnpack: bool, int8: bool) -> Any:
    """The model with parallel branches joined, and in the forms for XNNPACK; itself if it has no graph."""
    try:
        graph = read(model)
    except UnreadableModelError:
        return model
    graph = reparameterized(graph)
    return _Inference(in_forms(graph, int8=int8) if xnnpack else graph, model)


def _converted(
    model: Any,
    quantization: str | None,
    quantization_aware: bool,
    sparse: bool | None,
    representative_data: Any,
    dtypes: tuple[str, str],
    batch_size: int | None,
    xnnpack: bool,
) -> bytes:
    """The converter's file; see `to_litert`. A function of its own, so that all it needs is free when it returns."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        prepared = model if quantization_aware else _prepared(model, xnnpack, quantization == "int8")
        converter = _converter(prepared, batch_size, folder)
        if quantization in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if sparse or (sparse is None and quantization in _SPARSE and _zeros(model) >= _SPARSE_FROM):
            converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        if quantization == "int8":
            converter.inference_input_type = tf.as_dtype(dtypes[0])
            converter.inference_output_type = tf.as_dtype(dtypes[1])
            if not quantization_aware:
                samples = _samples(model, representative_data, batch_size or 1)
                converter.representative_dataset = lambda: ([sample] for sample in samples)
        try:
            return converter.convert()
        except Exception as error:  # the converter raises whatever its C++ side throws
            raise ExportError(
                f"The converter must accept every layer. Received: {model.name!r}; it said: {error}"
            ) from error


def calibrating_converter(model: Any, representative_data: Any, batch_size: int | None, folder: str) -> Any:
    """TFLite's converter of a Keras 3 model to int8, which takes and gives float32.

    Args:
        model, representative_data, batch_size: As in `to_litert`.
        folder: For the SavedModel that the converter reads; it must stay until the converter has converted.
    """
    import tensorflow as tf

    converter = _converter(_prepared(model, True, True), batch_size, folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    samples = _samples(model, representative_data, batch_size or 1)
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    return converter


def _converter(model: Any, batch_size: int | None, folder: str) -> Any:
    import tensorflow as tf

    serve = frozen_function(model, batch_size)
    # Saved here rather than by the converter, which can't leave out the custom gradients. Those of silu hold a
    # tensor of the first function: with them its own saving fails, silently, and the file has no signature.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    signatures = {SIGNATURE_NAME: serve.get_concrete_function()}
    tf.saved_model.save(tf.Module(), folder, signatures=signatures, options=options)
    return tf.lite.TFLiteConverter.from_saved_model(folder)


def _zeros(model: Any) -> float:
    """The share of zeros in a model's kernels."""
    kernels = [weight.numpy() for weight in model.trainable_weights if len(weight.shape) > 1]
    return sum(int((k == 0).sum()) for k in kernels) / max(sum(k.size for k in kernels), 1)


def _takes_pixels(model: Any) -> bool:
    """Whether a model says that it normalizes raw pixels itself, if only by a layer's name."""
    return own_preprocessing(model) is not None or any(layer.name == LAYER_NAME for layer in model.layers)


def _with_normalization(model: Any, spec: Preprocessing, quantization_aware: bool) -> Any:
    """The model with the normalization in front, so that it takes raw pixels."""
    import keras

    from keraslight.layers import ImageNormalization

    if quantization_aware or _takes_pixels(model):
        raise InvalidArgumentError(
            "`preprocessing` is for a Keras 3 model that takes normalized images. "
            f"Received: {model.name!r}, which {'is quantization-aware' if quantization_aware else 'normalizes itself'}."
        )
    shape = tuple(model.inputs[0].shape[1:])
    if shape[-1] != spec.channels:
        raise InvalidArgumentError(
            "`preprocessing` must have the model's channels. "
            f"Received: {spec.channels} channels for images of shape {shape}."
        )
    images = keras.Input(shape, name=INPUT_NAME)
    return keras.Model(images, model(ImageNormalization(spec)(images)), name=model.name)


def _check(quantization, representative_data, dtypes, batch_size, quantization_aware) -> None:
    if quantization not in QUANTIZATIONS:
        raise InvalidArgumentError(f"`quantization` must be one of {QUANTIZATIONS}. Received: {quantization!r}.")
    for name, dtype in zip(("input_dtype", "output_dtype"), dtypes, strict=True):
        if dtype not in DTYPES:
            raise InvalidArgumentError(f"`{name}` must be one of {DTYPES}. Received: {dtype!r}.")
        if dtype != "float32" and quantization != "int8":
            raise InvalidArgumentError(
                f"`{name}` must be 'float32' unless quantization='int8'. "
                f"Received: {name}={dtype!r}, quantization={quantization!r}."
            )
    if quantization_aware and quantization != "int8":
        raise InvalidArgumentError(
            f"A quantization-aware model must be converted to int8. Received: quantization={quantization!r}."
        )
    if quantization == "int8" and not quantization_aware and representative_data is None:
        raise InvalidArgumentError(
            "int8 of a Keras 3 model needs `representative_data`, from which the ranges of its activations are taken. "
            "Received: representative_data=None. Or train it with `keraslight.compress.train_quantized`."
        )
    if batch_size is not None and batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1, or None. Received: {batch_size}.")


def _samples(model: Any, data: Any, batch_size: int) -> list[np.ndarray]:
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
    wanted, shape = tuple(model.inputs[0].shape[1:]), images[0].shape
    if len(shape) != len(wanted) or any(one not in (None, other) for one, other in zip(wanted, shape, strict=True)):
        raise InvalidArgumentError(
            f"`representative_data` must hold images of the model's shape, {wanted}. Received: {shape}."
        )
    if _takes_pixels(model):
        # Two pixels of one image pin the input's range to 0..255, so that its scale is exactly 1 and a raw uint8
        # image goes in as it is, even if no sample happens to be black and white.
        images[0] = images[0].copy()
        images[0].reshape(-1)[:2] = 0.0, 255.0
    starts = range(0, len(images) - batch_size + 1, batch_size)
    return [np.stack(images[start : start + batch_size]) for start in starts]
