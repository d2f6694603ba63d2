"""ShuffleNet's parts: channel shuffle and the units of ShuffleNet V1, V2 and V2+.

Sources: Zhang et al., "ShuffleNet", CVPR 2018, https://arxiv.org/abs/1707.01083, figures 1 and 2; Ma et al.,
"ShuffleNet V2", ECCV 2018, https://arxiv.org/abs/1807.11164, figure 3 (c) and (d); for V2+ the authors' code,
https://github.com/megvii-model/ShuffleNet-Series.
"""

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn, depthwise_bn, make_divisible
from keraslight.blocks.residual import add_residual
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ChannelSlice


def split_channels(x: KerasTensor, *, name: str) -> list[KerasTensor]:
    """Splits (B, H, W, C) into C maps of one channel each, in layers named `{name}0`, `{name}1` and so on."""
    return [ChannelSlice(c, c + 1, name=f"{name}{c}")(x) for c in range(x.shape[-1])]


def channel_shuffle(x: KerasTensor, groups: int, *, name: str) -> KerasTensor:
    """Mixes the channels of `groups` groups: output channel `i * groups + k` is input channel `k * (C / groups) + i`.

    It consists of reshape, permute and reshape, which every converter supports. `channel_shuffle(x, C // groups)`
    reverses it.

    Args:
        x: (B, H, W, C), where at most one of H and W is None.
        groups: Number of groups. Must divide C.

    Returns:
        (B, H, W, C).

    Raises:
        InvalidArgumentError: `groups` doesn't divide C, or both sides are None.
    """
    _, height, width, channels = x.shape
    if groups < 1 or channels % groups:
        raise InvalidArgumentError(
            f"`groups` must divide the channels. Received: groups={groups}, {channels} channels."
        )
    if height is None and width is None:
        raise InvalidArgumentError(
            "A channel shuffle needs a known height or width. Received: `input_shape` with None for both sides."
        )
    pixels = -1 if None in (height, width) else height * width
    y = layers.Reshape((pixels, groups, channels // groups), name=f"{name}_split")(x)
    y = layers.Permute((1, 3, 2), name=f"{name}_permute")(y)
    return layers.Reshape((height or -1, width or -1, channels), name=f"{name}_join")(y)


def grouped_shuffle_unit(
    x: KerasTensor,
    channels: int,
    *,
    groups: int,
    stride: int = 1,
    first: bool = False,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """ShuffleNet V1's unit: grouped 1x1, depthwise 3x3, shuffle, grouped 1x1, residual (figure 2 b).

    At stride 2, the branch is concatenated with the average-pooled input instead (figure 2 c). The shuffle lets a
    group's outputs reach all groups of the next convolution. As in the authors' code, it follows the depthwise one.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, a multiple of 4, equal to C at stride 1 and above C at stride 2.
        groups: Groups of both 1x1 convolutions. Must divide C, F / 4 and the branch's output channels.
        stride: Stride, 1 or 2.
        first: Whether the reduction sees all channels, as in the paper for the first unit of stage 2.
        style: Padding and batch normalization.
        name: The layers are `{name}_reduce`, `_depthwise`, `_shuffle_split`, ..., `_expand` and `_add` or `_concat`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: `groups` doesn't divide the channels, or both sides are None.
    """
    inputs, reduced = x, channels // 4
    added = channels if stride == 1 else channels - x.shape[-1]
    x = conv_bn(x, reduced, 1, groups=1 if first else groups, activation="relu", style=style, name=f"{name}_reduce")
    x = depthwise_bn(x, 3, stride=stride, style=style, name=f"{name}_depthwise")
    if groups > 1:
        x = channel_shuffle(x, reduced // groups, name=f"{name}_shuffle")
    x = conv_bn(x, added, 1, groups=groups, style=style, name=f"{name}_expand")
    if stride == 1:
        return activate(add_residual(inputs, x, name=name), "relu", name=f"{name}_act")
    x = activate(x, "relu", name=f"{name}_act")
    pooled = layers.ZeroPadding2D(1, name=f"{name}_pool_pad")(inputs)  # the mean includes the zeros
    pooled = layers.AveragePooling2D(3, strides=2, name=f"{name}_pool")(pooled)
    return layers.Concatenate(name=f"{name}_concat")([pooled, x])


def shuffle_unit(x: KerasTensor, *, activation: str = "relu", style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """ShuffleNet V2's basic unit: half of the channels pass through, the others are convolved, then both are shuffled.

    Args:
        x: (B, H, W, C) with an even C.
        activation: Activation after each 1x1 convolution.
        style: Padding and batch normalization.
        name: Prefix of the layers' names.

    Returns:
        (B, H, W, C).
    """
    half = x.shape[-1] // 2
    kept = ChannelSlice(0, half, name=f"{name}_keep")(x)
    y = ChannelSlice(half, name=f"{name}_take")(x)
    y = conv_bn(y, half, 1, activation=activation, style=style, name=f"{name}_expand")
    y = depthwise_bn(y, 3, style=style, name=f"{name}_depthwise")
    y = conv_bn(y, half, 1, activation=activation, style=style, name=f"{name}_project")
    y = layers.Concatenate(name=f"{name}_concat")([kept, y])
    return channel_shuffle(y, 2, name=f"{name}_shuffle")


def shuffle_down(
    x: KerasTensor, channels: int, *, activation: str = "relu", style: ConvStyle = TORCH, name: str
) -> KerasTensor:
    """ShuffleNet V2's downsampling unit: both branches see all channels and compute half of the new ones.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.
        activation: Activation after each 1x1 convolution.
        style: Padding and batch normalization.
        name: Prefix of the layers' names.

    Returns:
        (B, ceil(H / 2), ceil(W / 2), F).
    """
    half = channels // 2
    short = depthwise_bn(x, 3, stride=2, style=style, name=f"{name}_shortcut_depthwise")
    short = conv_bn(short, half, 1, activation=activation, style=style, name=f"{name}_shortcut")
    y = conv_bn(x, half, 1, activation=activation, style=style, name=f"{name}_expand")
    y = depthwise_bn(y, 3, stride=2, style=style, name=f"{name}_depthwise")
    y = conv_bn(y, half, 1, activation=activation, style=style, name=f"{name}_project")
    y = layers.Concatenate(name=f"{name}_concat")([short, y])
    return channel_shuffle(y, 2, name=f"{name}_shuffle")


def shuffle_plus_unit(
    x: KerasTensor,
    channels: int,
    *,
    kernel: int | None = 3,
    stride: int,
    activation: str = "relu",
    attention: bool = False,
    divisor: int = 1,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """The authors' unit of ShuffleNet V2 (by default) and V2+, which shuffles first.

    It takes the even channels for the shortcut and convolves the odd ones.

    Args:
        x: (B, H, W, C) with an even C.
        channels: Output channels F, equal to C at stride 1 and above C at stride 2.
        kernel: Side of the depthwise kernel, in pixels. None is the Xception form, three separable 3x3 convolutions.
        stride: Stride, 1 or 2. At 2, both branches see all channels and the shortcut keeps C of them. The Xception form
            only has stride 1: the authors' code would stride three times, and none of their networks does.
        activation: Activation after each 1x1 convolution.
        attention: Whether the branch ends in squeeze-and-excitation.
        divisor: Divisor to which the attention's channels, a quarter of the branch's, are rounded.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: The Xception form has a stride, or the shortcut leaves no channels to convolve.
    """
    if kernel is None and stride > 1:
        raise InvalidArgumentError(f"The Xception form needs stride 1. Received: stride={stride}.")
    side = 3 if kernel is None else kernel
    if stride == 1:
        short = ChannelSlice(0, None, 2, name=f"{name}_keep")(x)
        x = ChannelSlice(1, None, 2, name=f"{name}_take")(x)
    else:
        short = depthwise_bn(x, side, stride=stride, style=style, name=f"{name}_shortcut_depthwise")
        short = conv_bn(short, x.shape[-1], 1, activation=activation, style=style, name=f"{name}_shortcut")
    middle, added = channels // 2, channels - short.shape[-1]
    if added < 1:
        raise InvalidArgumentError(
            "A ShuffleNet unit must have more channels than its shortcut keeps. "
            f"Received: {channels} channels, {short.shape[-1]} kept, unit {name!r}; use a larger `width`."
        )
    if kernel is None:
        for n, filters in enumerate((middle, middle, added)):
            x = depthwise_bn(x, side, style=style, name=f"{name}_depthwise{n}")
            x = conv_bn(x, filters, 1, activation=activation, style=style, name=f"{name}_pointwise{n}")
    else:
        x = conv_bn(x, middle, 1, activation=activation, style=style, name=f"{name}_expand")
        x = depthwise_bn(x, side, stride=stride, style=style, name=f"{name}_depthwise")
        x = conv_bn(x, added, 1, activation=activation, style=style, name=f"{name}_project")
    if attention:
        x = squeeze_excite_bn(x, make_divisible(added // 4, divisor), style=style, name=f"{name}_se")
    return layers.Concatenate(name=f"{name}_concat")([short, x])


def squeeze_excite_bn(x: KerasTensor, squeezed: int, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Squeeze-and-excitation with batch norm instead of biases, and a hard sigmoid.

    Args:
        x: (B, H, W, C).
        squeezed: Channels between the two 1x1 convolutions, at least 1.
        style: Batch normalization.
        name: Prefix of the layers' names.

    Returns:
        (B, H, W, C).
    """
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = conv_bn(y, squeezed, 1, activation="relu", style=style, name=f"{name}_reduce")
    y = layers.Conv2D(x.shape[-1], 1, use_bias=False, name=f"{name}_expand")(y)
    y = activate(y, "hard_sigmoid", name=f"{name}_gate")
    return layers.Multiply(name=f"{name}_scale")([x, y])
