"""Depthwise separable convolutions: first space, then channels, for about 1/F + 1/k^2 of a convolution's cost.

Sources: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861, section 3.1 and figure 3; Chollet,
"Xception", CVPR 2017, https://arxiv.org/abs/1610.02357, figure 5.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn, depthwise_bn
from keraslight.blocks.pool import max_pool_signed
from keraslight.blocks.residual import add_residual


def depthwise_separable(
    x: KerasTensor,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: str | None = "relu6",
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Depthwise convolution and 1x1 convolution, each with batch normalization and activation: MobileNetV1's block.

    It has k * k * C + C * F weights and 2 * (C + F) for the normalizations. Each output pixel costs k * k * C + C * F
    multiply-adds.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        kernel: Side k of the depthwise kernel in pixels, odd.
        stride: Stride of the depthwise convolution, at least 1.
        activation: Activation after both; see `keraslight.blocks.conv.activate`. None leaves both linear.
        style: Padding and batch normalization.
        name: The layers are `{name}_depthwise` and `{name}_pointwise`, each followed by `_bn` and `_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: The activation is unknown.
    """
    x = depthwise_bn(x, kernel, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    return conv_bn(x, channels, 1, activation=activation, style=style, name=f"{name}_pointwise")


def lightweight_block(
    x: KerasTensor,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: str | None = "relu6",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """A separable convolution with a residual: ResNet's basic block at MobileNetV1's cost.

    `y = act(bn(pointwise(act(bn(depthwise(x))))) + shortcut(x))`. The shortcut is the input itself, or a 1x1
    convolution with batch normalization if the stride or the channels change. The branch is linear before the addition,
    since a rectified one could only increase the input (He et al., "Identity Mappings in Deep Residual
    Networks", ECCV 2016, https://arxiv.org/abs/1603.05027, figure 4c).

    It has k * k * C + C * F weights and 2 * (C + F) for the normalizations. A projected shortcut adds C * F + 2 * F,
    which roughly doubles the cost.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        kernel: Side k of the depthwise kernel in pixels, odd.
        stride: Stride of the depthwise convolution and the projection, at least 1.
        activation: Activation after the depthwise convolution and after the addition; see
            `keraslight.blocks.conv.activate`.
        drop_path: Probability of dropping the branch, in [0, 1).
        style: Padding and batch normalization.
        name: The layers are `{name}_depthwise`, `{name}_pointwise` and `{name}_shortcut`, each with its `_bn`, then
            `{name}_add` and `{name}_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: The activation is unknown.
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = conv_bn(x, channels, 1, stride=stride, style=style, name=f"{name}_shortcut")
    x = depthwise_bn(x, kernel, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_pointwise")
    x = add_residual(shortcut, x, drop_path=drop_path, name=name)
    return activate(x, activation, name=f"{name}_act")


def separable_bn(x: KerasTensor, channels: int, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Xception's separable convolution: 3x3 depthwise and 1x1, with nothing between them, then batch normalization.

    It has 9 * C + C * F weights and 2 * F for the normalization.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        style: Batch normalization.
        name: The layers are `{name}_depthwise`, `{name}_pointwise` and `{name}_pointwise_bn`.

    Returns:
        (B, H, W, F).
    """
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    return conv_bn(x, channels, 1, style=style, name=f"{name}_pointwise")


def xception_module(
    x: KerasTensor,
    channels: Sequence[int],
    *,
    stride: int = 1,
    activate_first: bool = True,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Separable convolutions, each with a ReLU before it, and a residual around them.

    Args:
        x: (B, H, W, C).
        channels: Output channels of each separable convolution. The last, F, must equal C at stride 1.
        stride: Stride, at least 1. Above 1, a 3x3 max pooling ends the branch and a 1x1 convolution projects the
            shortcut.
        activate_first: Whether the first convolution is also preceded by a ReLU.
        style: Padding and batch normalization.
        name: The layers are `{name}_act0`, `{name}_sep0_depthwise`, ..., `{name}_pool`, `{name}_shortcut` and
            `{name}_add`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).
    """
    inputs = x
    for n, filters in enumerate(channels):
        if n or activate_first:
            x = activate(x, "relu", name=f"{name}_act{n}")
        x = separable_bn(x, filters, style=style, name=f"{name}_sep{n}")
    if stride > 1:
        x = max_pool_signed(x, 3, stride=stride, style=style, name=f"{name}_pool")
        inputs = conv_bn(inputs, channels[-1], 1, stride=stride, style=style, name=f"{name}_shortcut")
    return add_residual(inputs, x, name=name)
