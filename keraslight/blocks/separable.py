"""Depthwise separable convolutions: space first, channels after, for about 1/F + 1/k^2 of a convolution's cost.

Source: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861, section 3.1 and figure 3.
"""

from __future__ import annotations

import keras

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual


def depthwise_separable(
    x: keras.KerasTensor,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: str | None = "relu6",
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """Depthwise convolution and 1x1 convolution, each with batch normalization and activation: MobileNetV1's block.

    k * k * C + C * F weights and 2 * (C + F) of the normalizations; each output pixel costs k * k * C + C * F
    multiply-adds (the depthwise part counted on the smaller map, behind its stride).

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        kernel: Side k of the depthwise kernel in pixels, odd.
        stride: Of the depthwise convolution, 1 or more.
        activation: After both, see `keraslight.blocks.conv.activate`; None leaves both linear.
        style: Padding and normalization.
        name: The layers are `{name}_depthwise` and `{name}_pointwise`, each followed by `_bn` and `_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: an unknown activation.
    """
    x = depthwise_bn(x, kernel, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    return conv_bn(x, channels, 1, activation=activation, style=style, name=f"{name}_pointwise")


def lightweight_block(
    x: keras.KerasTensor,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: str | None = "relu6",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> keras.KerasTensor:
    """A separable convolution with a residual: ResNet's basic block at MobileNetV1's price.

    `y = act(bn(pointwise(act(bn(depthwise(x))))) + shortcut(x))`. The shortcut is the input itself, or a 1x1
    convolution with batch normalization where the stride or the channels change. The branch is linear before the
    addition, since a rectified one could only add to the input (He et al., "Identity Mappings in Deep Residual
    Networks", ECCV 2016, https://arxiv.org/abs/1603.05027, figure 4c).

    k * k * C + C * F weights and 2 * (C + F) of the normalizations; a projected shortcut has C * F + 2 * F more, which
    about doubles the cost.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        kernel: Side k of the depthwise kernel in pixels, odd.
        stride: Of the depthwise convolution and of the projection, 1 or more.
        activation: After the depthwise convolution and after the addition, see `keraslight.blocks.conv.activate`.
        drop_path: Probability to drop the branch, in [0, 1).
        style: Padding and normalization.
        name: The layers are `{name}_depthwise`, `{name}_pointwise` and `{name}_shortcut`, each with its `_bn`, then
            `{name}_add` and `{name}_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).

    Raises:
        InvalidArgumentError: an unknown activation.
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = conv_bn(x, channels, 1, stride=stride, style=style, name=f"{name}_shortcut")
    x = depthwise_bn(x, kernel, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_pointwise")
    x = add_residual(shortcut, x, drop_path=drop_path, name=name)
    return activate(x, activation, name=f"{name}_act")
