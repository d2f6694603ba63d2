"""MobileNetV4's convolutional blocks: universal inverted bottleneck and fused inverted bottleneck.

Source: Qin et al., "MobileNetV4", ECCV 2024, https://arxiv.org/abs/2404.10518, section 3 and figure 4.
"""

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn, make_divisible
from keraslight.blocks.residual import add_residual, scale_branch
from keraslight.errors import InvalidArgumentError


def universal_inverted_bottleneck(
    x: KerasTensor,
    channels: int,
    *,
    expansion: float,
    start: int = 0,
    middle: int = 0,
    stride: int = 1,
    activation: str = "relu",
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """A block with four forms, depending on which of its two optional depthwise convolutions it has.

    | form | `start` | `middle` |
    | --- | --- | --- |
    | inverted bottleneck (IB) | 0 | kernel |
    | ConvNeXt-like | kernel | 0 |
    | extra depthwise (ExtraDW) | kernel | kernel |
    | feed-forward net (FFN) | 0 | 0 |

    Args:
        x: (B, H, W, C).
        channels: Output channels F.
        expansion: Channels of the middle as a multiple of C, above 0, rounded by `make_divisible`.
        start: Side of the depthwise kernel before the expansion, in pixels. 0 omits it.
        middle: Side of the depthwise kernel between expansion and projection, in pixels. 0 omits it.
        stride: Stride, 1 or 2, of the middle depthwise convolution (as in both reference codes), or else of the first.
        layer_scale: Initial value of a layer scale after the projection, even without a residual. None for none.
        drop_path: Probability of dropping the branch, in [0, 1), if there is a residual.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.

    Raises:
        InvalidArgumentError: `stride` is above 1, but there is no depthwise convolution.
    """
    if stride > 1 and not (start or middle):
        raise InvalidArgumentError(
            "A universal inverted bottleneck with `stride` above 1 needs a depthwise convolution. "
            f"Received: stride={stride}, start={start}, middle={middle}."
        )
    inputs, in_channels = x, x.shape[-1]
    if start:
        x = depthwise_bn(x, start, stride=1 if middle else stride, style=style, name=f"{name}_start")
    expanded = make_divisible(in_channels * expansion)
    x = conv_bn(x, expanded, 1, activation=activation, style=style, name=f"{name}_expand")
    if middle:
        x = depthwise_bn(x, middle, stride=stride, activation=activation, style=style, name=f"{name}_depthwise")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    x = scale_branch(x, layer_scale, name=name)
    if stride == 1 and in_channels == channels:
        x = add_residual(inputs, x, drop_path=drop_path, name=name)
    return x


def fused_inverted_bottleneck(
    x: KerasTensor,
    channels: int,
    *,
    expansion: float,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "relu",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Expansion and depthwise convolution fused into one full convolution, then a linear projection.

    Args:
        x: (B, H, W, C).
        channels: Output channels F.
        expansion: Channels of the middle as a multiple of C, rounded by `make_divisible`.
        kernel: Side of the full convolution's kernel, in pixels.
        stride: Stride of the full convolution, 1 or 2.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.
    """
    inputs, in_channels = x, x.shape[-1]
    expanded = make_divisible(in_channels * expansion)
    x = conv_bn(x, expanded, kernel, stride=stride, activation=activation, style=style, name=f"{name}_expand")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    if stride == 1 and in_channels == channels:
        x = add_residual(inputs, x, drop_path=drop_path, name=name)
    return x
