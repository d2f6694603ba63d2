"""The inverted residual of MobileNetV2 and V3: narrow ends, a wide depthwise middle, a linear projection.

Source: Sandler et al., "MobileNetV2", CVPR 2018, https://arxiv.org/abs/1801.04381, figure 4d; with
squeeze-and-excitation as in Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244, figure 4.
"""

from keras import KerasTensor

from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual


def inverted_residual(
    x: KerasTensor,
    channels: int,
    *,
    expanded: int,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    activation: str = "relu6",
    squeezed: int = 0,
    drop_path: float = 0.0,
    expand: bool = True,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 linear projection.

    Args:
        x: (B, H, W, C).
        channels: Output channels F.
        expanded: Channels of the middle; C if `expand` is False.
        kernel: Side of the depthwise kernel, in pixels.
        stride: Stride of the depthwise convolution, 1 or 2.
        dilation: Dilation of the depthwise convolution, at least 1, and 1 if `stride` is above 1.
        activation: Activation after the expansion and after the depthwise convolution.
        squeezed: Channels inside the squeeze-and-excitation (ReLU inside, hard sigmoid gate), which follows the
            depthwise activation. 0 omits it.
        drop_path: Probability of dropping the branch, in [0, 1), if there is a residual.
        expand: Whether there is an expansion. The first block of both networks has none.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.
    """
    inputs, in_channels = x, x.shape[-1]
    if expand:
        x = conv_bn(x, expanded, 1, activation=activation, style=style, name=f"{name}_expand")
    x = depthwise_bn(
        x, kernel, stride=stride, dilation=dilation, activation=activation, style=style, name=f"{name}_depthwise"
    )
    if squeezed:
        x = squeeze_excite(x, squeezed, activation="relu", gate="hard_sigmoid", name=f"{name}_se")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    if stride == 1 and in_channels == channels:
        x = add_residual(inputs, x, drop_path=drop_path, name=name)
    return x
