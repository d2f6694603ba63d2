"""Residual branches: their end (layer scale, drop path, addition), and ResNet's two blocks.

Source: He et al., "Deep Residual Learning", CVPR 2016, https://arxiv.org/abs/1512.03385, figure 5.
"""

from collections.abc import Iterator

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn
from keraslight.layers import DropPath, LayerScale


def drop_rates(drop_path: float, blocks: int) -> Iterator[float]:
    """Yields the drop path rates of `blocks` blocks, which rise linearly from 0 to `drop_path`."""
    last = max(blocks - 1, 1)
    return (drop_path * index / last for index in range(blocks))


def scale_branch(x: KerasTensor, layer_scale: float | None, *, name: str) -> KerasTensor:
    """Applies a layer scale with `layer_scale` as its initial value. None returns `x`."""
    return x if layer_scale is None else LayerScale(layer_scale, name=f"{name}_layer_scale")(x)


def add_residual(x: KerasTensor, branch: KerasTensor, *, drop_path: float = 0.0, name: str) -> KerasTensor:
    """`x + drop_path(branch)`, both (B, H, W, C). `drop_path` is the probability of dropping the branch, in [0, 1)."""
    if drop_path:
        branch = DropPath(drop_path, name=f"{name}_drop_path")(branch)
    return layers.Add(name=f"{name}_add")([x, branch])


def basic_block(
    x: KerasTensor,
    channels: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Two 3x3 convolutions with a residual (figure 5, left): `relu(x + bn(conv(relu(bn(conv(x))))))`.

    It has 9 * (C * F + F * F) weights and 4 * F for the normalizations. A projected shortcut adds C * F + 2 * F.

    Args:
        x: (B, H, W, C).
        channels: Output channels F, at least 1.
        stride: Stride of the first convolution and the projection, at least 1.
        dilation: Dilation of both convolutions, at least 1, and 1 if `stride` is above 1.
        drop_path: Probability of dropping the branch, in [0, 1).
        style: Padding and batch normalization.
        name: The layers are `{name}_conv1` and `{name}_conv2`, `{name}_shortcut` if the shape changes, each with its
            `_bn`, then `{name}_add` and `{name}_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).
    """
    shortcut = _shortcut(x, channels, stride=stride, style=style, name=name)
    x = conv_bn(x, channels, 3, stride=stride, dilation=dilation, activation="relu", style=style, name=f"{name}_conv1")
    x = conv_bn(x, channels, 3, dilation=dilation, style=style, name=f"{name}_conv2")
    return activate(add_residual(shortcut, x, drop_path=drop_path, name=name), "relu", name=f"{name}_act")


def bottleneck_block(
    x: KerasTensor,
    channels: int,
    *,
    expansion: int = 4,
    stride: int = 1,
    dilation: int = 1,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """1x1 reduction, 3x3 and 1x1 expansion with a residual (figure 5, right).

    The stride is on the 3x3 convolution (version 1.5); the paper has it on the first 1x1. With F = expansion *
    channels, it has C * channels + 9 * channels ** 2 + channels * F weights and 4 * channels + 2 * F for the
    normalizations. A projected shortcut adds C * F + 2 * F.

    Args:
        x: (B, H, W, C).
        channels: Channels of the 3x3 convolution, at least 1.
        expansion: Output channels F as a multiple of `channels`, at least 1.
        stride: Stride of the 3x3 convolution and the projection, at least 1.
        dilation: Dilation of the 3x3 convolution, at least 1, and 1 if `stride` is above 1.
        drop_path: Probability of dropping the branch, in [0, 1).
        style: Padding and batch normalization.
        name: The layers are `{name}_reduce`, `{name}_spatial` and `{name}_expand`, `{name}_shortcut` if the shape
            changes, each with its `_bn`, then `{name}_add` and `{name}_act`.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F).
    """
    shortcut = _shortcut(x, expansion * channels, stride=stride, style=style, name=name)
    x = conv_bn(x, channels, 1, activation="relu", style=style, name=f"{name}_reduce")
    x = conv_bn(
        x, channels, 3, stride=stride, dilation=dilation, activation="relu", style=style, name=f"{name}_spatial"
    )
    x = conv_bn(x, expansion * channels, 1, style=style, name=f"{name}_expand")
    return activate(add_residual(shortcut, x, drop_path=drop_path, name=name), "relu", name=f"{name}_act")


def _shortcut(x: KerasTensor, channels: int, *, stride: int, style: ConvStyle, name: str) -> KerasTensor:
    """Returns the input, projected if the branch changes its shape (the paper's option B)."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    return conv_bn(x, channels, 1, stride=stride, style=style, name=f"{name}_shortcut")
