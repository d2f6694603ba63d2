"""MobileNetV2: inverted residuals with linear bottlenecks.

Source: Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381, table 2; the widths of table 4 and of TensorFlow's
slim README. Channels are rounded as in the authors' code. Below width 1, the head keeps its 1280 channels.
Left open by the paper: symmetric padding and batch-norm epsilon 1e-5 (timm and torchvision; the authors' own code and
keras.applications pad "same" and use 1e-3, `style=keraslight.blocks.conv.TENSORFLOW`). Dropout and drop path default to
0; the released recipes train with dropout 0.2.
"""

from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.inverted_residual import inverted_residual
from keraslight.blocks.model import Network
from keraslight.blocks.residual import drop_rates
from keraslight.blocks.stride import OutputStride
from keraslight.registry import Variant


class Row(NamedTuple):
    """A row of table 2: `repeats` blocks, the first of them with `stride`. An expansion of 1 is omitted."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STAGES = (  # output sides of a 224x224 image
    Row(1, 16, 1, 1),  # 112
    Row(6, 24, 2, 2),  # 56
    Row(6, 32, 3, 2),  # 28
    Row(6, 64, 4, 2),  # 14
    Row(6, 96, 3, 1),  # 14
    Row(6, 160, 3, 2),  # 7
    Row(6, 320, 1, 1),  # 7
)
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "mobilenet_v2_100": Variant({"width": 1.0}, 224, 3_504_872, 300_774_272, "timm/mobilenetv2_100.ra_in1k"),
    "mobilenet_v2_035": Variant({"width": 0.35}, 224, 1_677_128, 59_285_808, None),
    "mobilenet_v2_050": Variant({"width": 0.5}, 224, 1_968_680, 97_131_840, "timm/mobilenetv2_050.lamb_in1k"),
    "mobilenet_v2_075": Variant({"width": 0.75}, 224, 2_636_424, 209_069_792, None),
    "mobilenet_v2_130": Variant({"width": 1.3}, 224, 5_386_792, 509_374_560, None),
    "mobilenet_v2_140": Variant({"width": 1.4}, 224, 6_108_776, 582_195_824, "timm/mobilenetv2_140.ra_in1k"),
}


@register(VARIANTS, prefix="mobilenet_v2_")
def MobileNetV2(
    images: KerasTensor,
    *,
    width: float,
    output_stride: int = 32,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
) -> Network:
    """Builds a MobileNetV2 image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the head's map of 1280 or more
    channels.

    Args:
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8. The head's 1280 channels
            are only scaled above 1.
        output_stride: Stride of the last map: 8, 16 or 32. Below 32, later strides become dilations of the
            depthwise convolutions, with the same weights.
        drop_path: Drop path rate of the last residual block, in [0, 1), rising linearly from 0 over all blocks.
        style: Padding and batch normalization, as expected by the weights.
    """
    strides = OutputStride(output_stride, 2)
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="relu6", style=style, name="stem")
    features = {}
    rates = drop_rates(drop_path, sum(row.repeats for row in STAGES))
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            x = inverted_residual(
                x,
                make_divisible(row.channels * width),
                expanded=x.shape[-1] * row.expansion,
                expand=row.expansion > 1,
                stride=strides.step(row.stride if b == 0 else 1),
                dilation=strides.dilation,
                drop_path=next(rates),
                style=style,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{strides.total}"] = x
    x = conv_bn(x, make_divisible(1280 * max(width, 1.0)), 1, activation="relu6", style=style, name="head")
    return Network(features, x)
