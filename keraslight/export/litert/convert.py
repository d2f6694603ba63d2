"""Converts models and graphs to .tflite files."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keraslight._batches import channels_first, fits, labelled_batches
from keraslight._files import write_file
from keraslight._tasks import Head, check_task, label_thresholds, read_head
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export._frozen import (
    OUTPUT_NAME,
    VALUES_NAME,
    Network,
    check_convertible,
    convertible,
    frozen,
    named,
    output_paths,
    refusals,
)
from keraslight.export._inference import normalized
from keraslight.export._memory import return_free_memory
from keraslight.export.litert._calibrated import Calibrated, settled
from keraslight.export.litert._flatbuffer import read_model
from keraslight.export.litert._float16 import halve_weights
from keraslight.export.litert._metadata import add_metadata
from keraslight.export.litert._sparse import SPARSE_FROM, nchw_forms, sparse_inference, without_parts
from keraslight.graph import Ends, Graph, UnreadableModelError, read, read_ends, takes_pixels
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import SparseForms, float_inputs, fused, in_forms, pointwise_zeros, reparameterized

log = logging.getLogger(__name__)

Verify = Callable[[Path], Any]
SIGNATURE_NAME = "serving_default"
QUANTIZATIONS = (None, "float16", "dynamic", "int8")
DTYPES = ("float32", "uint8", "int8")

_SPARSE = (None, "float16")  # these have kernels that unpack the sparse form
_SPARSE_FROM = 0.6  # share of zeros; in float16 an index takes as much as a weight, so half is no gain
_LOOPS = ("LoopCond", "While", "StatelessWhile", "If", "StatelessIf", "Map")
_SAMPLES = 128  # representative images; ranges hardly move beyond a hundred


def to_litert(
    model: Any,
    path: str | os.PathLike[str],
    *,
    quantization: str | None = None,
    representative_data: Any = None,
    input_dtype: str = "float32",
    output_dtype: str = "float32",
    batch_size: int | None = 1,
    sparse: bool | None = None,
    labels: Sequence[str] | None = None,
    task: str | None = None,
    thresholds: Sequence[float] | None = None,
    preprocessing: Preprocessing | None = None,
    xnnpack: bool = True,
    verify: Callable[[Path], None] | None = None,
) -> Path:
    """Converts a model to a .tflite file with one signature, `serving_default`: `images` -> `probabilities`.

    The outputs are the model's, with nothing added to logits; those of a `regression` are called `outputs`.
    Parallel branches, as in RepVGG's training form, are fused, and some layers become other operators: see `xnnpack`.

    With `labels`, MediaPipe Tasks' `ImageClassifier` can read the file, if its images have three channels and its input
    is float32 or uint8.

    Args:
        model: A Keras 3 model with one input (B, H, W, C) and one output, or a quantization-aware tf_keras model of
            `keraslight.compress`. If it returns a dict that includes `probabilities`, the signature has all outputs.
        path: The file to write. It is replaced in one step; its folder is created.
        quantization: None (float32), `"float16"` weights (except for the smallest constants, 8% of the bytes, where
            rounding would do most harm), `"dynamic"` (int8 weights, activations quantized at run time) or `"int8"`
            (weights and activations). A quantization-aware model is always `"int8"`, also with None.
        representative_data: Data for int8 of a Keras 3 model: images, with or without labels, as the file will take
            them (raw pixels, if the file normalizes): an array, a list of images, a pair of arrays, a tf.data.Dataset,
            another iterable, or a function that returns one. The first 128 images are used.
        input_dtype: Dtype of the input: `"float32"`, or for int8 also `"uint8"` or `"int8"`. A model that normalizes
            in its graph takes raw pixels 0..255 in each case (int8: pixel - 128).
        output_dtype: Dtype of the output: `"float32"`, or for int8 also `"uint8"` (probability * 256, for a softmax)
            or `"int8"` (the same minus 128). MediaPipe reads float32 and uint8.
        batch_size: Fixed batch size, or None for one that `resize_tensor_input` sets. Fixed is faster: the file then
            has no operators that compute shapes.
        sparse: Whether to store only the non-zero weights of a pruned model's kernels, in float32 or float16 files;
            None does so if at least 60% of the weights are zeros, or over two thirds of those of 1x1 convolutions. The
            file of a MobileNetV2 with 75% zeros has 0.37 of the dense size in float32, 0.49 in float16, and gzips to
            the same size. It computes the same outputs. On x86 processors it takes the same time: the interpreter
            unpacks it when it starts. On ARM processors XNNPACK skips the zeros if it accepts the network; where there
            is one, the file has a form that it accepts (with `xnnpack`), as `LiteRTReport.sparse` says. Int8 has no
            such kernels.
        labels: One name per class, in the order of the outputs. They are written to the file with a description of its
            images and outputs (TFLite Metadata); None writes no metadata. Of the two names of a `binary` model, the
            second is written: the score is of that class.
        task: What the outputs are: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`. None takes what the
            final activation says or what the model remembers; only `labels` need it.
        thresholds: Scores of a `multi-label` model, between 0 and 1, above which an image has a label, one or one per
            label. They are written next to the `labels`: MediaPipe then gives the score 0 to labels that are below.
        preprocessing: Preprocessing of a model that takes normalized images: it becomes part of the file, which then
            takes raw pixels. None leaves the model as it is.
        xnnpack: Whether to replace what XNNPACK, which runs files on CPUs, has no kernels for by equivalent operators:
            depthwise convolutions of more than 25 taps, slices with steps, and in int8 hard swish, lone ReLUs, average
            pooling and the division in ConvNeXt V2. With them a ConvNeXt in int8 takes a quarter of its float file's
            time, without them three times that. Use False for GPU delegates, which support the plain operators. A
            quantization-aware model always has these forms.
        verify: Called with the complete file before it replaces `path`; what it raises stops the conversion. For
            example `lambda file: litert_parity(model, file, held_out).require(max_drop=0.01)`.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: Arguments can't be combined, the model is subclassed or not built, `task` does not fit the
            model, or `labels` need it; or `thresholds` don't fit the task or come without `labels`.
        DisagreementError: `LiteRTParity.require` raised it in `verify`; an older file at `path` is kept.
        ExportError: The model has several inputs or outputs, or the converter does not support it.
        MissingDependencyError: TensorFlow is not installed.
    """
    model = convertible(model)
    ends = read_ends(model)
    if ends.quantization_aware:
        quantization, representative_data = quantization or "int8", None  # its ranges are trained
    options = _Options(
        quantization, representative_data, input_dtype, output_dtype, batch_size, sparse, labels, xnnpack, verify
    )
    options.check(quantization_aware=ends.quantization_aware)
    network = Network.of_model(model)
    check_convertible(network, several=True)
    options = options.decided(network)
    check_task(task)
    if thresholds is not None and labels is None:
        raise InvalidArgumentError(f"`thresholds` must come with `labels`. Received: thresholds={thresholds!r} alone.")
    if network.outputs not in ([OUTPUT_NAME], [VALUES_NAME]) or isinstance(getattr(model, "output", None), dict):
        options = dataclasses.replace(options, task=task)  # named by `save_servable`: probabilities, or numbers
        if thresholds is not None:
            head = Head(task or "", len(labels or ()), None)
            options = dataclasses.replace(options, thresholds=label_thresholds(head, thresholds))
    elif labels is not None or task is not None:
        head = read_head(model, task)
        options = dataclasses.replace(
            options,
            task=head.task,
            logits=head.activation is not None,
            thresholds=label_thresholds(head, thresholds),
        )
        network = dataclasses.replace(network, outputs=[OUTPUT_NAME if head.ranks else VALUES_NAME])
        if head.task == "binary" and labels is not None and len(labels) == 2:
            options = dataclasses.replace(options, labels=labels[1:])
    if preprocessing is not None:
        _check_preprocessing(model, preprocessing, ends)
    elif labels is not None and not ends.takes_pixels:
        log.warning(
            "The model carries no preprocessing (no ImageNormalization layer), so an app will give it raw pixels "
            "0..255. If it was trained on normalized images, pass that Preprocessing."
        )
    pixels = ends.takes_pixels or preprocessing is not None
    if not ends.quantization_aware:
        try:
            graph = read(model)
        except UnreadableModelError:  # it is called as it is
            if preprocessing is not None:
                call, normalization = network.function, ImageNormalization(preprocessing)
                network = dataclasses.replace(network, function=lambda images: call(normalization(images)))
        else:
            pixels = pixels or _takes_pixels(graph, options)
            graph = graph if preprocessing is None else normalized(graph, preprocessing)
            prepared = [dataclasses.replace(form, outputs=network.outputs) for form in _prepared(graph, options)]
            return _write(prepared, path, options, pixels=pixels)
    return _write([network], path, options, pixels=pixels)


def convert_graph(graph: Graph, path: str | os.PathLike[str], *, pixels: bool | None = None, **arguments: Any) -> Path:
    """Does what `to_litert` does, with its arguments except for `preprocessing`: no model is read or built.

    The graph has one input, and one output or a dict of outputs. It is not changed. `pixels` says whether it takes raw
    pixels, for a graph whose normalization has been folded away; None looks for it.
    """
    options = _Options(**arguments)
    options.check(quantization_aware=False)
    network = Network.of_graph(graph)
    check_convertible(network, several=True)
    options = options.decided(network)
    pixels = _takes_pixels(graph, options) if pixels is None else pixels
    return _write(_prepared(graph, options), path, options, pixels=pixels)


def calibrated(graph: Graph, representative_data: Any, batch_size: int | None, pixels: bool | None) -> Calibrated:
    """A graph as `convert_graph` converts it to int8, halfway there; the arguments are those of `convert_graph`."""
    options = _Options("int8", representative_data, batch_size=batch_size)
    pixels = _takes_pixels(graph, options) if pixels is None else pixels
    return _calibrated(_prepared(graph, options)[-1], options, pixels)


def _takes_pixels(graph: Graph, options: _Options) -> bool:
    if options.representative_data is None:
        return False  # there are no ranges to set
    shape = graph.input_calls[0].outputs[0].shape[1:]
    return takes_pixels(graph, _samples(shape, options.representative_data, options.batch_size or 1))


@dataclasses.dataclass(frozen=True)
class _Options:
    """Arguments of `to_litert`."""

    quantization: str | None = None
    representative_data: Any = None
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    batch_size: int | None = 1
    sparse: bool | None = None
    labels: Sequence[str] | None = None
    xnnpack: bool = True
    verify: Verify | None = None
    task: str | None = None
    logits: bool = False
    thresholds: Sequence[float] | None = None

    def check(self, *, quantization_aware: bool) -> None:
        """Raises InvalidArgumentError for arguments that can't be combined."""
        quantization = self.quantization
        if quantization not in QUANTIZATIONS:
            raise InvalidArgumentError(f"`quantization` must be one of {QUANTIZATIONS}. Received: {quantization!r}.")
        for name in ("input_dtype", "output_dtype"):
            dtype = getattr(self, name)
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
        if quantization == "int8" and not quantization_aware and self.representative_data is None:
            raise InvalidArgumentError(
                "int8 of a Keras 3 model needs `representative_data`, from which the ranges of its activations are "
                "taken. Received: representative_data=None. Or train it with `keraslight.compress.train_quantized`."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1, or None. Received: {self.batch_size}.")
        if self.sparse and quantization not in _SPARSE:
            raise InvalidArgumentError(
                f"`sparse` must come with a quantization of {_SPARSE}. Received: quantization={quantization!r}."
            )

    def decided(self, network: Network) -> _Options:
        """With `sparse` decided by the share of zeros in the network's kernels, or in those that run sparsely."""
        if self.sparse is not None or self.quantization not in _SPARSE:
            return self
        kernels = [weight.numpy() for weight in network.trainable_weights if len(weight.shape) > 1]
        pointwise = [kernel for kernel in kernels if len(kernel.shape) == 4 and kernel.shape[:2] == (1, 1)]

        def zeros(kernels: Sequence[npt.NDArray[Any]]) -> float:
            return sum(int((k == 0).sum()) for k in kernels) / max(sum(k.size for k in kernels), 1)

        return dataclasses.replace(self, sparse=zeros(kernels) >= _SPARSE_FROM or zeros(pointwise) > SPARSE_FROM)


def _prepared(graph: Graph, options: _Options) -> list[Network]:
    """A graph with parallel branches joined, in the forms for XNNPACK; in front of it, if there is one, a sparse form.

    The latter is worth a file only if XNNPACK accepts it, which the file shows.
    """
    graph = reparameterized(float_inputs(graph))
    plain = Network.of_graph(in_forms(graph, int8=options.quantization == "int8", xnnpack=options.xnnpack))
    if not (options.sparse and options.xnnpack and pointwise_zeros(graph) > SPARSE_FROM):
        return [plain]
    graph = fused(graph)
    forms = SparseForms.of(graph)
    return [plain] if forms is None else [Network.of_graph(graph, forms), plain]


def _write(networks: Sequence[Network], path: str | os.PathLike[str], options: _Options, *, pixels: bool) -> Path:
    """Writes the first network whose file is as it should be: the last one's always is."""
    *sparse, network = networks
    content = None
    for form in sparse:
        found = nchw_forms(_converted(form, options, pixels))
        if sparse_inference(read_model(found)).accepted:
            content = found
            break
    if content is None:
        content = _converted(network, options, pixels)
        if options.sparse and sparse_inference(read_model(content)).wrong:
            content = without_parts(content)
    return_free_memory()
    if options.quantization == "float16":
        content = halve_weights(content)
    if options.labels is not None:
        numbers = options.quantization or "float32"
        content = add_metadata(
            content,
            name=network.name,
            numbers=numbers,
            labels=options.labels,
            task=options.task or "softmax",
            logits=options.logits,
            thresholds=options.thresholds,
        )
    return write_file(Path(path), content, options.verify)


def _converted(network: Network, options: _Options, pixels: bool) -> bytes:
    """The converter's file. A function of its own, so that all it needs is free when it returns."""
    if options.quantization == "int8" and options.representative_data is not None:
        calibrated = _calibrated(network, options, pixels)
        with refusals(network.name):
            return calibrated.quantized(options.input_dtype, options.output_dtype)
    with tempfile.TemporaryDirectory() as folder:
        converter = _converter(network, frozen(network, options.batch_size), folder)
        if options.quantization in ("dynamic", "int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if options.sparse:
            converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        if options.quantization == "int8":
            converter.inference_input_type = tf.as_dtype(options.input_dtype)
            converter.inference_output_type = tf.as_dtype(options.output_dtype)
        with refusals(network.name):
            content: bytes = converter.convert()
        return content


def _calibrated(network: Network, options: _Options, pixels: bool) -> Calibrated:
    samples = _samples(network.image_shape, options.representative_data, options.batch_size or 1)
    function = frozen(network, options.batch_size)
    _check_loops(network, function)
    with tempfile.TemporaryDirectory() as folder:
        converter = _converter(network, function, folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter._experimental_calibrate_only = True
        with refusals(network.name):
            content = converter.convert()
    return settled(content, output_paths(network, function), pixels=pixels)


def _check_loops(network: Network, function: Any) -> None:
    """Raises ExportError for loops: the converter's calibration would end the process at them."""
    for operation in function.graph.get_operations():
        if operation.type in _LOOPS:
            raise ExportError(
                "A model to quantize by calibration must not have loops. Received: "
                f"{network.name!r} with {operation.name!r}. Build recurrent layers with `unroll=True`, convert to "
                "float32 or float16, or use `keraslight.compress.quantize_aware`."
            )


def _converter(network: Network, function: Any, folder: str) -> tf.lite.TFLiteConverter:
    # Saved here rather than by the converter, which can't leave out the custom gradients. Those of silu hold a
    # tensor of the first function: with them its own saving fails, silently, and the file has no signature.
    save_options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    signatures = {SIGNATURE_NAME: named(network, function).get_concrete_function()}
    tf.saved_model.save(tf.Module(), folder, signatures=signatures, options=save_options)
    return tf.lite.TFLiteConverter.from_saved_model(folder)


def _check_preprocessing(model: Any, spec: Preprocessing, ends: Ends) -> None:
    if ends.quantization_aware or ends.takes_pixels:
        reason = "is quantization-aware" if ends.quantization_aware else "normalizes itself"
        raise InvalidArgumentError(
            "`preprocessing` is for a Keras 3 model that takes normalized images. "
            f"Received: {model.name!r}, which {reason}."
        )
    shape = tuple(model.inputs[0].shape[1:])
    if shape[-1] != spec.channels:
        raise InvalidArgumentError(
            "`preprocessing` must have the model's channels. "
            f"Received: {spec.channels} channels for images of shape {shape}."
        )


def _samples(shape: tuple[int | None, ...], data: Any, batch_size: int) -> list[npt.NDArray[np.float32]]:
    """Float32 batches of `batch_size` images from `representative_data`."""
    name = "representative_data"
    batches = labelled_batches(data, whole=False, rank=len(shape) + 1, name=name)
    rows = (image for images, _ in batches for image in np.asarray(images, np.float32))
    images = list(itertools.islice(rows, max(_SAMPLES, batch_size)))
    if len(images) < batch_size:
        raise InvalidArgumentError(
            f"`{name}` must hold at least a batch of {batch_size} images. Received: {len(images)}."
        )
    for image in images:
        if not fits(image.shape, shape) or image.shape != images[0].shape:
            raise InvalidArgumentError(
                f"`{name}` must hold images of the model's shape, {shape}, all of one size. Received: {image.shape}"
                f"{channels_first(image.shape, shape)}."
            )
    starts = range(0, len(images) - batch_size + 1, batch_size)
    return [np.stack(images[start : start + batch_size]) for start in starts]
