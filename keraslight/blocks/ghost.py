"""GhostNet's blocks: a cheap depthwise convolution computes half of the channels from the other half.

Source: Han et al., "GhostNet", CVPR 2020, https://arxiv.org/abs/1911.11907, figures 2 and 3.
"""

from keras import KerasTensor, layers

from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual
from keraslight.errors import InvalidArgumentError


def ghost_module(
    x: KerasTensor, channels: int, *, activation: str | None = None, style: ConvStyle = TORCH, name: str
) -> KerasTensor:
    """A 1x1 convolution computes half of the channels, and a depthwise 3x3 convolution of these the other half.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.
        activation: Activation after each of the two. None leaves them linear.
        style: Padding and batch normalization.
        name: The layers are named `{name}_primary`, `_cheap` and `_concat`.

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
    x: KerasTensor,
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
) -> KerasTensor:
    """Ghost module, depthwise convolution (if strided), squeeze-and-excitation, linear ghost module, residual.

    If the shape changes, the shortcut consists of a depthwise and a 1x1 convolution, both linear.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, even.
        expanded: Channels between the two ghost modules, even.
        kernel: Side of the depthwise kernels in the branch and the shortcut, in pixels.
        stride: Stride, 1 or 2. Only with 2 does the branch have a depthwise convolution, without an activation.
        activation: Activation in the first ghost module.
        squeezed: Channels inside the squeeze-and-excitation (ReLU inside, hard sigmoid gate). 0 omits it.
        drop_path: Probability of dropping the branch, in [0, 1).

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
