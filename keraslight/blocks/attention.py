"""Attention by gates: squeeze-and-excitation, CBAM, coordinate attention and ECA.

Sources: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, figure 1; Woo et
al., "CBAM", ECCV 2018, https://arxiv.org/abs/1807.06521; Hou et al., "Coordinate Attention", CVPR 2021,
https://arxiv.org/abs/2103.02907; Wang et al., "ECA-Net", CVPR 2020, https://arxiv.org/abs/1910.03151.
"""

import math

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ChannelStatistics, CoordinatePooling, CoordinateSplit


def squeeze_excite(
    x: KerasTensor, squeezed: int, *, activation: str = "relu", gate: str = "sigmoid", name: str
) -> KerasTensor:
    """Scales every channel by a gate in 0..1 computed from the means of all channels.

    The means stay 4-D and the two dense layers are 1x1 convolutions with bias: the form that converters can quantize.

    Args:
        x: (B, H, W, C).
        squeezed: Channels between the two convolutions, at least 1. Families derive them from different widths (the
            block's input in EfficientNet, the expanded one in MobileNetV3) and round differently, so the caller
            computes them.
        activation: Activation after the first convolution; see `keraslight.blocks.conv.activate`.
        gate: Activation after the second one, `"sigmoid"` or `"hard_sigmoid"` (`relu6(x + 3) / 6`).
        name: The layers are named `{name}_mean`, `_reduce`, `_reduce_act`, `_expand`, `_gate` and `_scale`.

    Returns:
        (B, H, W, C).

    Raises:
        InvalidArgumentError: `squeezed` is below 1.
    """
    _check_squeezed(squeezed)
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = layers.Conv2D(squeezed, 1, name=f"{name}_reduce")(y)
    y = activate(y, activation, name=f"{name}_reduce_act")
    y = layers.Conv2D(x.shape[-1], 1, name=f"{name}_expand")(y)
    y = activate(y, gate, name=f"{name}_gate")
    return layers.Multiply(name=f"{name}_scale")([x, y])


def cbam(x: KerasTensor, squeezed: int, *, kernel: int = 7, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Convolutional block attention module: `channel_attention`, then `spatial_attention` (equation 1).

    Args:
        x: (B, H, W, C).
        squeezed: See `channel_attention`. The paper uses C / 16.
        kernel, style: See `spatial_attention`.
        name: Prefix of the layers' names. The two halves are `{name}_channel` and `{name}_spatial`.

    Returns:
        (B, H, W, C), with `2 * C * squeezed + 2 * kernel ** 2` parameters and 2 more for the batch norm.
    """
    x = channel_attention(x, squeezed, name=f"{name}_channel")
    return spatial_attention(x, kernel, style=style, name=f"{name}_spatial")


def channel_attention(x: KerasTensor, squeezed: int, *, name: str) -> KerasTensor:
    """CBAM's first half (equation 2): scales each channel by `sigmoid(W1 relu(W0 mean) + W1 relu(W0 max))`.

    The shared perceptron consists of two 1x1 convolutions without bias, as in the equation, each called twice.

    Args:
        x: (B, H, W, C).
        squeezed: Channels between the two convolutions, at least 1.
        name: The layers are named `{name}_mean`, `_max`, `_reduce`, `_mean_act`, `_max_act`, `_expand`, `_add`,
            `_gate` and `_scale`.

    Returns:
        (B, H, W, C), with `2 * C * squeezed` parameters.

    Raises:
        InvalidArgumentError: `squeezed` is below 1.
    """
    _check_squeezed(squeezed)
    reduce = layers.Conv2D(squeezed, 1, use_bias=False, name=f"{name}_reduce")
    expand = layers.Conv2D(x.shape[-1], 1, use_bias=False, name=f"{name}_expand")
    logits = []
    for kind, pooling in (("mean", layers.GlobalAveragePooling2D), ("max", layers.GlobalMaxPooling2D)):
        y = reduce(pooling(keepdims=True, name=f"{name}_{kind}")(x))
        logits.append(expand(activate(y, "relu", name=f"{name}_{kind}_act")))
    y = layers.Add(name=f"{name}_add")(logits)
    y = activate(y, "sigmoid", name=f"{name}_gate")
    return layers.Multiply(name=f"{name}_scale")([x, y])


def spatial_attention(x: KerasTensor, kernel: int = 7, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """CBAM's second half (equation 3): scales each pixel by `sigmoid(f([mean; max]))`, taken over the channels.

    Args:
        x: (B, H, W, C).
        kernel: Side of the convolution `f` in pixels, odd.
        style: Batch normalization after `f`, as in the authors' code, but with the style's momentum. The authors' is
            0.01 in PyTorch's sense: `TORCH._replace(momentum=0.99)`. `PLAIN` gives `f` a bias instead.
        name: The layers are named `{name}_statistics`, `_conv`, `_conv_bn`, `_conv_act` and `_scale`.

    Returns:
        (B, H, W, C), with `2 * kernel ** 2` parameters and those of the batch norm (2) or the bias (1).

    Raises:
        InvalidArgumentError: `kernel` is even.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise InvalidArgumentError(f"`kernel` must be odd and at least 1. Received: kernel={kernel}.")
    y = ChannelStatistics(name=f"{name}_statistics")(x)
    y = conv_bn(y, 1, kernel, activation="sigmoid", style=style, name=f"{name}_conv")
    return layers.Multiply(name=f"{name}_scale")([x, y])


def coordinate_attention(
    x: KerasTensor, squeezed: int, *, activation: str = "hard_silu", style: ConvStyle = TORCH, name: str
) -> KerasTensor:
    """Scales each value by a gate for its row and one for its column, separately for each channel (equations 4 to 9).

    The means of rows and columns share one convolution, so that its batch norm sees both.

    Args:
        x: (B, H, W, C). The sides may be None.
        squeezed: Channels of the shared convolution, at least 1. The authors' code uses `max(8, C // 32)`.
        activation: Activation after it; see `keraslight.blocks.conv.activate`. The authors' code uses hard swish.
        name: The layers are named `{name}_pool`, `_reduce`, `_reduce_bn`, `_reduce_act`, `_split`, `_rows`,
            `_rows_gate`, `_columns`, `_columns_gate` and `_scale`.

    Returns:
        (B, H, W, C), with `3 * C * squeezed + 2 * C` parameters and those of the batch norm (`2 * squeezed`).

    Raises:
        InvalidArgumentError: `squeezed` is below 1.
    """
    _check_squeezed(squeezed)
    y = CoordinatePooling(name=f"{name}_pool")(x)
    y = conv_bn(y, squeezed, 1, activation=activation, style=style, name=f"{name}_reduce")
    gates = []
    for kind, means in zip(("rows", "columns"), CoordinateSplit(name=f"{name}_split")([y, x]), strict=True):
        gate = layers.Conv2D(x.shape[-1], 1, name=f"{name}_{kind}")(means)
        gates.append(activate(gate, "sigmoid", name=f"{name}_{kind}_gate"))
    return layers.Multiply(name=f"{name}_scale")([x, *gates])


def eca_kernel_size(channels: int, *, gamma: float = 2, b: float = 1) -> int:
    """Returns ECA's kernel size: the odd number nearest to `log2(channels) / gamma + b / gamma` (equation 12).

    Halfway between two odd numbers it is the larger one, as in the authors' code: 5 for 128 channels.

    Raises:
        InvalidArgumentError: `channels` is below 1 or `gamma` is not above 0.
    """
    if channels < 1 or gamma <= 0:
        raise InvalidArgumentError(
            f"`channels` must be at least 1 and `gamma` above 0. Received: channels={channels}, gamma={gamma}."
        )
    return int(abs((math.log2(channels) + b) / gamma)) // 2 * 2 + 1


def efficient_channel_attention(x: KerasTensor, kernel: int | None = None, *, name: str) -> KerasTensor:
    """ECA: scales each channel by the sigmoid of a convolution over the means of its neighbours (equation 9).

    The channels become the width of an image with one row, so that stock layers suffice and converters can quantize it.

    Args:
        x: (B, H, W, C).
        kernel: Number of channels that the convolution sees, odd. None uses `eca_kernel_size(C)`. Both ends are padded
            with zeros.
        name: The layers are named `{name}_mean`, `_row`, `_conv`, `_gate`, `_channels` and `_scale`.

    Returns:
        (B, H, W, C), with `kernel` parameters.

    Raises:
        InvalidArgumentError: `kernel` is even.
    """
    channels = x.shape[-1]
    kernel = eca_kernel_size(channels) if kernel is None else kernel
    if kernel < 1 or kernel % 2 == 0:
        raise InvalidArgumentError(f"`kernel` must be odd and at least 1. Received: kernel={kernel}.")
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = layers.Reshape((1, channels, 1), name=f"{name}_row")(y)
    y = layers.Conv2D(1, (1, kernel), padding="same", use_bias=False, name=f"{name}_conv")(y)
    y = activate(y, "sigmoid", name=f"{name}_gate")
    y = layers.Reshape((1, 1, channels), name=f"{name}_channels")(y)
    return layers.Multiply(name=f"{name}_scale")([x, y])


def _check_squeezed(squeezed: int) -> None:
    if squeezed < 1:
        raise InvalidArgumentError(f"`squeezed` must be at least 1. Received: squeezed={squeezed}.")
