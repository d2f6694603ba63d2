"""EfficientNetV2: smaller models and faster training.

Source: Tan and Le, ICML 2021, https://arxiv.org/abs/2104.00298, Table 4 (S). M, L, XL and the B networks, which the
paper omits or only names, are from the released code (google/automl, efficientnetv2): B0 to B3 scale one table in width
and depth, the others have their own tables. That code also differs from the paper's text: channels are rounded without
the guard against losing more than 10%, and a Fused-MBConv with expansion 1 is a single convolution. L has 118.5 million
parameters in every implementation, while the code's page says 119.5. Left open by the paper, taken from that code:
"same" padding with batch-norm epsilon 1e-3 and momentum 0.9 (torchvision pads symmetrically; its checkpoints set that
`style`). It trains with dropout 0.2 (B0, B1, S), 0.3 (B2, B3, M) or 0.4 (L, XL) and a drop path rate of up to 0.2; here
both default to 0. The input sizes are those of evaluation; training starts with smaller ones.
"""

import functools
import math
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.mbconv import fused_mbconv, mbconv
from keraslight.blocks.model import Network, pooled_classifier
from keraslight.blocks.residual import drop_rates
from keraslight.registry import Variant

GOOGLE = ConvStyle(padding="same", epsilon=1e-3, momentum=0.9)


class Fused(NamedTuple):
    """`repeats` Fused-MBConv blocks, the first of them with `stride`."""

    expansion: int
    channels: int
    repeats: int
    stride: int


class MBConv(NamedTuple):
    """`repeats` MBConv blocks with squeeze-and-excitation, the first of them with `stride`."""

    expansion: int
    channels: int
    repeats: int
    stride: int


# All kernels are 3x3. The first stage is as wide as the stem.
BASE = (
    #      t    c   n  s    output of a 224x224 image
    Fused(1, 16, 1, 1),  # 112
    Fused(4, 32, 2, 2),  # 56
    Fused(4, 48, 2, 2),  # 28
    MBConv(4, 96, 3, 2),  # 14
    MBConv(6, 112, 5, 1),  # 14
    MBConv(6, 192, 8, 2),  # 7
)
S = (  # 384x384
    Fused(1, 24, 2, 1),  # 192
    Fused(4, 48, 4, 2),  # 96
    Fused(4, 64, 4, 2),  # 48
    MBConv(4, 128, 6, 2),  # 24
    MBConv(6, 160, 9, 1),  # 24
    MBConv(6, 256, 15, 2),  # 12
)
M = (  # 480x480
    Fused(1, 24, 3, 1),  # 240
    Fused(4, 48, 5, 2),  # 120
    Fused(4, 80, 5, 2),  # 60
    MBConv(4, 160, 7, 2),  # 30
    MBConv(6, 176, 14, 1),  # 30
    MBConv(6, 304, 18, 2),  # 15
    MBConv(6, 512, 5, 1),  # 15
)
L = (  # 480x480
    Fused(1, 32, 4, 1),  # 240
    Fused(4, 64, 7, 2),  # 120
    Fused(4, 96, 7, 2),  # 60
    MBConv(4, 192, 10, 2),  # 30
    MBConv(6, 224, 19, 1),  # 30
    MBConv(6, 384, 25, 2),  # 15
    MBConv(6, 640, 7, 1),  # 15
)
XL = (  # 512x512
    Fused(1, 32, 4, 1),  # 256
    Fused(4, 64, 8, 2),  # 128
    Fused(4, 96, 8, 2),  # 64
    MBConv(4, 192, 16, 2),  # 32
    MBConv(6, 256, 24, 1),  # 32
    MBConv(6, 512, 32, 2),  # 16
    MBConv(6, 640, 8, 1),  # 16
)


def repeats(row: Fused | MBConv, depth: float) -> int:
    """Returns the number of blocks of a row in a network of that depth, rounded up."""
    return math.ceil(row.repeats * depth)


B = {"stem": 32, "stages": BASE}
VARIANTS = {
    f"efficientnet_v2_{name}": Variant(arguments, size, parameters, macs, f"timm/tf_efficientnetv2_{name}.{recipe}")
    for name, arguments, size, parameters, macs, recipe in (
        ("b0", B, 224, 7_139_704, 718_086_176, "in1k"),
        ("b1", {**B, "depth": 1.1}, 240, 8_141_052, 1_196_819_360, "in1k"),
        ("b2", {**B, "width": 1.1, "depth": 1.2}, 260, 10_096_086, 1_697_542_832, "in1k"),
        ("b3", {**B, "width": 1.2, "depth": 1.4}, 300, 14_358_406, 3_011_458_816, "in21k_ft_in1k"),
        ("s", {"stem": 24, "stages": S}, 384, 21_458_488, 8_365_617_152, "in21k_ft_in1k"),
        ("m", {"stem": 24, "stages": M}, 480, 54_139_356, 24_582_460_384, "in21k_ft_in1k"),
        ("l", {"stem": 32, "stages": L}, 480, 118_515_272, 56_079_699_008, "in21k_ft_in1k"),
        ("xl", {"stem": 32, "stages": XL}, 512, 208_119_808, 93_353_451_520, "in21k_ft_in1k"),
    )
}


@register(VARIANTS, prefix="efficientnet_v2_")
def EfficientNetV2(
    images: KerasTensor,
    *,
    stem: int,
    stages: tuple[Fused | MBConv, ...],
    width: float = 1.0,
    depth: float = 1.0,
    style: ConvStyle = GOOGLE,
    drop_path: float = 0.0,
) -> Network:
    """Builds an EfficientNetV2 image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the map of 1280 * width
    channels.

    Args:
        stem, stages: Channels of the stem, and the variant's table.
        width: Multiplier of all channels in the table and of the head's 1280, above 0. Channels are rounded to
            multiples of 8. B2 and B3 have their own.
        depth: Multiplier of the number of blocks in each stage, above 0, rounded up. B1 to B3 have their own.
        style: Padding and batch normalization. Published weights set their own.
        drop_path: Drop path rate in [0, 1). Block i of n drops its branch with probability `drop_path * i / n`.
    """

    def scaled(channels: int) -> int:
        return make_divisible(channels * width, limit=0.0)

    x = conv_bn(images, scaled(stem), 3, stride=2, activation="silu", style=style, name="stem")
    features, resolution = {}, 2
    rates = drop_rates(drop_path, sum(repeats(row, depth) for row in stages) + 1)
    for s, row in enumerate(stages):
        kind = fused_mbconv if isinstance(row, Fused) else mbconv
        block = functools.partial(kind, channels=scaled(row.channels), expansion=row.expansion, style=style)
        resolution *= row.stride
        for b in range(repeats(row, depth)):
            x = block(x, stride=row.stride if b == 0 else 1, drop_path=next(rates), name=f"stage{s}_block{b}")
        features[f"stride_{resolution}"] = x
    x = conv_bn(x, scaled(1280), 1, activation="silu", style=style, name="head")
    return Network(features, x, functools.partial(pooled_classifier, keepdims=True))
