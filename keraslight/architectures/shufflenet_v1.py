"""ShuffleNet V1: an extremely efficient CNN for mobile devices, with grouped convolutions and channel shuffle.

Source: Zhang et al., CVPR 2018, https://arxiv.org/abs/1707.01083, Table 1 (channels by groups) and Table 2 (scales).
What the paper leaves open, or the authors' code (megvii-model/ShuffleNet-Series) does differently, is taken from that
code: the shuffle comes after the depthwise convolution (in figure 2 before it) and is the inverse of the paper's
formula; the classifier has no bias; the stem is narrower below 1x (rounded up until the groups divide it), 24 wide at
1x and 1.5x, and 48 wide at 2x. That code has 3 and 8 groups from 0.5x; the other rows follow the same rules. Scales
whose units the groups don't divide are left out.
"""

import functools
import math
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network, pooled_classifier
from keraslight.blocks.pool import max_pool
from keraslight.blocks.shuffle import grouped_shuffle_unit
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage of Table 1: `repeats` units, the first of them with stride 2."""

    channels: int
    repeats: int


# Output channels of stage 2; each further stage doubles them.
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
REPEATS = (4, 8, 4)  # 28x28, 14x14, 7x7
STEM = {25: 6, 50: 12, 100: 24, 150: 24, 200: 48}

FIGURES = {  # (groups, percent): parameters, MACs
    (3, 100): (1_864_728, 137_460_672),
    (3, 25): (304_902, 11_009_808),
    (3, 50): (717_324, 37_589_856),
    (3, 150): (3_441_168, 292_443_552),
    (3, 200): (5_449_776, 524_045_184),
    (1, 25): (208_746, 11_003_184),
    (1, 50): (533_484, 38_517_408),
    (1, 100): (1_530_936, 143_078_976),
    (1, 150): (2_992_032, 308_096_352),
    (1, 200): (4_917_744, 550_334_592),
    (2, 100): (1_732_848, 140_836_512),
    (2, 200): (5_256_896, 539_138_624),
    (4, 100): (1_967_344, 134_339_776),
    (4, 200): (5_592_528, 510_289_536),
    (8, 25): (453_504, 12_426_240),
    (8, 50): (1_010_448, 40_469_760),
    (8, 100): (2_433_768, 138_365_952),
    (8, 150): (4_268_952, 290_188_800),
    (8, 200): (6_521_232, 521_942_016),
}
PUBLISHED = {(groups, percent) for groups in (3, 8) for percent in (50, 100, 150, 200)}


def _variant(groups: int, percent: int) -> Variant:
    stages = tuple(Row(CHANNELS[groups] * percent * 2**s // 100, n) for s, n in enumerate(REPEATS))
    stem = -(-STEM[percent] // groups) * groups
    checkpoint = f"ref/shufflenet_v1_g{groups}_x{percent // 100}_{percent % 100 // 10}"
    return Variant(
        {"groups": groups, "stem": stem, "stages": stages},
        224,
        *FIGURES[groups, percent],
        checkpoint if (groups, percent) in PUBLISHED else None,
    )


VARIANTS = {f"shufflenet_v1_g{groups}_{percent:03}": _variant(groups, percent) for groups, percent in FIGURES}


@register(VARIANTS, prefix="shufflenet_v1_")
def ShuffleNetV1(
    images: KerasTensor, *, groups: int, stem: int, stages: tuple[Row, ...], width: float = 1.0
) -> Network:
    """Builds a ShuffleNet V1 image classifier.

    Feature maps are ceil(side / stride) pixels wide.

    Args:
        groups, stem, stages: Groups of the 1x1 convolutions, channels of the stem, and the variant's table.
        width: Multiplier of the table's channels, above 0. Unless it is 1, every convolution's channels are rounded to
            multiples of 8 that the groups divide. The stem is never made narrower.
        input_shape: (height, width, channels), with sides of at least 32 pixels, of which one may be None (any size),
            and at least 1 channel. None uses the variant's own size and channels.
    """
    if width != 1:  # a unit is a quarter as wide inside, and the groups must divide both widths
        stem = make_divisible(stem * max(width, 1.0), math.lcm(8, groups))
        stages = tuple(Row(make_divisible(c * width, math.lcm(32, 4 * groups)), n) for c, n in stages)
    x = conv_bn(images, stem, 3, stride=2, activation="relu", name="stem")
    features = {"stride_2": x}
    x = max_pool(x, 3, stride=2, name="stem_pool")
    features["stride_4"] = x
    for s, row in enumerate(stages):
        for b in range(row.repeats):
            x = grouped_shuffle_unit(
                x, row.channels, groups=groups, first=s == b == 0, stride=1 if b else 2, name=f"stage{s}_block{b}"
            )
        features[f"stride_{8 * 2**s}"] = x
    return Network(features, x, functools.partial(pooled_classifier, bias=False))
