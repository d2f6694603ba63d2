"""RepVGG: making VGG-style ConvNets great again.

Source: Ding et al., CVPR 2021, https://arxiv.org/abs/2101.03697, tables 2 and 3; D2se is from the authors' code,
https://github.com/DingXiaoH/RepVGG. During training, a block adds three branches, each with its own batch norm: a 3x3
convolution, a 1x1 convolution and, if the shape doesn't change, the input itself. `keraslight.compress.reparameterize`
fuses them into one 3x3 convolution with bias, the form that `deploy=True` builds. In the variants g2 and g4 every
second layer is grouped. D2se gates the sum of the branches (squeeze-and-excitation) before the activation. timm and the
authors agree in everything; timm has no g2 variants.
"""

import functools
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.repvgg import repvgg_block
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage: `repeats` blocks, the first of them with stride 2."""

    channels: int
    repeats: int


# Output sides at 224 pixels:    56            28             14              7
A0 = (Row(48, 2), Row(96, 4), Row(192, 14), Row(1280, 1))
A1 = (Row(64, 2), Row(128, 4), Row(256, 14), Row(1280, 1))
A2 = (Row(96, 2), Row(192, 4), Row(384, 14), Row(1408, 1))
B0 = (Row(64, 4), Row(128, 6), Row(256, 16), Row(1280, 1))
B1 = (Row(128, 4), Row(256, 6), Row(512, 16), Row(2048, 1))
B2 = (Row(160, 4), Row(320, 6), Row(640, 16), Row(2560, 1))
B3 = (Row(192, 4), Row(384, 6), Row(768, 16), Row(2560, 1))
D2 = (Row(160, 8), Row(320, 14), Row(640, 24), Row(2560, 1))

VARIANTS = {  # arguments, input size, parameters, MACs (both of the training form), published checkpoint
    "repvgg_a0": Variant({"stages": A0}, 224, 9_108_968, 1_512_581_120, "timm/repvgg_a0.rvgg_in1k"),
    "repvgg_a1": Variant({"stages": A1}, 224, 14_092_264, 2_626_488_320, "timm/repvgg_a1.rvgg_in1k"),
    "repvgg_a2": Variant({"stages": A2}, 224, 28_210_600, 5_685_345_280, "timm/repvgg_a2.rvgg_in1k"),
    "repvgg_b0": Variant({"stages": B0}, 224, 15_817_960, 3_397_191_680, "timm/repvgg_b0.rvgg_in1k"),
    "repvgg_b1": Variant({"stages": B1}, 224, 57_415_016, 13_128_089_600, "timm/repvgg_b1.rvgg_in1k"),
    "repvgg_b1g2": Variant({"stages": B1, "groups": 2}, 224, 45_782_376, 9_788_375_040, "ref/repvgg_b1g2"),
    "repvgg_b1g4": Variant({"stages": B1, "groups": 4}, 224, 39_966_056, 8_118_517_760, "timm/repvgg_b1g4.rvgg_in1k"),
    "repvgg_b2": Variant({"stages": B2}, 224, 89_022_376, 20_418_170_880, "timm/repvgg_b2.rvgg_in1k"),
    "repvgg_b2g2": Variant({"stages": B2, "groups": 2}, 224, 70_846_376, 15_199_866_880, "ref/repvgg_b2g2"),
    "repvgg_b2g4": Variant({"stages": B2, "groups": 4}, 224, 61_758_376, 12_590_714_880, "timm/repvgg_b2g4.rvgg_in1k"),
    "repvgg_b3": Variant({"stages": B3}, 224, 123_085_288, 29_120_696_320, "timm/repvgg_b3.rvgg_in1k"),
    "repvgg_b3g2": Variant({"stages": B3, "groups": 2}, 224, 96_911_848, 21_606_338_560, "ref/repvgg_b3g2"),
    "repvgg_b3g4": Variant({"stages": B3, "groups": 4}, 224, 83_825_128, 17_849_159_680, "timm/repvgg_b3g4.rvgg_in1k"),
    "repvgg_d2se": Variant(
        {"stages": D2, "gated": True}, 320, 133_334_836, 74_437_325_312, "timm/repvgg_d2se.rvgg_in1k"
    ),
}


@register(VARIANTS, prefix="repvgg_")
def RepVGG(
    images: KerasTensor,
    *,
    stages: tuple[Row, ...],
    groups: int = 1,
    gated: bool = False,
    deploy: bool = False,
    style: ConvStyle = TORCH,
    width: float = 1.0,
) -> Network:
    """Builds a RepVGG image classifier.

    Feature maps are ceil(side / stride) pixels wide.

    Args:
        stages: The variant's table.
        groups: Groups of the convolutions in every second layer, counted from the stem.
        gated: Whether every block, including the stem, has squeeze-and-excitation.
        deploy: Whether a block is a single convolution with bias, as `keraslight.compress.reparameterize` makes it from
            a trained model, instead of the training branches.
        style: Padding and batch normalization.
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8. The stem has at most 64.
    """
    block = functools.partial(repvgg_block, gated=gated, deploy=deploy, style=style)
    x = block(images, min(64, make_divisible(stages[0].channels * width)), stride=2, groups=1, name="stem")
    features = {"stride_2": x}
    layer = 1
    for s, row in enumerate(stages):
        channels = make_divisible(row.channels * width)
        for b in range(row.repeats):
            own_groups = groups if layer % 2 == 0 else 1
            x = block(x, channels, stride=2 if b == 0 else 1, groups=own_groups, name=f"stage{s}_block{b}")
            layer += 1
        features[f"stride_{4 * 2**s}"] = x
    return Network(features, x)
