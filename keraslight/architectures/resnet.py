"""ResNet: deep residual learning for image recognition.

Source: He et al., CVPR 2016, https://arxiv.org/abs/1512.03385, table 1.
This is version 1.5, as in timm and torchvision: a bottleneck's stride is on its 3x3 convolution, where the paper (and
`keras.applications`, whose ResNet50 costs 3.86 GMACs) has it on the first 1x1. Shortcuts that change the shape are 1x1
convolutions (the paper's option B). Left open by the paper: symmetric padding, batch-norm epsilon 1e-5.
Drop path (Huang et al., https://arxiv.org/abs/1603.09382) defaults to 0.
"""

import functools
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.pool import max_pool
from keraslight.blocks.residual import basic_block, bottleneck_block, drop_rates
from keraslight.blocks.stride import OutputStride
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage of table 1: `repeats` blocks, the first of them with `stride`."""

    channels: int
    repeats: int
    stride: int


# Output sides at 224 pixels:       56              28              14             7
R18 = (Row(64, 2, 1), Row(128, 2, 2), Row(256, 2, 2), Row(512, 2, 2))
R34 = (Row(64, 3, 1), Row(128, 4, 2), Row(256, 6, 2), Row(512, 3, 2))
R50 = (Row(64, 3, 1), Row(128, 4, 2), Row(256, 6, 2), Row(512, 3, 2))
R101 = (Row(64, 3, 1), Row(128, 4, 2), Row(256, 23, 2), Row(512, 3, 2))
R152 = (Row(64, 3, 1), Row(128, 8, 2), Row(256, 36, 2), Row(512, 3, 2))

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "resnet18": Variant({"stages": R18, "expansion": None}, 224, 11_689_512, 1_814_073_344, "timm/resnet18.a1_in1k"),
    "resnet34": Variant({"stages": R34, "expansion": None}, 224, 21_797_672, 3_663_761_408, "timm/resnet34.a1_in1k"),
    "resnet50": Variant({"stages": R50, "expansion": 4}, 224, 25_557_032, 4_089_184_256, "timm/resnet50.a1_in1k"),
    "resnet101": Variant({"stages": R101, "expansion": 4}, 224, 44_549_160, 7_801_405_440, "timm/resnet101.a1h_in1k"),
    "resnet152": Variant({"stages": R152, "expansion": 4}, 224, 60_192_808, 11_513_626_624, "timm/resnet152.a1h_in1k"),
}


@register(VARIANTS, prefix="resnet")
def ResNet(
    images: KerasTensor,
    *,
    stages: tuple[Row, ...],
    expansion: int | None,
    style: ConvStyle = TORCH,
    width: float = 1.0,
    output_stride: int = 32,
    drop_path: float = 0.0,
) -> Network:
    """Builds a ResNet image classifier.

    Feature maps are ceil(side / stride) pixels wide.

    Args:
        stages: The variant's table.
        expansion: Output channels of a bottleneck, as a multiple of its inner channels. None builds basic blocks of two
            3x3 convolutions.
        style: Padding of convolutions and max pooling, and batch normalization.
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8.
        output_stride: Stride of the last map: 8, 16 or 32. Below 32, later strides become dilations of the 3x3
            convolutions, with the same weights. As in torchvision, a stage's first block keeps the dilation before it.
        drop_path: Drop path rate of the last block, in [0, 1), rising linearly from 0 over all blocks.
    """
    strides = OutputStride(output_stride, 4)
    x = conv_bn(images, make_divisible(64 * width), 7, stride=2, activation="relu", style=style, name="stem")
    features = {"stride_2": x}
    x = max_pool(x, 3, stride=2, style=style, name="stem_pool")
    block = basic_block if expansion is None else functools.partial(bottleneck_block, expansion=expansion)
    rates = drop_rates(drop_path, sum(row.repeats for row in stages))
    for s, row in enumerate(stages):
        channels = make_divisible(row.channels * width)
        for b in range(row.repeats):
            dilation = strides.dilation  # before the step, which may raise it: the previous one
            stride = strides.step(row.stride if b == 0 else 1)
            x = block(
                x,
                channels,
                stride=stride,
                dilation=dilation,
                drop_path=next(rates),
                style=style,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{strides.total}"] = x
    return Network(features, x)
