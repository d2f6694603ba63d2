"""GhostNet's blocks: half of the channels are made by a cheap depthwise convolution from the other half.

Source: Han et al., "GhostNet", CVPR 2020, https://arxiv.org/abs/1911.11907, figures 2 and 3.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual
from keraslight.errors import InvalidArgumentError


def ghost_module(
    x: keras.KerasTensor, channels: int, *, activation: str | None = None, style: ConvStyle = TORCH, name: str
) -> keras.KerasTensor:
    """A 1x1 convolution to half of the channels, a depthwise 3x3 convolution of these as the other half.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.
        activation: After each of the two; None leaves them linear.
        name: The layers are called `{name}_primary`, `_cheap` and `_concat`.

    Returns:
        (B, H, W, F).

    Raises:
        InvalidArgumentError: `channels` is odd.
    """
    if channels % 2:
        raise InvalidArgumentError(f"`channels` of a ghost module must be even. Received: channels={channels}.")
    primary = conv_bn(x, channels // 2, 1, activation=activation, style=style, name=f"{name}_primary")
    cheap = depthwise_bn(primary, 3, activation=activation, style=style, name=f"{name}_cheap")
    return layers.Concatenate(name=f"{name}_concat")([primary, cheap])


def ghost_bottleneck(
    x: keras.KerasTensor,
    channels: int,
    *,
    expanded: int,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "relu",
    squeezed: int = 0,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """Ghost module, depthwise convolution where it strides, squeeze-and-excitation, linear ghost module, residual.

    Where shapes change, the shortcut is a depthwise convolution and a 1x1 convolution, both linear.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.
        expanded: Channels between the two ghost modules, even.
        kernel: Side of the depthwise kernels of the branch and of the shortcut.
        stride: 1 or 2; only with 2 the branch has a depthwise convolution, without an activation.
        squeezed: Width of the squeeze-and-excitation (ReLU inside, hard sigmoid as the gate); 0 leaves it out.
        drop_path: Probability to drop the branch, in [0, 1).

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).
    """
    shortcut, in_channels = x, x.shape[-1]
    x = ghost_module(x, expanded, activation=activation, style=style, name=f"{name}_expand")
    if stride > 1:
        x = depthwise_bn(x, kernel, stride=stride, style=style, name=f"{name}_depthwise")
    if squeezed:
        x = squeeze_excite(x, squeezed, activation="relu", gate="hard_sigmoid", name=f"{name}_se")
    x = ghost_module(x, channels, style=style, name=f"{name}_project")
    if stride > 1 or in_channels != channels:
        shortcut = depthwise_bn(shortcut, kernel, stride=stride, style=style, name=f"{name}_shortcut_depthwise")
        shortcut = conv_bn(shortcut, channels, 1, style=style, name=f"{name}_shortcut_project")
    return add_residual(shortcut, x, drop_path=drop_path, name=name)
