"""Forms of layers for which XNNPACK has kernels; the interpreter's own take many times as long."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def in_its_forms(model: Any, int8: bool) -> Iterator[None]:
    """Inside, layers of a Keras 3 model compute the same by operations that XNNPACK knows.

    - Depthwise convolutions of more than 25 taps, such as ConvNeXt's, are sums of smaller ones.
    - Every other channel, as ShuffleNetV2 takes it, is half of a transposed map: slices with steps are unknown.

    In int8 also:

    - Hard swish is ADD, MUL and MUL. Of `x * relu6(x + 3) / 6` the converter makes HARD_SWISH, which XNNPACK knows in
      float alone: the interpreter's own took over half of an int8 MobileNetV3's time and cut its graph into 23 parts.
      Only what is the `activation` of a layer is changed.
    - A ReLU that no operation before it can take in, as in front of Xception's blocks, is the end of a MUL by nearly 1.
      Int8's own RELU takes 3 ns a number, half of an Xception's time.
    - Average pooling without padding is a depthwise convolution.
    - GRN multiplies where it divides: the interpreter stops at an int8 division by what rounds to 0.
    """
    import keras

    from keraslight.layers import GRN, ChannelSlice
    from keraslight.layers._xnnpack import is_convolution

    with contextlib.ExitStack() as stack:

        def replace(layer, name, value):
            stack.enter_context(_replaced(layer, name, value))

        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D):
                replace(layer, "call", _in_pieces(layer))
            elif isinstance(layer, ChannelSlice):
                replace(layer, "call", _by_transposition(layer))
            if not int8:
                continue
            if getattr(layer, "activation", None) is keras.activations.hard_silu:
                replace(layer, "activation", _hard_silu)
            elif _is_lone_relu(layer):
                replace(layer, "call", _as_product(layer.call))
            elif type(layer) is keras.layers.AveragePooling2D and is_convolution(layer):
                replace(layer, "call", _as_convolution(layer))
            elif type(layer) is GRN:
                replace(layer, "call", _without_division(layer))
        yield


@contextlib.contextmanager
def _replaced(layer: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(layer).get(name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(layer, name)  # it was the class's
        else:
            setattr(layer, name, before)


def _hard_silu(x):
    import keras

    # The sixth with `x`: with the other factor, or after the product, it is the form that is recognized.
    return keras.ops.relu6(x + 3.0) * (x * (1 / 6))


def _in_pieces(layer: Any) -> Callable[[Any], Any]:
    """What stands for the `call` of a convolution: the same, in pieces where that is faster."""
    import keras
    from keras import ops

    from keraslight.layers._xnnpack import cut, is_cut

    whole = layer.call
    separable = isinstance(layer, keras.layers.SeparableConv2D)
    kernel = ops.convert_to_numpy(layer.depthwise_kernel if separable else layer.kernel)

    def call(inputs):
        if not is_cut(layer, inputs):
            return whole(inputs)
        pieces = cut(inputs.shape[1:3], kernel, layer.strides, layer.padding)
        padded = ops.pad(inputs, [(0, 0), *pieces.padding, (0, 0)]) if np.any(pieces.padding) else inputs
        parts = [
            ops.depthwise_conv(padded[:, *maps], kernel[taps], layer.strides, "valid")
            for taps, maps in zip(pieces.kernels, pieces.maps, strict=True)
        ]
        if layer.use_bias and not separable:
            parts[-1] = parts[-1] + layer.bias
        outputs = functools.reduce(operator.add, parts)
        if separable:
            outputs = ops.conv(outputs, layer.pointwise_kernel, 1, "valid")
            outputs = outputs + layer.bias if layer.use_bias else outputs
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _by_transposition(layer: Any) -> Callable[[Any], Any]:
    """Every `step`-th channel is a row of the transposed matrix of `step` columns."""
    from keras import ops

    whole = layer.call

    def call(inputs):
        channels, step = inputs.shape[-1], layer.step
        if step == 1 or layer.start >= step or layer.stop is not None or channels % step or None in inputs.shape[1:]:
            return whole(inputs)
        rows = ops.transpose(ops.reshape(inputs, (-1, step)))[layer.start : layer.start + 1]
        return ops.reshape(rows, (-1, *inputs.shape[1:-1], channels // step))

    return call


def _is_lone_relu(layer: Any) -> bool:
    """Whether a layer is a ReLU or ReLU6 that becomes an operator of its own."""
    import keras

    if type(layer) is keras.layers.ReLU:
        plain = layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold
    else:
        relus = (keras.activations.relu, keras.activations.relu6)
        plain = type(layer) is keras.layers.Activation and layer.activation in relus
    if not plain or len(layer._inbound_nodes) != 1:
        return False
    before = layer.input._keras_history.operation
    takes_it_in = isinstance(
        before,
        keras.layers.Conv2D
        | keras.layers.DepthwiseConv2D
        | keras.layers.SeparableConv2D
        | keras.layers.Dense
        | keras.layers.BatchNormalization
        | keras.layers.Add
        | keras.layers.Subtract
        | keras.layers.Multiply,
    )
    return not takes_it_in or len(before._outbound_nodes) > 1


def _as_product(whole: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A product takes a ReLU in, as a convolution does."""
    return lambda inputs: whole(inputs * (1 + 2**-20))  # the converter drops a product with 1


def _as_convolution(pooling: Any) -> Callable[[Any], Any]:
    from keras import ops

    size = tuple(pooling.pool_size)

    def call(inputs):
        kernel = np.full((*size, inputs.shape[-1], 1), 1 / math.prod(size), np.float32)
        return ops.depthwise_conv(inputs, kernel, pooling.strides, "valid")

    return call


def _without_division(grn: Any) -> Callable[[Any], Any]:
    """GRN with `1 / mean` as the root of its square: int8's root of what rounds to 0 is the largest number."""
    from keras import ops

    def call(inputs):
        norms = ops.sqrt(ops.maximum(ops.sum(inputs * inputs, axis=(1, 2), keepdims=True), grn.TINY))
        mean = ops.mean(norms, axis=-1, keepdims=True) + grn.epsilon
        return inputs + grn.gamma * (inputs * (norms * ops.rsqrt(mean * mean))) + grn.beta

    return call
