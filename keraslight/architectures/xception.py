"""Xception: deep learning with depthwise separable convolutions.

Source: Chollet, CVPR 2017, https://arxiv.org/abs/1610.02357, figure 5.
There is nothing between a depthwise convolution and its 1x1 convolution. ReLU precedes each such pair, except for the
first one, where the stem has just applied it, and the exit flow's last two, which it follows. The stem doesn't pad.
Padding of the max pools and epsilon as in timm; `style=TENSORFLOW` is the Keras network. Dropout defaults to 0; the
paper trains with 0.5.
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.separable import separable_bn, xception_module
from keraslight.registry import Variant


class Row(NamedTuple):
    """A residual module: channels of its separable convolutions. Stride 2 adds a max pool and a 1x1 shortcut."""

    channels: tuple[int, ...]
    stride: int


STEM = (32, 64)
STAGES = (
    (Row((128, 128), 2),),  # 74x74
    (Row((256, 256), 2),),  # 37x37
    (Row((728, 728), 2), *8 * (Row((728, 728, 728), 1),)),  # 19x19; the eight are the middle flow
    (Row((728, 1024), 2),),  # 10x10
)
HEAD = (1536, 2048)

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "xception": Variant({"stages": STAGES}, 299, 22_855_952, 8_357_403_496, "timm/legacy_xception.tf_in1k")
}


@register(VARIANTS, prefix="xception_")
def Xception(
    images: KerasTensor, *, stages: tuple[tuple[Row, ...], ...], width: float = 1.0, style: ConvStyle = TORCH
) -> Network:
    """Builds an Xception image classifier.

    The stem doesn't pad: features of stride 2 are (side - 5) // 2 pixels wide, each further one half as wide as the
    previous one, rounded up. Those of stride 4 to 16 are sums before their ReLU.

    Args:
        stages: Modules of each resolution.
        width: Multiplier of all channels, above 0. Unless it is 1, they are rounded to multiples of 8.
        style: Padding of the max pools, and batch normalization.
    """

    def scaled(channels: int) -> int:
        return channels if width == 1 else make_divisible(channels * width)

    x = images
    for n, (channels, stride) in enumerate(zip(STEM, (2, 1), strict=True)):
        x = layers.Conv2D(scaled(channels), 3, strides=stride, use_bias=False, name=f"stem{n}")(x)
        x = activate(batch_norm(x, style=style, name=f"stem{n}_bn"), "relu", name=f"stem{n}_act")
    features = {"stride_2": x}
    for s, rows in enumerate(stages):
        for b, row in enumerate(rows):
            x = xception_module(
                x,
                tuple(map(scaled, row.channels)),
                stride=row.stride,
                activate_first=not s == b == 0,
                style=style,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{4 * 2**s}"] = x
    for n, channels in enumerate(HEAD):
        x = separable_bn(x, scaled(channels), style=style, name=f"head{n}")
        x = activate(x, "relu", name=f"head{n}_act")
    features[f"stride_{2 * 2 ** len(stages)}"] = x
    return Network(features, x)
