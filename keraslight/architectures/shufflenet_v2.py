"""ShuffleNet V2: practical guidelines for efficient CNN architecture design.

Source: Ma et al., ECCV 2018, https://arxiv.org/abs/1807.11164, Table 5.
The released codes differ. The default is torchvision's network, whose weights are published: in the downsampling units
each branch produces half of the channels, the shuffle comes after the concatenation, and the classifier has a bias. The
authors' network (`..._megvii`, https://github.com/megvii-model/ShuffleNet-Series) keeps all channels in the shortcut
there, shuffles before the split, and has no bias in the classifier. Dropout defaults to 0; the authors train 2x with
0.2. The feature maps don't include the head's 1x1 convolution.
"""

import functools
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network, pooled_classifier
from keraslight.blocks.pool import max_pool, max_pool_signed
from keraslight.blocks.shuffle import shuffle_down, shuffle_plus_unit, shuffle_unit
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage of Table 5: one unit of stride 2, then `repeats` of stride 1."""

    channels: int
    repeats: int


def _stages(*channels: int) -> tuple[Row, ...]:
    return tuple(Row(c, n) for c, n in zip(channels, (3, 7, 3), strict=True))  # 28x28, 14x14, 7x7


X050, X100 = {"stages": _stages(48, 96, 192), "head": 1024}, {"stages": _stages(116, 232, 464), "head": 1024}
X150, X200 = {"stages": _stages(176, 352, 704), "head": 1024}, {"stages": _stages(244, 488, 976), "head": 2048}
MEGVII = {"shuffle_first": True}

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "shufflenet_v2_050": Variant(X050, 224, 1_366_792, 40_476_448, "torchvision/shufflenet_v2_x0_5"),
    "shufflenet_v2_100": Variant(X100, 224, 2_278_604, 144_907_992, "torchvision/shufflenet_v2_x1_0"),
    "shufflenet_v2_150": Variant(X150, 224, 3_503_624, 295_759_392, "torchvision/shufflenet_v2_x1_5"),
    "shufflenet_v2_200": Variant(X200, 224, 7_393_996, 583_253_464, "torchvision/shufflenet_v2_x2_0"),
    "shufflenet_v2_050_megvii": Variant({**X050, **MEGVII}, 224, 1_365_792, 40_476_448, "ref/shufflenet_v2_x0_5"),
    "shufflenet_v2_100_megvii": Variant({**X100, **MEGVII}, 224, 2_278_760, 145_814_296, "ref/shufflenet_v2_x1_0"),
    "shufflenet_v2_150_megvii": Variant({**X150, **MEGVII}, 224, 3_506_720, 298_970_656, "ref/shufflenet_v2_x1_5"),
    "shufflenet_v2_200_megvii": Variant({**X200, **MEGVII}, 224, 7_402_600, 590_783_000, "ref/shufflenet_v2_x2_0"),
}


@register(VARIANTS, prefix="shufflenet_v2_")
def ShuffleNetV2(
    images: KerasTensor,
    *,
    stages: tuple[Row, ...],
    head: int,
    shuffle_first: bool = False,
    stem: int = 24,
    activation: str = "relu",
    width: float = 1.0,
    style: ConvStyle = TORCH,
) -> Network:
    """Builds a ShuffleNet V2 image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the head's map.

    Args:
        stages, head, stem: The variant's table, and the channels of the head and the stem.
        shuffle_first: Whether units and classifier are those of the authors.
        activation: Activation after the stem and all 1x1 convolutions.
        width: Multiplier of the table's channels, above 0. Unless it is 1, both halves of a unit are rounded to
            multiples of 8. Stem and head are never made narrower.
        style: Padding and batch normalization.
        input_shape: (height, width, channels), with sides of at least 32 pixels, of which one may be None (any size),
            and at least 1 channel. None uses the variant's own size and channels.
    """
    x = conv_bn(images, _scaled(stem, max(width, 1.0), 8), 3, stride=2, activation=activation, style=style, name="stem")
    features = {"stride_2": x}
    pool = max_pool if activation in ("relu", "relu6") else max_pool_signed  # zeros would win over negative values
    x = pool(x, 3, stride=2, style=style, name="stem_pool")
    features["stride_4"] = x
    for s, row in enumerate(stages):
        channels = _scaled(row.channels, width, 16)
        for b in range(row.repeats + 1):
            block = f"stage{s}_block{b}"
            if shuffle_first:
                x = shuffle_plus_unit(x, channels, stride=1 if b else 2, activation=activation, style=style, name=block)
            elif b == 0:
                x = shuffle_down(x, channels, activation=activation, style=style, name=block)
            else:
                x = shuffle_unit(x, activation=activation, style=style, name=block)
        features[f"stride_{8 * 2**s}"] = x
    x = conv_bn(x, _scaled(head, max(width, 1.0), 8), 1, activation=activation, style=style, name="head")
    return Network(features, x, functools.partial(pooled_classifier, bias=not shuffle_first))


def _scaled(channels: int, width: float, divisor: int) -> int:
    return channels if width == 1 else make_divisible(channels * width, divisor)
