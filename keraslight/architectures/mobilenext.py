"""MobileNeXt: sandglass blocks, the bottleneck turned inside out.

Source: Zhou et al., ECCV 2020, https://arxiv.org/abs/2007.02269, table 2, as released by the authors
(https://github.com/zhoudaquan/rethinking_bottleneck_design, mnext.py): there the 960-channel stage has 3 blocks, the
waist is at least a sixth of the output, rounded to multiples of 16, and below width 1 the last 1280 channels are kept.
Narrow networks therefore have more parameters than the paper says. The identity uses all channels (a tensor multiplier
of 1). Symmetric padding and batch-norm epsilon 1e-5. Dropout and drop path default to 0; the authors train with
dropout 0.2.
"""

import math
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.residual import drop_rates
from keraslight.blocks.sandglass import sandglass
from keraslight.registry import Variant


class Row(NamedTuple):
    """A row of table 2: `repeats` blocks, the first of them with `stride`. A single block keeps all its layers."""

    reduction: int
    channels: int
    repeats: int
    stride: int


STAGES = (  # output sides of a 224x224 image
    Row(2, 96, 1, 2),  # 56
    Row(6, 144, 1, 1),  # 56
    Row(6, 192, 3, 2),  # 28
    Row(6, 288, 3, 2),  # 14
    Row(6, 384, 4, 1),  # 14
    Row(6, 576, 4, 2),  # 7
    Row(6, 960, 3, 1),  # 7
    Row(6, 1280, 1, 1),  # 7
)
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "mobilenext_100": Variant({"width": 1.0}, 224, 3_535_416, 311_342_592, "ref/mobilenext_100"),
    "mobilenext_035": Variant({"width": 0.35}, 224, 1_913_976, 75_141_032, "ref/mobilenext_035"),
    "mobilenext_050": Variant({"width": 0.5}, 224, 2_152_304, 103_256_448, "ref/mobilenext_050"),
    "mobilenext_075": Variant({"width": 0.75}, 224, 2_766_168, 207_926_720, "ref/mobilenext_075"),
    "mobilenext_140": Variant({"width": 1.4}, 224, 6_126_168, 588_319_256, "ref/mobilenext_140"),
}


@register(VARIANTS, prefix="mobilenext_")
def MobileNeXt(images: KerasTensor, *, width: float, drop_path: float = 0.0) -> Network:
    """Builds a MobileNeXt image classifier.

    Feature maps are ceil(side / stride) pixels wide.

    Args:
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8. The last 1280 are only
            scaled above 1.
        drop_path: Drop path rate of the last block, in [0, 1), rising linearly from 0 over all blocks.
    """
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="relu6", style=TORCH, name="stem")
    features, total_stride = {"stride_2": x}, 2
    rates = drop_rates(drop_path, sum(row.repeats for row in STAGES))
    for s, row in enumerate(STAGES):
        channels = make_divisible(row.channels * (max(width, 1.0) if s == len(STAGES) - 1 else width))
        for b in range(row.repeats):
            x = sandglass(
                x,
                channels,
                reduced=waist(x.shape[-1], channels, row.reduction),
                stride=row.stride if b == 0 else 1,
                spatial=row.repeats == 1,
                drop_path=next(rates),
                name=f"stage{s}_block{b}",
            )
        total_stride *= row.stride
        features[f"stride_{total_stride}"] = x
    return Network(features, x)


def waist(in_channels: int, channels: int, reduction: int) -> int:
    """Returns the channels between reduction and expansion: at least a sixth of the output."""
    reduced = in_channels // reduction
    return reduced if reduced >= channels / 6 else make_divisible(math.ceil(channels / 6), 16)
