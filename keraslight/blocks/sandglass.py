"""MobileNeXt's block: an hourglass whose residual connects the wide ends.

Source: Zhou et al., "Rethinking Bottleneck Structure for Efficient Mobile Network Design", ECCV 2020,
https://arxiv.org/abs/2007.02269, figure 3.
"""

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, depthwise_bn
from keraslight.blocks.residual import add_residual


def sandglass(
    x: KerasTensor,
    channels: int,
    *,
    reduced: int,
    stride: int = 1,
    spatial: bool = False,
    activation: str = "relu6",
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Depthwise 3x3, 1x1 reduction (linear), 1x1 expansion, depthwise 3x3 (linear).

    If the shape changes, the authors omit depthwise convolutions: the first one at stride 2, and both if only the
    channels change.

    Args:
        x: (B, H, W, C).
        channels: Output channels F.
        reduced: Channels of the waist.
        stride: Stride of the last depthwise convolution, 1 or 2.
        spatial: Whether to keep both depthwise convolutions even if the shape changes.
        activation: Activation after the first depthwise convolution and after the expansion.
        drop_path: Probability of dropping the branch, in [0, 1), if there is a residual.

    Returns:
        (B, ceil(H / stride), ceil(W / stride), F); plus the input if the shapes match.
    """
    inputs = x
    same = stride == 1 and x.shape[-1] == channels
    if same or spatial:
        x = depthwise_bn(x, 3, activation=activation, style=style, name=f"{name}_depthwise")
    x = conv_bn(x, reduced, 1, style=style, name=f"{name}_reduce")
    x = conv_bn(x, channels, 1, activation=activation, style=style, name=f"{name}_expand")
    if same or spatial or stride > 1:
        x = depthwise_bn(x, 3, stride=stride, style=style, name=f"{name}_depthwise_out")
    return add_residual(inputs, x, drop_path=drop_path, name=name) if same else x
