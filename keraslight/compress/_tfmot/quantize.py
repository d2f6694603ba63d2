"""Quantization-aware tf_keras models: int8-friendly twins, each with its own choice of quantizers.

`quantize_model` of tensorflow_model_optimization rejects squeeze-and-excitation, Rescaling, lone batch norms and custom
layers, and starts every range at -6..6. Here every layer gets an explicit configuration that follows from the graph,
and ranges start where the data puts them. The library's wrappers do the work. They are put around the layers
directly: `quantize_apply` would copy the whole model four times to arrive at the same wrappers.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from keraslight import preprocessing
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
from keraslight.compress._tfmot.saved import Origin, QuantizationAware
from keraslight.graph import Graph, graph_name, with_graph_names

_RANGE = (-6.0, 6.0)  # of an activation without calibration data


def quantize(
    graph: Graph,
    name: str,
    *,
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
    quantized = _quantized_outputs(built, skip)
    ranges = _ranges(built, quantized, calibration) if calibration else {}
    new: dict[int, Any] = {}
    for tensor, layer in zip(keras.tree.flatten(built.inputs), graph.input_layers, strict=True):
        new[id(tensor)] = _quantized_input(built, tensor, layer, ranges)

    def moved(structure: Any) -> Any:
        return keras.tree.map_structure(lambda v: new.get(id(v), v), structure)

    # What a batch norm or layer scale reads: the file folds them into the kernel before.
    folded = {id(step.args[0]) for step in built.steps if step.kind == "affine"}
    wrappers: dict[int, tf_keras.layers.Layer] = {}
    for step in built.steps:
        layer = step.layer
        # The library's wrapper takes one input and one output.
        wrapped = not isinstance(layer, twin_layers.KerasLayer) and step.output is step.outputs[0]
        if id(layer) not in wrappers:
            quantizer = None
            if wrapped and id(step.output) in quantized:
                quantizer = ActivationQuantizer(*ranges.get(id(step.output), _RANGE), step.kind == "relu")
            weight = None
            if step.kind == "conv" and step.name not in skip:
                weight = _weight(layer, folds=id(step.output) in folded)
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
                quantizer = ActivationQuantizer(*ranges.get(id(old), _RANGE))
                label = built.unique(f"{PREFIX}{layer.name}_output_{n}")
                output = Quantize(quantizer, name=label)(output)
            new[id(old)] = output
    model = transcribe.as_model(graph, built.inputs, moved(built.outputs), name, QuantizationAware)
    kinds = {layer_name: type(layer).__name__ for layer_name, layer in graph.layers().items()}
    model.origin = Origin(
        {own_names[layer_name]: variables for layer_name, variables in built.variables.items()},
        {own_names[layer_name]: kind for layer_name, kind in kinds.items()},
        {own_names[layer_name]: reason for layer_name, reason in _floats(built, skip).items()},
    )
    return model


def _floats(built: Transcriber, skip: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for step in built.steps:
        reason = "left out by `skip`" if step.name in skip else step.why_float()
        if reason is not None:
            found.setdefault(step.name, reason)
    return found


def _quantized_outputs(built: Transcriber, skip: tuple[str, ...]) -> set[int]:
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
        if step.kind != "silent" and not fuses and step.name not in skip:
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
        values = probe(batch, training=False)
        found.append([(float(tf.reduce_min(v)), float(tf.reduce_max(v))) for v in values])
    means = np.mean(found, axis=0)
    return {id(tensor): (low, high) for tensor, (low, high) in zip(tensors, means, strict=True)}


def _quantized_input(
    built: Transcriber, tensor: Any, layer: keras.layers.InputLayer, ranges: dict[int, tuple[float, float]]
) -> Any:
    if not tf.as_dtype(layer.dtype).is_floating:
        return tensor
    readers = [step for step in built.steps if any(v is tensor for v in keras.tree.flatten(step.args))]
    if readers and all(step.name == preprocessing.LAYER_NAME for step in readers):
        # Raw pixels: scale 1 and no rounding, so that a uint8 image goes in as it is.
        quantizer = quantizers.FixedQuantizer(num_bits=8, init_min=0.0, init_max=255.0, narrow_range=False)
    else:
        quantizer = ActivationQuantizer(*ranges.get(id(tensor), _RANGE))
    return Quantize(quantizer, name=built.unique(f"{PREFIX}{graph_name(layer.name)}"))(tensor)


def _weight(layer: tf_keras.layers.Layer, folds: bool) -> tuple[str, KernelQuantizer]:
    """The name of a layer's kernel and its quantizer; `folds` says that the file scales the kernel's channels."""
    depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    attribute = "depthwise_kernel" if depthwise else "kernel"
    limits = np.abs(getattr(layer, attribute).numpy())
    constraint = layer.depthwise_constraint if depthwise else layer.kernel_constraint
    if isinstance(constraint, KeepClusters) and not folds:
        # One range for all: with one per channel, each channel would write the same few values as different bytes.
        return attribute, KernelQuantizer(limits.max())
    if isinstance(layer, tf_keras.layers.Dense | tf_keras.layers.Conv2DTranspose):
        # One range for all: the converter can't turn ranges by channel around with a transposed kernel.
        return attribute, KernelQuantizer(limits.max())
    return attribute, KernelQuantizer(limits.max(axis=(0, 1)).ravel() if depthwise else limits.max(axis=(0, 1, 2)))


def compile_classifier(model: tf_keras.Model, learning_rate: Any, *, from_logits: bool) -> None:
    """Compiles for integer labels."""
    model.compile(
        optimizer=tf_keras.optimizers.Adam(learning_rate),
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    if not (isinstance(model.output_shape, tuple) and len(model.output_shape) == 2):
        return  # no classifier: the user compiles it again with a loss that fits
    # A first training step that has to make the optimizer's and the metrics' variables is traced twice, and for a
    # model of a hundred wrappers each trace takes seconds. So they are made here, on a made-up batch.
    model.optimizer.build(model.trainable_variables)
    guess = tf.fill((1, model.output_shape[-1]), 1.0 / model.output_shape[-1])
    model.compute_loss(None, tf.zeros((1,)), guess)
    model.compute_metrics(None, tf.zeros((1,)), guess, None)
    model.reset_metrics()


def cosine(learning_rate: float, steps: int) -> tf_keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls to a hundredth along half a cosine."""
    return tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)


def set_seed(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and tf_keras' own generators."""
    tf_keras.utils.set_random_seed(seed)
