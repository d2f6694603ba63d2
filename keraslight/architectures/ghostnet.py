"""GhostNet: more features from cheap operations.

Source: Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907, table 1 with the widths of table 7. What the paper
leaves open is taken from the authors' code, which timm reproduces: channels rounded to multiples of 4, a squeeze of a
quarter of the expanded width, symmetric padding, batch-norm epsilon 1e-5, and a final 1280-channel convolution that is
not scaled and has a bias instead of batch norm. The authors' code crops a ghost module's output to its width; all
widths are even, so there is nothing to crop. Dropout and drop path default to 0; the authors train with dropout 0.2.
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, activate, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.ghost import ghost_bottleneck
from keraslight.blocks.model import Head, Network, classifier
from keraslight.blocks.residual import drop_rates
from keraslight.registry import Variant


class Row(NamedTuple):
    """A ghost bottleneck of table 1."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    stride: int = 1


STAGES = (  # output sides of a 224x224 image
    (Row(3, 16, 16, False),),  # 112
    (Row(3, 48, 24, False, 2), Row(3, 72, 24, False)),  # 56
    (Row(5, 72, 40, True, 2), Row(5, 120, 40, True)),  # 28
    (  # 14
        Row(3, 240, 80, False, 2),
        Row(3, 200, 80, False),
        *2 * (Row(3, 184, 80, False),),
        Row(3, 480, 112, True),
        Row(3, 672, 112, True),
    ),
    (  # 7
        Row(5, 672, 160, True, 2),
        *2 * (Row(5, 960, 160, False), Row(5, 960, 160, True)),
    ),
)
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "ghostnet_100": Variant({"width": 1.0}, 224, 5_182_508, 141_150_512, "timm/ghostnet_100.in1k"),
    "ghostnet_050": Variant({"width": 0.5}, 224, 2_587_292, 42_328_152, None),
    "ghostnet_130": Variant({"width": 1.3}, 224, 7_358_820, 227_003_256, None),
}


@register(VARIANTS, prefix="ghostnet_")
def GhostNet(images: KerasTensor, *, width: float, drop_path: float = 0.0) -> Network:
    """Builds a GhostNet image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the 960-channel map.

    Args:
        width: Multiplier of all channels except the last 1280, above 0. Channels are rounded to multiples of 4.
        drop_path: Drop path rate of the last block, in [0, 1), rising linearly from 0 over all blocks.
    """

    def scaled(channels: float) -> int:
        return make_divisible(channels * width, 4)

    x = conv_bn(images, scaled(16), 3, stride=2, activation="relu", style=TORCH, name="stem")
    features, stride = {}, 2
    rates = drop_rates(drop_path, sum(map(len, STAGES)))
    for s, stage in enumerate(STAGES):
        for b, row in enumerate(stage):
            expanded = scaled(row.expanded)
            x = ghost_bottleneck(
                x,
                scaled(row.channels),
                expanded=expanded,
                kernel=row.kernel,
                stride=row.stride,
                squeezed=make_divisible(expanded / 4, 4) if row.squeeze else 0,
                drop_path=next(rates),
                name=f"stage{s}_block{b}",
            )
            stride *= row.stride
        features[f"stride_{stride}"] = x
    return Network(features, conv_bn(x, scaled(960), 1, activation="relu", style=TORCH, name="head_expand"), _top)


def _top(x: KerasTensor, head: Head) -> KerasTensor:
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Conv2D(1280, 1, name="head")(x)
    return classifier(activate(x, "relu", name="head_act"), head)
