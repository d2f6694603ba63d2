"""First and least ranges of a quantization-aware model's tensors and kernels.

XNNPACK prepares no operator whose output is too fine for its inputs, and a bias that is large for the steps of its
input and kernel overflows 32 bits. Both happen where values are zero: a channel that pruning removed, a batch norm
without a factor, a ReLU that is zero on all images. So ranges have lower limits. They come from what a tensor or kernel
is used with, and are so low that no value that matters loses a step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keraslight.compress._tfmot import twin_layers
from keraslight.compress._tfmot.int8_steps import Step
from keraslight.compress._tfmot.quantizers import ActivationQuantizer

Ends = tuple[float, float]

_RATIO = 64  # of an input's step to the output's; XNNPACK refuses 256
_SUM_RATIO = 512  # of a sum's step to that of a summand; XNNPACK refuses 1024
_BIAS = 2.0**24  # steps of the largest bias. In 2**31 of them a changed range would find no room
_TAME = (tf_keras.layers.LeakyReLU, tf_keras.layers.PReLU, tf_keras.layers.Maximum, tf_keras.layers.Minimum)


@dataclasses.dataclass
class First:
    """A tensor's first range.

    Attributes:
        low, high: Its ends.
        positive: Whether no value is below 0.
        least: The least upper end.
    """

    low: float
    high: float
    positive: bool
    least: float

    @property
    def width(self) -> float:
        """The range with 0 in it."""
        return max(self.high, 0.0) - (0.0 if self.positive else min(self.low, 0.0))

    def raise_to(self, least: float) -> None:
        """Raises the least upper end, and the range where it is narrower."""
        self.least = max(self.least, least)
        if self.width < least:
            self.high = least

    def quantizer(self) -> ActivationQuantizer:
        """The quantizer that starts with it."""
        return ActivationQuantizer(self.low, self.high, self.positive, self.least)


class FirstRanges:
    """The first range of every tensor with a quantizer.

    Args:
        steps: The steps, in order.
        inputs: Ends of each input's range, by the tensor's id.
        quantized: Ids of the steps' tensors that get a quantizer.
        found: Ends of what calibration found, by the tensor's id.
        default: Ends of what it did not look at.

    Attributes:
        first: The ranges, by the tensor's id.
    """

    def __init__(
        self, steps: list[Step], inputs: dict[int, Ends], quantized: set[int], found: dict[int, Ends], default: Ends
    ) -> None:
        self.first: dict[int, First] = {}
        self._sources = {key: key for key in inputs}
        self._widths = {key: max(high, 0.0) - min(low, 0.0) for key, (low, high) in inputs.items()}
        self._least: dict[int, float] = {}
        for step in steps:
            read = [t for t in keras.tree.flatten((step.args, step.kwargs)) if id(t) in self._widths]
            widths = [self._widths[id(t)] for t in read]
            least = self._least_width(step, read, widths)
            for output in step.outputs:
                key = id(output)
                if key in quantized:
                    first = First(*found.get(key, default), step.kind == "relu", 0.0)
                    first.raise_to(least)
                    if not first.width > 0:  # zero on all images
                        first.high = max(widths, default=0.0) or 1.0
                    self.first[key], self._widths[key], self._sources[key] = first, first.width, key
                else:
                    self._least[key] = least
                    self._widths[key] = _fixed_width(step.layer) or max(widths, default=default[1])
                    if step.kind == "silent" and not _fixed_width(step.layer) and len(read) == 1:
                        self._sources[key] = self._sources.get(id(read[0]), key)
        for step in reversed(steps):
            if isinstance(step.layer, tf_keras.layers.Add | tf_keras.layers.Subtract):
                for tensor in keras.tree.flatten(step.args):
                    if (source := self.source(tensor)) in self.first:
                        self.first[source].raise_to(self._widths[id(step.output)] / _SUM_RATIO)

    def source(self, tensor: Any) -> int:
        """The id of the tensor whose scale a tensor has."""
        return self._sources.get(id(tensor), id(tensor))

    def _least_width(self, step: Step, read: list[Any], widths: list[float]) -> float:
        if not read:
            return 0.0
        if step.kind == "conv":
            kernel = kernel_of(step.layer)
            return widths[0] * float(np.abs(kernel).max()) / 127 / _RATIO
        if step.kind == "affine":
            return self._least.get(id(read[0]), 0.0) * float(np.abs(factor_of(step.layer)).max())
        if step.kind == "relu":
            return self._least.get(id(read[0]), widths[0] / _RATIO)
        if isinstance(step.layer, tf_keras.layers.Multiply):
            return float(np.prod(widths)) / 255 / _RATIO
        if step.kind == "sum" or isinstance(step.layer, _TAME):
            return max(widths) / _RATIO
        return 0.0


class LeastKernel:
    """The least upper limits of a kernel's ranges with which the file can hold the bias.

    Args:
        layer: The layer with the kernel.
        folds: Batch norms and factors that the file folds into it, in order.
        source: Quantizer of what the layer reads; None where the scale is a fixed one.
        by_channel: Whether there is one limit per output channel.
    """

    def __init__(self, layer: tf_keras.layers.Layer, folds: list[Any], source: Any, by_channel: bool) -> None:
        self.layer, self.folds, self.source, self.by_channel = layer, folds, source, by_channel

    def __call__(self) -> tf.Tensor:
        bias = self.layer.bias if self.layer.use_bias else tf.zeros(())
        factor = tf.ones(())
        for fold in self.folds:
            scale = factor_of(fold)
            bias, factor = bias * scale, factor * scale
            if isinstance(fold, tf_keras.layers.BatchNormalization):
                bias = bias - fold.moving_mean * scale + (0.0 if fold.beta is None else fold.beta)
        step = self.source.step() if isinstance(self.source, ActivationQuantizer) else 1 / 256
        # The clipping keeps a factor of 0 from making infinity.
        limits = 127 * tf.abs(bias) / (step * _BIAS * tf.maximum(tf.abs(factor), 1e-20))
        limits = tf.maximum(limits, 1e-6)
        return limits if self.by_channel else tf.reduce_max(limits)


def kernel_of(layer: tf_keras.layers.Layer) -> np.ndarray:
    """The kernel of a layer that has one."""
    kernel: np.ndarray = getattr(layer, kernel_name(layer)).numpy()
    return kernel


def kernel_name(layer: tf_keras.layers.Layer) -> str:
    """Name of the attribute with the kernel."""
    return "depthwise_kernel" if isinstance(layer, tf_keras.layers.DepthwiseConv2D) else "kernel"


def factor_of(layer: tf_keras.layers.Layer) -> Any:
    """What a batch norm or factor per channel multiplies by, (C,)."""
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        scale = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
        return scale if layer.gamma is None else scale * layer.gamma
    return layer.factor() if isinstance(layer, twin_layers.ScaleOf) else layer.gamma


def _fixed_width(layer: tf_keras.layers.Layer) -> float | None:
    """The range of an output whose scale the converter knows."""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if isinstance(layer, tf_keras.layers.Softmax | twin_layers.HardSigmoid) or name in ("sigmoid", "softmax"):
        return 1.0
    return 2.0 if name == "tanh" else None
