"""EfficientNet's blocks: MBConv with squeeze-and-excitation, and Fused-MBConv.

Sources: Tan and Le, "EfficientNet", ICML 2019, https://arxiv.org/abs/1905.11946, section 4; Tan and Le,
"EfficientNetV2", ICML 2021, https://arxiv.org/abs/2104.00298, figure 2.
"""

from typing import Any

from keras import KerasTensor

from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual
from keraslight.blocks.uib import fused_inverted_bottleneck


def mbconv(
    x: KerasTensor,
    channels: int,
    *,
    expansion: int,
    kernel: int = 3,
    stride: int = 1,
    squeeze: float = 0.25,
    activation: str = "silu",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Expansion, depthwise convolution, squeeze-and-excitation, linear projection.

    Args:
        x: (B, H, W, C).
        channels: Output channels F.
        expansion: Channels of the middle as a multiple of C. 1 omits the expanding convolution.
        kernel: Side of the depthwise kernel, in pixels.
        stride: Stride of the depthwise convolution, 1 or 2.
        squeeze: Channels of the squeeze as a fraction of the block's *input* channels C, not of the expanded ones.
        activation: Activation after the first two convolutions and inside the squeeze-and-excitation.
        drop_path: Probability of dropping the branch, in [0, 1), if there is a residual.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.
    """
    inputs, in_channels = x, x.shape[-1]
    if expansion != 1:
        x = conv_bn(x, in_channels * expansion, 1, activation=activation, style=style, name=f"{name}_expand")
    x = depthwise_bn(x, kernel, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    x = squeeze_excite(x, max(1, int(in_channels * squeeze)), activation=activation, name=f"{name}_se")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    if stride == 1 and in_channels == channels:
        x = add_residual(inputs, x, drop_path=drop_path, name=name)
    return x


def fused_mbconv(
    x: KerasTensor,
    channels: int,
    *,
    expansion: int,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "silu",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """A full convolution instead of expansion and depthwise convolution, then a linear projection.

    Args:
        x, channels, drop_path: See `mbconv`.
        expansion: Channels of the middle as a multiple of C. With 1 there is no projection, only one full convolution
            named `{name}_conv` with its activation.
        kernel, stride: Side of the full convolution's kernel in pixels, and its stride, 1 or 2.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.
    """
    shared: dict[str, Any] = {"kernel": kernel, "stride": stride, "activation": activation, "style": style}
    if expansion != 1:
        return fused_inverted_bottleneck(x, channels, expansion=expansion, drop_path=drop_path, name=name, **shared)
    inputs = x
    x = conv_bn(x, channels, name=f"{name}_conv", **shared)
    if stride == 1 and inputs.shape[-1] == channels:
        x = add_residual(inputs, x, drop_path=drop_path, name=name)
    return x
