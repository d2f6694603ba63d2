"""MobileNetV1: depthwise separable convolutions.

Source: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861, table 1; the widths of table 6, and timm's
1.25. The paper's resolution multiplier is `input_shape`: 224, 192, 160 and 128 pixels there.
Left open by the paper, taken from timm, whose weights are the published ones: ReLU6, symmetric padding, batch-norm
epsilon 1e-5. The authors' own code and keras.applications pad "same" with epsilon 1e-3
(`style=keraslight.blocks.conv.TENSORFLOW`). keras.applications also ends in a convolution instead of a dense layer,
with the same parameters. Table 1 prints stride 2 for the last depthwise convolution; every released code has 1.
Dropout defaults to 0; the authors train with 0.001. There is no residual to drop.
"""

from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.separable import depthwise_separable
from keraslight.registry import Variant


class Row(NamedTuple):
    """`repeats` blocks of one resolution in table 1, the first of them with `stride`."""

    channels: int
    repeats: int
    stride: int


STAGES = (  # output sides of a 224x224 image
    Row(64, 1, 1),  # 112
    Row(128, 2, 2),  # 56
    Row(256, 2, 2),  # 28
    Row(512, 6, 2),  # 14
    Row(1024, 2, 2),  # 7
)
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "mobilenet_v1_100": Variant(
        {"width": 1.0}, 224, 4_231_976, 568_740_352, "timm/mobilenetv1_100.ra4_e3600_r224_in1k"
    ),
    "mobilenet_v1_025": Variant({"width": 0.25}, 224, 470_072, 41_030_272, None),
    "mobilenet_v1_050": Variant({"width": 0.5}, 224, 1_331_592, 149_497_088, None),
    "mobilenet_v1_075": Variant({"width": 0.75}, 224, 2_585_560, 325_400_448, None),
    "mobilenet_v1_125": Variant(
        {"width": 1.25}, 224, 6_270_840, 879_516_800, "timm/mobilenetv1_125.ra4_e3600_r224_in1k"
    ),
}


@register(VARIANTS, prefix="mobilenet_v1_", before="style")
def MobileNetV1(images: KerasTensor, *, width: float, style: ConvStyle = TORCH) -> Network:
    """Builds a MobileNetV1 image classifier.

    Feature maps are ceil(side / stride) pixels wide.

    Args:
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8.
        style: Padding and batch normalization, as expected by the weights.
    """
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="relu6", style=style, name="stem")
    features, total_stride = {}, 2
    for s, row in enumerate(STAGES):
        channels = make_divisible(row.channels * width)
        for b in range(row.repeats):
            stride = row.stride if b == 0 else 1
            x = depthwise_separable(x, channels, stride=stride, style=style, name=f"stage{s}_block{b}")
        total_stride *= row.stride
        features[f"stride_{total_stride}"] = x
    return Network(features, x)
