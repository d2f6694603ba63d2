"""Convolutions with batch normalization: the one place that decides padding and normalization."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.errors import InvalidArgumentError
from keraslight.layers import BatchNorm, GroupedConv2D

ACTIVATIONS = ("relu", "relu6", "gelu", "silu", "hard_silu", "hard_sigmoid", "sigmoid", "softmax", "tanh")


class ConvStyle(NamedTuple):
    """How a family pads and normalizes. Weights are only interchangeable between equal styles.

    Args:
        padding: `"symmetric"` pads `k // 2` on both sides (PyTorch); `"same"` is TensorFlow's, which at stride 2 and
            even sizes pads the bottom and the right only.
        epsilon: Added to the variance in batch normalization. None is a net without: its convolutions have biases.
        momentum: Of the moving statistics, as Keras counts it (PyTorch's 0.1 is 0.9).
    """

    padding: str
    epsilon: float | None
    momentum: float | None


TORCH = ConvStyle(padding="symmetric", epsilon=1e-5, momentum=0.9)
TENSORFLOW = ConvStyle(padding="same", epsilon=1e-3, momentum=0.99)
PLAIN = ConvStyle(padding="symmetric", epsilon=None, momentum=None)


def make_divisible(value: float, divisor: int = 8, limit: float = 0.9) -> int:
    """Rounds a number of channels to a multiple of `divisor`, never below `limit` times the value.

    Source: the reference code of MobileNetV2 (https://arxiv.org/abs/1801.04381).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < limit * value else rounded


def effective_kernel_size(kernel: int, dilation: int) -> int:
    """Pixels that a dilated kernel spans: `kernel + (kernel - 1) * (dilation - 1)`.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
    https://arxiv.org/abs/1603.07285, section 5.1.

    Args:
        kernel: Side of the kernel in values, at least 1.
        dilation: Distance of neighbouring values in pixels, at least 1.

    Raises:
        InvalidArgumentError: a number is below 1.
    """
    if kernel < 1 or dilation < 1:
        raise InvalidArgumentError(
            f"`kernel` and `dilation` must be at least 1. Received: kernel={kernel}, dilation={dilation}."
        )
    return kernel + (kernel - 1) * (dilation - 1)


def activate(x: keras.KerasTensor, activation: str | None, *, name: str) -> keras.KerasTensor:
    """Applies an activation as a layer of its own, the form that fusing and quantization look for.

    Args:
        x: Any shape; the result has the same.
        activation: One of `ACTIVATIONS`, or None, which returns `x`. `"gelu"` is the exact one (erf).

    Raises:
        InvalidArgumentError: the name is not in `ACTIVATIONS`.
    """
    if activation is None:
        return x
    if activation not in ACTIVATIONS:
        raise InvalidArgumentError(f"`activation` must be None or one of {ACTIVATIONS}. Received: {activation!r}.")
    if activation == "relu":
        return layers.ReLU(name=name)(x)
    if activation == "relu6":  # the class is the pattern that quantizers know, Activation("relu6") is not
        return layers.ReLU(6.0, name=name)(x)
    return layers.Activation(activation, name=name)(x)


def batch_norm(x: keras.KerasTensor, *, style: ConvStyle = TORCH, name: str) -> keras.KerasTensor:
    """Batch normalization over the last axis with the family's epsilon and momentum, if it has any; the shape stays."""
    if style.epsilon is None:
        return x
    return BatchNorm(epsilon=style.epsilon, momentum=style.momentum, name=name)(x)


def _padded(x: keras.KerasTensor, kernel: int, stride: int, style: ConvStyle, name: str) -> tuple:
    """Pads `x` where the layer's own padding can't; returns the tensor and the layer's `padding`."""
    if style.padding == "symmetric" and stride > 1 and kernel > 1:  # at stride 1 both paddings are the same
        return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    return x, "same"


def conv(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    use_bias: bool = True,
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """Convolution alone, by default with bias.

    Args:
        x: (B, H, W, C).
        filters: Output channels F, at least 1.
        kernel: Side of the square kernel in pixels, odd.
        stride: 1 or more.
        groups: Number of groups that are convolved apart; divides C and F.
        dilation: Distance of the kernel's values in pixels, at least 1; above 1 only with stride 1. The kernel then
            spans `effective_kernel_size(kernel, dilation)` pixels at the same cost.
        name: Names the convolution; the padding appends `_pad`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: `groups` does not divide C and F, or `stride` and `dilation` are both above 1.
    """
    if x.shape[-1] % groups or filters % groups:
        raise InvalidArgumentError(
            "`groups` must divide the channels before and after a convolution. "
            f"Received: groups={groups}, channels={x.shape[-1]} and {filters}, layer {name!r}."
        )
    if stride > 1 and dilation > 1:  # the limit of keras.layers.Conv2D
        raise InvalidArgumentError(
            f"`stride` and `dilation` can't both be above 1. Received: stride={stride}, dilation={dilation}."
        )
    x, padding = _padded(x, kernel, stride, style, name)
    settings = {"strides": stride, "padding": padding, "dilation_rate": dilation, "use_bias": use_bias, "name": name}
    # Of groups, stock Keras needs XLA on a CPU and is up to 300 times slower; of the second kind it may crash.
    if groups > 1 or (kernel == 1 and stride > 1 and x.shape[-1] < 16):
        return GroupedConv2D(filters, kernel, groups=groups, **settings)(x)
    return layers.Conv2D(filters, kernel, **settings)(x)


def conv_bn(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    activation: str | None = None,
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """Convolution without bias, batch normalization (or with bias, where the style has none), activation.

    Args:
        x: (B, H, W, C).
        filters: Output channels F, at least 1.
        kernel: Side of the square kernel in pixels, odd.
        stride: 1 or more.
        groups: Number of groups that are convolved apart; divides C and F.
        dilation: See `conv`.
        activation: See `activate`; None leaves the output linear.
        name: Names the convolution; the others append `_pad`, `_bn`, `_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).
    """
    use_bias = style.epsilon is None
    x = conv(
        x, filters, kernel, stride=stride, groups=groups, dilation=dilation, use_bias=use_bias, style=style, name=name
    )
    x = batch_norm(x, style=style, name=f"{name}_bn")
    return activate(x, activation, name=f"{name}_act")


def depthwise_bn(
    x: keras.KerasTensor,
    kernel: int,
    *,
    stride: int = 1,
    activation: str | None = None,
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """Depthwise convolution, batch normalization, activation: `conv_bn` with one filter a channel."""
    x, padding = _padded(x, kernel, stride, style, name)
    use_bias = style.epsilon is None
    x = layers.DepthwiseConv2D(kernel, strides=stride, padding=padding, use_bias=use_bias, name=name)(x)
    x = batch_norm(x, style=style, name=f"{name}_bn")
    return activate(x, activation, name=f"{name}_act")
