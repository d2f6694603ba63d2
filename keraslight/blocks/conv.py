"""Convolutions with batch normalization: the one place that decides padding and normalization."""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.errors import InvalidArgumentError
from keraslight.layers import BatchNorm, GroupedConv2D

LEAK = 0.1
"""Slope of `"leaky_relu"` below 0, as in the detectors that use it (Keras' own is 0.2, PyTorch's 0.01)."""

ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "gelu", "silu"),
    *("hard_silu", "hard_sigmoid", "sigmoid", "softmax", "tanh"),
)


class ConvStyle(NamedTuple):
    """How a family pads and normalizes. Weights are only interchangeable between equal styles.

    Args:
        padding: `"symmetric"` pads `k // 2` on both sides (PyTorch); `"same"` is TensorFlow's, which at stride 2 and
            even sizes only pads the bottom and the right.
        epsilon: Constant added to the variance in batch normalization. None omits batch normalization, and
            convolutions have biases.
        momentum: Momentum of the moving statistics in Keras' sense (PyTorch's 0.1 is 0.9).
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
    """Returns the number of pixels that a dilated kernel spans: `kernel + (kernel - 1) * (dilation - 1)`.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
    https://arxiv.org/abs/1603.07285, section 5.1.

    Args:
        kernel: Side of the kernel in values, at least 1.
        dilation: Distance between neighbouring values in pixels, at least 1.

    Raises:
        InvalidArgumentError: A number is below 1.
    """
    if kernel < 1 or dilation < 1:
        raise InvalidArgumentError(
            f"`kernel` and `dilation` must be at least 1. Received: kernel={kernel}, dilation={dilation}."
        )
    return kernel + (kernel - 1) * (dilation - 1)


def check_activation(activation: str | None) -> None:
    """Raises InvalidArgumentError unless the activation is None or in `ACTIVATIONS`."""
    if activation is not None and activation not in ACTIVATIONS:
        raise InvalidArgumentError(f"`activation` must be None or one of {ACTIVATIONS}. Received: {activation!r}.")


def activate(x: KerasTensor, activation: str | None, *, name: str) -> KerasTensor:
    """Applies an activation as a separate layer, the form that fusing and quantization look for.

    Args:
        x: A tensor of any shape, which the result has too.
        activation: One of `ACTIVATIONS`, or None, which returns `x`. `"gelu"` is the exact one (erf),
            `"leaky_relu"` has a slope of 0.1 below 0.
        name: Name of the layer.

    Raises:
        InvalidArgumentError: The name is not in `ACTIVATIONS`.
    """
    check_activation(activation)
    if activation is None:
        return x
    if activation in ("relu", "relu6"):  # quantizers recognize this class, but not Activation("relu6")
        return layers.ReLU(6.0 if activation == "relu6" else None, name=name)(x)
    if activation == "leaky_relu":
        return layers.LeakyReLU(LEAK, name=name)(x)
    return layers.Activation(activation, name=name)(x)


def batch_norm(x: KerasTensor, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Normalizes the last axis over the batch, with the style's epsilon and momentum. Returns `x` if it has none."""
    if style.epsilon is None:
        return x
    return BatchNorm(epsilon=style.epsilon, momentum=style.momentum, name=name)(x)


def _padded(x: KerasTensor, kernel: int, stride: int, style: ConvStyle, name: str) -> tuple[KerasTensor, str]:
    """Pads `x` if the layer's own padding can't. Returns the tensor and the layer's `padding`."""
    if kernel % 2 == 0 and style.padding == "symmetric" and stride > 1:  # k // 2 on both sides would be one too many
        raise InvalidArgumentError(
            f"`kernel` must be odd with symmetric padding and a stride. Received: kernel={kernel}, stride={stride}, "
            f"layer {name!r}."
        )
    if style.padding == "symmetric" and stride > 1 and kernel > 1:  # at stride 1 both paddings are the same
        return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    return x, "same"


def _check_dilation(stride: int, dilation: int) -> None:
    if stride > 1 and dilation > 1:  # the limit of Keras' convolutions
        raise InvalidArgumentError(
            f"`stride` and `dilation` can't both be above 1. Received: stride={stride}, dilation={dilation}."
        )


def conv(
    x: KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    use_bias: bool = True,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """A single convolution, by default with bias.

    Args:
        x: (B, H, W, C).
        filters: Output channels F, at least 1.
        kernel: Side of the square kernel in pixels; odd if `stride` is above 1 and the padding symmetric.
        stride: Stride, at least 1.
        groups: Number of groups, convolved separately. Must divide C and F.
        dilation: Distance between the kernel's values in pixels, at least 1, and 1 if `stride` is above 1. The kernel
            spans `effective_kernel_size(kernel, dilation)` pixels at the same cost.
        use_bias: Whether the convolution has a bias.
        style: Padding.
        name: Name of the convolution. The padding appends `_pad`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: `groups` doesn't divide C and F, `stride` and `dilation` are both above 1, or the kernel
            is even.
    """
    if x.shape[-1] % groups or filters % groups:
        raise InvalidArgumentError(
            "`groups` must divide the channels before and after a convolution. "
            f"Received: groups={groups}, channels={x.shape[-1]} and {filters}, layer {name!r}."
        )
    _check_dilation(stride, dilation)
    x, padding = _padded(x, kernel, stride, style, name)
    settings = {"strides": stride, "padding": padding, "dilation_rate": dilation, "use_bias": use_bias, "name": name}
    # On CPUs, stock Keras needs XLA for groups and is up to 300 times slower; the second case may crash it.
    if groups > 1 or (kernel == 1 and stride > 1 and x.shape[-1] < 16):
        return GroupedConv2D(filters, kernel, groups=groups, **settings)(x)
    return layers.Conv2D(filters, kernel, **settings)(x)


def conv_bn(
    x: KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    activation: str | None = None,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Convolution, batch normalization, activation. The convolution has a bias only if the style has no batch norm.

    Args:
        x, filters, kernel, stride, groups, dilation: See `conv`.
        activation: Activation; see `activate`. None leaves the output linear.
        style: Padding and batch normalization.
        name: Name of the convolution. The other layers append `_pad`, `_bn` and `_act`.

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
    x: KerasTensor,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    multiplier: int = 1,
    activation: str | None = None,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Depthwise convolution, batch normalization, activation: `conv_bn` with `multiplier` filters per channel."""
    _check_dilation(stride, dilation)
    x, padding = _padded(x, kernel, stride, style, name)
    settings = {
        "depth_multiplier": multiplier,
        "padding": padding,
        "dilation_rate": dilation,
        "use_bias": style.epsilon is None,
    }
    x = layers.DepthwiseConv2D(kernel, strides=stride, name=name, **settings)(x)
    x = batch_norm(x, style=style, name=f"{name}_bn")
    return activate(x, activation, name=f"{name}_act")
