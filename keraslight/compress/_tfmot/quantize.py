"""Quantization-aware tf_keras models: int8-friendly twins, each with its own choice of quantizers.

`quantize_model` of tensorflow_model_optimization rejects squeeze-and-excitation, Rescaling, lone batch norms and custom
layers, and starts every range at -6..6. Here every layer gets an explicit configuration that follows from the graph,
and ranges start where the data puts them. The library's wrappers do the work. They are put around the layers
directly: `quantize_apply` would copy the whole model four times to arrive at the same wrappers.
"""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from keraslight import _tasks
from keraslight.compress._tfmot import transcribe, twin_layers
from keraslight.compress._tfmot.int8_graph import Transcriber
from keraslight.compress._tfmot.int8_steps import Step
from keraslight.compress._tfmot.quantizers import (
    PREFIX,
    ActivationQuantizer,
    Config,
    KeepClusters,
    KernelQuantizer,
    Quantize,
    Wrapper,
)
from keraslight.compress._tfmot.ranges import FirstRanges, LeastKernel, kernel_name, kernel_of
from keraslight.compress._tfmot.saved import NoLoss, Origin, QuantizationAware
from keraslight.errors import CompressionError
from keraslight.graph import Graph, graph_name, with_graph_names
from keraslight.rewrite.xnnpack import unrounded_calls

_RANGE = (-6.0, 6.0)  # of an activation without calibration data
_BEYOND = 1e37  # nearly all that float32 holds
# Raw pixels: scale 1 and no rounding, so that a uint8 image goes in as it is.
_PIXELS = quantizers.FixedQuantizer(num_bits=8, init_min=0.0, init_max=255.0, narrow_range=False)


def quantize(
    graph: Graph,
    name: str,
    *,
    pixels: bool,
    skip: tuple[str, ...],
    keep_zeros: bool,
    keep_clusters: bool,
    batch_norm_steps: int,
    calibration: list[Any] | None,
) -> tf_keras.Model:
    """Builds the quantization-aware model.

    Args:
        graph: The Keras 3 model's graph.
        name: The new model's name.
        pixels: Whether the inputs are raw pixels 0..255.
        skip: Names of layers that stay float.
        keep_zeros: Whether zeros in kernels stay through training.
        keep_clusters: Whether clustered kernels keep their number of values.
        batch_norm_steps: Training steps in which batch norms follow the batches' statistics.
        calibration: Batches of inputs from which the activations' first ranges are taken, or None for -6..6, behind a
            ReLU 0..6.
    """
    graph, own_names = with_graph_names(graph)
    skip = tuple(map(graph_name, skip))
    built = Transcriber(graph, keep_zeros, keep_clusters, batch_norm_steps)
    floats = {*skip, *unrounded_calls(graph)}
    quantized = _quantized_outputs(built, floats)
    ranges = _ranges(built, quantized, calibration) if calibration else {}
    inputs = keras.tree.flatten(built.inputs)
    input_quantizers = {id(t): _input_quantizer(t, ranges, pixels) for t in inputs if t.dtype.is_floating}
    ends = {key: (q.low, q.high) if q is not _PIXELS else (0.0, 255.0) for key, q in input_quantizers.items()}
    first = FirstRanges(built.steps, ends, quantized, ranges, _RANGE)
    output_quantizers = {key: value.quantizer() for key, value in first.first.items()}
    sources = {**input_quantizers, **output_quantizers}
    new: dict[int, Any] = {}
    for tensor in inputs:
        new[id(tensor)] = tensor
        if id(tensor) in input_quantizers:
            label = built.unique(f"{PREFIX}{tensor.name}")
            new[id(tensor)] = Quantize(input_quantizers[id(tensor)], name=label)(tensor)

    def moved(structure: Any) -> Any:
        return keras.tree.map_structure(lambda v: new.get(id(v), v), structure)

    # What a batch norm or layer scale reads: the file folds them into the kernel before.
    folded = {id(step.args[0]): step for step in built.steps if step.kind == "affine"}
    wrappers: dict[int, tf_keras.layers.Layer] = {}
    for step in built.steps:
        layer = step.layer
        # The library's wrapper takes one input and one output.
        wrapped = not isinstance(layer, twin_layers.KerasLayer) and step.output is step.outputs[0]
        if id(layer) not in wrappers:
            quantizer = output_quantizers.get(id(step.output)) if wrapped else None
            weight = None
            if step.kind == "conv" and step.name not in floats:
                weight = _weight(layer, _folds_of(step, folded), sources.get(first.source(step.args[0])))
            wrappers[id(layer)] = (
                Wrapper(layer, Config(weight, quantizer), name_prefix=PREFIX) if weight or quantizer else layer
            )
        kwargs = step.kwargs
        if type(layer) is tf_keras.layers.BatchNormalization:
            # The statistics stay those of the trained model (gamma and beta do train): they are what the file folds
            # into its kernels. With batch statistics a small net's accuracy was the same within three images of 397,
            # and one with tiny layer scales got gradients of 1e30: rounding leaves some channels without variance.
            kwargs = {**kwargs, "training": False}
        outputs = keras.tree.flatten(wrappers[id(layer)](*moved(step.args), **moved(kwargs)))
        for n, (old, output) in enumerate(zip(step.outputs, outputs, strict=True)):
            if not wrapped and id(old) in quantized:
                label = built.unique(f"{PREFIX}{layer.name}_output_{n}")
                output = Quantize(output_quantizers[id(old)], name=label)(output)
            new[id(old)] = output
    model = transcribe.as_model(graph, built.inputs, moved(built.outputs), name, QuantizationAware)
    model.origin = Origin(
        {own_names[layer]: variables for layer, variables in built.variables.items()},
        {own_names[label]: type(layer).__name__ for label, layer in graph.layers().items()},
        {own_names[layer]: reason for layer, reason in _reasons(built, skip, floats).items()},
    )
    return model


def _reasons(built: Transcriber, skip: Collection[str], floats: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for step in built.steps:
        reason = step.why_float()
        if step.name in floats:
            reason = (
                "left out by `skip`" if step.name in skip else "what reads it, such as a division, can't stand rounding"
            )
        if reason is not None:
            found.setdefault(step.name, reason)
    return found


def _quantized_outputs(built: Transcriber, floats: Collection[str]) -> set[int]:
    """The ids of the tensors that get a quantizer.

    None where the next step fuses into this one in the file: convolution -> batch norm -> relu is one int8 operator
    with one output, and rounding between them would be rounding that inference never does.
    """
    readers: dict[int, list[Step | None]] = {}
    uses: dict[int, int] = {}
    for step in built.steps:
        uses[id(step.layer)] = uses.get(id(step.layer), 0) + 1
        for tensor in keras.tree.flatten((step.args, step.kwargs)):
            readers.setdefault(id(tensor), []).append(step)
    for tensor in keras.tree.flatten(built.outputs):
        readers.setdefault(id(tensor), []).append(None)
    quantized = set()
    for step in built.steps:
        followers = readers.get(id(step.output), [])
        following = followers[0] if len(followers) == 1 else None
        fuses = (
            following is not None
            and uses[id(step.layer)] == uses[id(following.layer)] == 1
            and (
                (following.kind == "affine" and step.kind in ("conv", "affine"))
                or (following.kind == "relu" and step.kind in ("conv", "affine", "sum"))
            )
        )
        if step.kind != "silent" and not fuses and step.name not in floats:
            quantized |= {id(tensor) for tensor in step.outputs if tensor.dtype.is_floating}
    return quantized


def _ranges(built: Transcriber, outputs: set[int], calibration: list[Any]) -> dict[int, tuple[float, float]]:
    """Tensor id -> the mean of the batches' minima and maxima, from the float twin."""
    made = [tensor for step in built.steps for tensor in step.outputs if id(tensor) in outputs]
    inputs = [tensor for tensor in keras.tree.flatten(built.inputs) if tensor.dtype.is_floating]
    tensors = [*inputs, *made]
    probe = tf_keras.Model(built.inputs, tensors)
    found = []
    for batch in calibration:
        try:
            values = keras.tree.flatten(probe(batch, training=False))  # a tensor if there is one output
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise CompressionError(
                "A model to quantize must run on the calibration data, in batches. Received: batches of shape "
                f"{[tuple(np.shape(part)) for part in keras.tree.flatten(batch)]}, for which it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        found.append([(float(tf.reduce_min(v)), float(tf.reduce_max(v))) for v in values])
    means = np.mean(found, axis=0)
    names = {id(tensor): step.name for step in built.steps for tensor in step.outputs}
    for tensor, value in zip(tensors, means, strict=True):
        if not (np.abs(value) < _BEYOND).all():
            where = f"of layer {names[id(tensor)]!r}" if id(tensor) in names else "in the data"
            raise CompressionError(
                "Every layer of a model to quantize must give finite values for the calibration data. Received: "
                f"values from {value[0]:g} to {value[1]:g} {where}."
            )
    return {id(tensor): (low, high) for tensor, (low, high) in zip(tensors, means, strict=True)}


def _input_quantizer(tensor: Any, ranges: dict[int, tuple[float, float]], pixels: bool) -> Any:
    return _PIXELS if pixels else ActivationQuantizer(*ranges.get(id(tensor), _RANGE))


def _folds_of(step: Step, folded: dict[int, Step]) -> list[tf_keras.layers.Layer]:
    """The batch norms and factors that the file folds into a convolution, in order."""
    folds = []
    while (behind := folded.get(id(step.output))) is not None:
        folds.append(behind.layer)
        step = behind
    return folds


def _weight(
    layer: tf_keras.layers.Layer, folds: list[tf_keras.layers.Layer], source: Any
) -> tuple[str, KernelQuantizer]:
    """The name of a layer's kernel and its quantizer.

    Args:
        layer: The layer.
        folds: What the file folds into the kernel.
        source: Quantizer of what the layer reads, or None.
    """
    depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    limits = np.abs(kernel_of(layer))
    constraint = layer.depthwise_constraint if depthwise else layer.kernel_constraint
    # One range for all:
    # - for clusters: with one per channel, each channel would write the same few values as different bytes,
    # - the converter can't turn ranges by channel around with a transposed kernel.
    by_channel = not (isinstance(constraint, KeepClusters) and not folds) and not isinstance(
        layer, tf_keras.layers.Dense | tf_keras.layers.Conv2DTranspose
    )
    if by_channel:
        limits = limits.max(axis=(0, 1)).ravel() if depthwise else limits.max(axis=(0, 1, 2))
    else:
        limits = limits.max()
    return kernel_name(layer), KernelQuantizer(limits, LeastKernel(layer, folds, source, by_channel))


def compile_for(model: tf_keras.Model, learning_rate: Any, head: _tasks.Head, *, rows: bool) -> None:
    """Compiles for a task; `rows`: whether labels of a softmax are rows rather than integers."""
    model.compile(
        optimizer=tf_keras.optimizers.Adam(learning_rate),
        loss=_tasks.loss(head, rows=rows, losses=tf_keras.losses),
        metrics=[_tasks.metric(head, metrics=tf_keras.metrics)],
    )
    if len(model.output_shape) != 2:
        return
    # A first training step that has to make the optimizer's and the metrics' variables is traced twice, and for a
    # model of a hundred wrappers each trace takes seconds. So they are made here, on a made-up batch.
    model.optimizer.build(model.trainable_variables)
    guess = tf.fill((1, model.output_shape[-1]), 1.0 / model.output_shape[-1])
    labels = tf.zeros((1,)) if head.task == "softmax" and not rows else guess
    model.compute_loss(None, labels, guess)
    model.compute_metrics(None, labels, guess, None)
    model.reset_metrics()


def compile_without_loss(model: tf_keras.Model, learning_rate: Any, reason: str) -> None:
    """Compiles a model so that training it raises InvalidArgumentError with this reason: there is no loss for it."""
    model.compile(optimizer=tf_keras.optimizers.Adam(learning_rate), loss=NoLoss(reason))


def cosine(learning_rate: float, steps: int) -> tf_keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls to a hundredth along half a cosine."""
    return tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)


def set_seed(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and tf_keras' own generators."""
    tf_keras.utils.set_random_seed(seed)
