"""ShuffleNet's building pieces: channel shuffle and the units of ShuffleNet V2.

Sources: Zhang et al., "ShuffleNet", CVPR 2018, https://arxiv.org/abs/1707.01083, figure 1; Ma et al., "ShuffleNet V2",
ECCV 2018, https://arxiv.org/abs/1807.11164, figure 3 (c) and (d).
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ChannelSlice


def channel_shuffle(x: keras.KerasTensor, groups: int, *, name: str) -> keras.KerasTensor:
    """Mixes the channels of `groups` groups: output channel `i * groups + k` is input channel `k * (C / groups) + i`.

    Reshape, permute, reshape, which every converter knows. `channel_shuffle(x, C // groups)` undoes it.

    Args:
        x: (B, H, W, C); at most one of H and W is None.
        groups: Divides C.

    Returns:
        (B, H, W, C).

    Raises:
        InvalidArgumentError: `groups` doesn't divide C, or both sides are open.
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


def shuffle_unit(x: keras.KerasTensor, *, style: ConvStyle = TORCH, name: str) -> keras.KerasTensor:
    """ShuffleNet V2's basic unit: half of the channels pass, the others are convolved, then both are shuffled.

    Args:
        x: (B, H, W, C) with an even C.

    Returns:
        (B, H, W, C).
    """
    half = x.shape[-1] // 2
    kept = ChannelSlice(0, half, name=f"{name}_keep")(x)
    y = ChannelSlice(half, name=f"{name}_take")(x)
    y = conv_bn(y, half, 1, activation="relu", style=style, name=f"{name}_expand")
    y = depthwise_bn(y, 3, style=style, name=f"{name}_depthwise")
    y = conv_bn(y, half, 1, activation="relu", style=style, name=f"{name}_project")
    y = layers.Concatenate(name=f"{name}_concat")([kept, y])
    return channel_shuffle(y, 2, name=f"{name}_shuffle")


def shuffle_down(x: keras.KerasTensor, channels: int, *, style: ConvStyle = TORCH, name: str) -> keras.KerasTensor:
    """ShuffleNet V2's unit for downsampling: both branches see all channels and give half of the new ones.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.

    Returns:
        (B, ceil(H / 2), ceil(W / 2), F).
    """
    half = channels // 2
    short = depthwise_bn(x, 3, stride=2, style=style, name=f"{name}_shortcut_depthwise")
    short = conv_bn(short, half, 1, activation="relu", style=style, name=f"{name}_shortcut")
    y = conv_bn(x, half, 1, activation="relu", style=style, name=f"{name}_expand")
    y = depthwise_bn(y, 3, stride=2, style=style, name=f"{name}_depthwise")
    y = conv_bn(y, half, 1, activation="relu", style=style, name=f"{name}_project")
    y = layers.Concatenate(name=f"{name}_concat")([short, y])
    return channel_shuffle(y, 2, name=f"{name}_shuffle")
