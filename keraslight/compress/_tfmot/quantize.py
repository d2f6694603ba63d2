"""Quantization-aware tf_keras models: int8-friendly twins, each with its own choice of quantizers.

`quantize_model` of tensorflow_model_optimization refuses squeeze-and-excitation, Rescaling, lone batch norms and custom
layers, and starts every range at -6..6. Here every layer gets an explicit configuration that follows from the graph,
and ranges start where the data puts them. The library's wrappers do the work. They are put around the layers
directly: `quantize_apply` would copy the whole model four times to arrive at the same wrappers.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layer,
    quantize_wrapper,
    quantizers,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig

from keraslight import layers as own
from keraslight import preprocessing
from keraslight.compress._graph import Call, Graph
from keraslight.compress._tfmot import transcribe, twins
from keraslight.errors import UnmappableLayerError

PREFIX = "quant_"

_KERNELS = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)
_CONVOLUTIONS = (keras.layers.Conv2D, own.GroupedConv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_CONSTANT_AFFINE = (keras.layers.Rescaling, keras.layers.Normalization, own.ImageNormalization)
_AFFINE = (tf_keras.layers.BatchNormalization, twins.LayerScale)
# Layers whose int8 form keeps its input's scale, or has a fixed one that the converter knows (softmax, sigmoid, tanh).
# A quantizer of its own behind an average pooling makes the converter fail ("violate the same scale constraint").
_SILENT = (
    *(tf_keras.layers.Reshape, tf_keras.layers.Permute, tf_keras.layers.Flatten, tf_keras.layers.RepeatVector),
    *(tf_keras.layers.ZeroPadding2D, tf_keras.layers.Cropping2D, tf_keras.layers.UpSampling2D),
    *(tf_keras.layers.MaxPooling2D, tf_keras.layers.AveragePooling2D, tf_keras.layers.GlobalMaxPooling2D),
    *(tf_keras.layers.Dropout, tf_keras.layers.SpatialDropout2D, tf_keras.layers.Softmax, twins.HardSigmoid),
    *(tf_keras.layers.GaussianNoise, tf_keras.layers.GaussianDropout, tf_keras.layers.Identity),
    twins.ChannelSlice,
)


@dataclasses.dataclass
class Step:
    """One call of a tf_keras layer in the int8-friendly graph.

    Attributes:
        layer: The tf_keras layer.
        kind: `"conv"` (has a kernel), `"affine"` (a factor and an offset a channel, folds into the convolution before
            it), `"relu"` (fuses into what is before it), `"silent"` (gets no quantizer), or `"other"`.
        name: The Keras 3 layer that it comes from.
        args, kwargs: Structures with tf_keras tensors.
        output: The tensor that it makes.
    """

    layer: tf_keras.layers.Layer
    kind: str
    name: str
    args: tuple
    kwargs: dict[str, Any]
    output: Any


class KernelQuantizer(quantizers.Quantizer):
    """Eight bits, symmetric, range of the last step; one range an output channel.

    Two differences from the library's own: a depthwise kernel gets a range a channel too (there, one for all, because
    its last axis is not the channels'), and a channel of zeros, as pruning makes them, keeps a range above 0 (the
    converter can't write a scale of 0).

    Args:
        limit: The first range's upper limit: a float, or an array with one a channel.
    """

    SMALLEST = 1e-6

    def __init__(self, limit):
        self.limit = np.maximum(np.asarray(limit, np.float32), self.SMALLEST)

    def build(self, tensor_shape, name, layer):
        return {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}",
                shape=self.limit.shape,
                initializer=tf_keras.initializers.Constant(sign * self.limit),
                trainable=False,
            )
            for end, sign in (("min", -1), ("max", 1))
        }

    def __call__(self, inputs, training, weights, **kwargs):
        by_channel = self.limit.ndim == 1
        kernel = tf.reshape(inputs, (*inputs.shape[:2], -1, len(self.limit))) if by_channel else inputs
        low, high = weights["min_var"], weights["max_var"]
        if training:
            limit = tf.reduce_max(tf.abs(kernel), axis=(0, 1, 2) if by_channel else None)
            limit = tf.maximum(limit, self.SMALLEST)
            low, high = low.assign(-limit), high.assign(limit)
        quantize = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if by_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return tf.reshape(quantize(kernel, low, high, num_bits=8, narrow_range=True), inputs.shape)

    def get_config(self):
        return {"limit": self.limit.tolist()}


class ActivationQuantizer(quantizers.Quantizer):
    """Eight bits, one range that follows the batches' minima and maxima.

    Two differences from the library's own: the average follows faster (its decay of 0.999 needs thousands of steps,
    more than a fine-tuning has), and the range never shrinks to nothing (a range of 1e-40 trains to NaN, and NaN
    crashes the converter).

    Args:
        low, high: The first range; 0 is taken in, because padding writes zeros.
    """

    DECAY = 0.99
    SMALLEST = 1e-6

    def __init__(self, low: float = -6.0, high: float = 6.0):
        self.low, self.high = min(float(low), 0.0), max(float(high), self.SMALLEST)

    def build(self, tensor_shape, name, layer):
        return {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}", initializer=tf_keras.initializers.Constant(value), trainable=False
            )
            for end, value in (("min", self.low), ("max", self.high))
        }

    def __call__(self, inputs, training, weights, **kwargs):
        low, high = weights["min_var"], weights["max_var"]
        if training:
            batch_low = tf.minimum(tf.reduce_min(inputs), 0.0)
            batch_high = tf.maximum(tf.reduce_max(inputs), self.SMALLEST)
            low = low.assign_sub((1 - self.DECAY) * (low - batch_low))
            high = high.assign_sub((1 - self.DECAY) * (high - batch_high))
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=8)

    def get_config(self):
        return {"low": self.low, "high": self.high}


class Wrapper(quantize_wrapper.QuantizeWrapperV2):
    """The library's wrapper, for frozen layers too: it lists every kernel that it quantizes as trainable."""

    @property
    def trainable_weights(self):
        return super().trainable_weights if self.layer.trainable else []

    @property
    def non_trainable_weights(self):
        frozen = [] if self.layer.trainable else super().trainable_weights
        return [*frozen, *super().non_trainable_weights]


class Config(QuantizeConfig):
    """Which weight and whether the output of a layer is quantized.

    Args:
        weight: Attribute name of the kernel and its quantizer, or None.
        output: The output's quantizer, or None.
    """

    def __init__(self, weight: tuple[str, KernelQuantizer] | None = None, output: ActivationQuantizer | None = None):
        self.weight, self.output = weight, output

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self.weight[0]), self.weight[1])] if self.weight else []

    def set_quantize_weights(self, layer, quantize_weights):
        if self.weight:
            setattr(layer, self.weight[0], quantize_weights[0])

    def get_activations_and_quantizers(self, layer):
        return []  # activations are layers of their own here

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return [self.output] if self.output else []

    def get_config(self):
        return {}


class KeepZeros(tf_keras.constraints.Constraint):
    """Holds a pruned kernel's zeros: the optimizer applies it to the kernel after every step.

    A constraint, not a callback, so that it holds in any `fit` and in custom loops.
    """

    def __init__(self, kernel: np.ndarray):
        self.mask = tf.constant(kernel != 0, tf.float32)

    def __call__(self, w):
        return w * self.mask


class Transcriber:
    """Builds the int8-friendly float twin of a graph and remembers every step.

    Args:
        graph: The Keras 3 model's graph.
        keep_zeros: Whether kernels with zeros get a constraint that keeps them.
    """

    def __init__(self, graph: Graph, keep_zeros: bool):
        self.graph, self.keep_zeros = graph, keep_zeros
        self.steps: list[Step] = []
        self.names = {layer.name for layer in graph.input_layers} | set(graph.layers())
        self.made: dict[str, tf_keras.layers.Layer] = {}
        self.called: set[str] = set()
        self.consumers = graph.consumers()
        self.inputs = transcribe.inputs_of(graph)
        self.outputs = graph.rebuild(self.inputs, self.call)

    def emit(self, layer, kind: str, call: Call, args: tuple, kwargs=None, weights=None):
        """Calls a tf_keras layer, gives it weights and records the step."""
        output = layer(*args, **(kwargs or {}))
        if weights:
            layer.set_weights(weights)
        self.steps.append(Step(layer, kind, call.name, args, kwargs or {}, output))
        return output

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, ... where it is taken."""
        candidate, n = name, 2
        while candidate in self.names:
            candidate, n = f"{name}_{n}", n + 1
        self.names.add(candidate)
        return candidate

    def name_of(self, call: Call) -> str:
        """The layer's own name for its first call, another one for the next: layers without weights can be copied."""
        if call.name not in self.called:
            self.called.add(call.name)
            return call.name
        return self.unique(f"{call.name}_call")

    def call(self, call: Call, args: tuple, kwargs: dict):
        """One Keras 3 call -> one or more steps; returns the last one's output."""
        layer = call.layer
        if isinstance(layer, keras.layers.SeparableConv2D | keras.layers.Conv2DTranspose):
            raise UnmappableLayerError(
                "A model to quantize must not have SeparableConv2D or Conv2DTranspose layers. "
                f"Received: layer {layer.name!r} of class {type(layer).__name__}. Use DepthwiseConv2D and a 1x1 Conv2D."
            )
        if type(layer) in _CONSTANT_AFFINE and len(args[0].shape) == 4:
            return self.constant_affine(call, args)
        if type(layer) is keras.layers.Add and len(args[0]) > 2:
            return self.binary_adds(call, args)
        if type(layer) in _CONVOLUTIONS:
            return self.convolution(call, args, kwargs)
        shared = call.name in self.made
        if not shared and type(layer) is keras.layers.Activation:
            self.made[call.name] = twins.activation_twin(twins.activation_name(layer), call.name, quantized=True)
        elif not shared:
            self.made[call.name] = twins.twin(layer, call.name)
        made = self.made[call.name]
        kind = _kind(made)
        if kind == "affine" and len(args[0].shape) == 4 and not self.follows_convolution(call, args[0]):
            args = (self.identity(call, args[0]), *args[1:])
        weights = layer.get_weights() if getattr(layer, "weights", ()) and not shared else None
        return self.emit(made, kind, call, args, kwargs, weights)

    def follows_convolution(self, call: Call, tensor) -> bool:
        """Whether a batch norm or layer scale can fold into the step before it."""
        before = next((step for step in reversed(self.steps) if step.output is tensor), None)
        return before is not None and before.kind in ("conv", "affine") and len(self.consumers[call.inputs[0]]) == 1

    def identity(self, call: Call, tensor):
        """A 1x1 depthwise convolution with ones, for a lone batch norm to fold into."""
        layer = tf_keras.layers.DepthwiseConv2D(
            1, use_bias=False, trainable=False, name=self.unique(f"{call.name}_identity")
        )
        return self.emit(layer, "conv", call, (tensor,), weights=[np.ones((1, 1, tensor.shape[-1], 1))])

    def constant_affine(self, call: Call, args: tuple):
        """`x * scale + offset` a channel -> a constant 1x1 depthwise convolution, which is int8 in the file."""
        layer, channels = call.layer, args[0].shape[-1]
        if isinstance(layer, keras.layers.Rescaling):  # or our ImageNormalization, which is one
            scale, offset = layer.scale, layer.offset
        else:
            mean, std = (np.asarray(v).ravel() for v in (layer.mean, np.sqrt(layer.variance)))
            scale, offset = (std, mean) if layer.invert else (1 / std, -mean / std)
        made = tf_keras.layers.DepthwiseConv2D(1, trainable=False, name=self.name_of(call))
        kernel, bias = (np.broadcast_to(np.asarray(v, np.float32), (channels,)) for v in (scale, offset))
        return self.emit(made, "conv", call, args, weights=[kernel.reshape(1, 1, channels, 1), bias])

    def binary_adds(self, call: Call, args: tuple):
        """a + b + c -> (a + b) + c: the int8 ADD takes two."""
        total = args[0][0]
        for n, other in enumerate(args[0][1:], start=2):
            name = self.name_of(call) if n == len(args[0]) else self.unique(f"{call.name}_{n}")
            total = self.emit(tf_keras.layers.Add(name=name), "other", call, ([total, other],))
        return total

    def convolution(self, call: Call, args: tuple, kwargs: dict):
        """A layer with a kernel, its activation split off."""
        layer = call.layer
        kind = twins.activation_name(layer)
        weights = None
        if call.name not in self.made:
            changes: dict[str, Any] = {"activation": "linear"}
            kernel, weights = np.asarray(layer.kernel), layer.get_weights()
            if self.keep_zeros and not kernel.all():
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                changes["depthwise_constraint" if depthwise else "kernel_constraint"] = KeepZeros(kernel)
            self.made[call.name] = twins.twin(layer, call.name, **changes)
        output = self.emit(self.made[call.name], "conv", call, args, kwargs, weights)
        if kind != "linear":
            activation = twins.activation_twin(kind, self.unique(f"{call.name}_{kind}"), quantized=True)
            output = self.emit(activation, _kind(activation), call, (output,))
        return output


def _kind(layer) -> str:
    if isinstance(layer, _AFFINE):
        return "affine"
    if isinstance(layer, tf_keras.layers.ReLU):
        fuses = not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6.0)
        return "relu" if fuses else "other"
    if isinstance(layer, _SILENT):
        return "silent"
    if isinstance(layer, tf_keras.layers.Activation):
        name = getattr(layer.activation, "__name__", "")
        return "silent" if name in ("softmax", "sigmoid", "tanh", "linear") else "other"
    if isinstance(layer, _KERNELS):
        return "conv"
    return "other"


def quantize(
    graph: Graph, name: str, *, skip: tuple[str, ...], keep_zeros: bool, calibration: list | None
) -> tf_keras.Model:
    """Builds the quantization-aware model.

    Args:
        graph: The Keras 3 model's graph.
        name: The new model's name.
        skip: Name patterns of layers that stay float.
        keep_zeros: Whether zeros in kernels stay through training.
        calibration: Batches of inputs from which the activations' first ranges are taken, or None for -6..6.
    """
    built = Transcriber(graph, keep_zeros)
    outputs = _quantized_outputs(built, skip)
    ranges = _ranges(built, outputs, calibration) if calibration else {}
    new: dict[int, Any] = {}
    for tensor, layer in zip(built.inputs, graph.input_layers, strict=True):
        new[id(tensor)] = _quantized_input(built, tensor, layer, ranges)

    def moved(structure):
        return keras.tree.map_structure(lambda v: new.get(id(v), v), structure)

    wrappers: dict[int, tf_keras.layers.Layer] = {}
    for step in built.steps:
        layer = step.layer
        if id(layer) not in wrappers:
            quantizer = ActivationQuantizer(*ranges.get(id(step.output), ())) if id(step.output) in outputs else None
            weight = _weight(layer) if step.kind == "conv" and not _matches(step.name, skip) else None
            wrappers[id(layer)] = (
                Wrapper(layer, Config(weight, quantizer), name_prefix=PREFIX) if weight or quantizer else layer
            )
        kwargs = step.kwargs
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            # The statistics stay those of the trained model (gamma and beta do train): they are what the file folds
            # into its kernels. With batch statistics a small net's accuracy was the same within three images of 397,
            # and one with tiny layer scales got gradients of 1e30: rounding leaves some channels without variance.
            kwargs = {**kwargs, "training": False}
        new[id(step.output)] = wrappers[id(layer)](*moved(step.args), **kwargs)
    return transcribe.as_model(graph, built.inputs, moved(built.outputs), name)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


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
                or (
                    following.kind == "relu"
                    and (step.kind in ("conv", "affine") or isinstance(step.layer, tf_keras.layers.Add))
                )
            )
        )
        if step.kind != "silent" and not fuses and not _matches(step.name, skip):
            quantized.add(id(step.output))
    return quantized


def _ranges(built: Transcriber, outputs: set[int], calibration: list) -> dict[int, tuple[float, float]]:
    """Tensor id -> the mean of the batches' minima and maxima, from the float twin."""
    tensors = [*built.inputs, *(step.output for step in built.steps if id(step.output) in outputs)]
    probe = tf_keras.Model(built.inputs, tensors)
    found = []
    for batch in calibration:
        values = probe(batch, training=False)
        found.append([(float(tf.reduce_min(v)), float(tf.reduce_max(v))) for v in values])
    means = np.mean(found, axis=0)
    return {id(tensor): (low, high) for tensor, (low, high) in zip(tensors, means, strict=True)}


def _quantized_input(built: Transcriber, tensor, layer, ranges):
    if not tf.as_dtype(layer.dtype).is_floating:
        return tensor
    readers = [step for step in built.steps if any(v is tensor for v in keras.tree.flatten(step.args))]
    if readers and all(step.name == preprocessing.LAYER_NAME for step in readers):
        # Raw pixels: scale 1 and no rounding, so that a uint8 image goes in as it is.
        quantizer = quantizers.FixedQuantizer(num_bits=8, init_min=0.0, init_max=255.0, narrow_range=False)
    else:
        quantizer = ActivationQuantizer(*ranges.get(id(tensor), ()))
    return quantize_layer.QuantizeLayer(quantizer, name=built.unique(f"{PREFIX}{layer.name}"))(tensor)


def _weight(layer) -> tuple[str, KernelQuantizer]:
    depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    attribute = "depthwise_kernel" if depthwise else "kernel"
    limits = np.abs(getattr(layer, attribute).numpy())
    if isinstance(layer, tf_keras.layers.Dense):
        return attribute, KernelQuantizer(limits.max())
    return attribute, KernelQuantizer(limits.max(axis=(0, 1)).ravel() if depthwise else limits.max(axis=(0, 1, 2)))


def compile_classifier(model: tf_keras.Model, learning_rate, *, from_logits: bool) -> None:
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


def cosine(learning_rate: float, steps: int):
    """A learning rate that falls to a hundredth along half a cosine."""
    return tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)


def set_seed(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and tf_keras' own generators."""
    tf_keras.utils.set_random_seed(seed)
