"""VGG: very deep convolutional networks for large-scale image recognition.

Source: Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556, table 1, columns A, B, D and E.
The variants with batch norm are torchvision's: it follows every 3x3 convolution, which keeps its bias. The three dense
layers are convolutions that cover the 7x7 map of a 224-pixel image, so that larger images work too: they are evaluated
at every position and averaged, as in the paper's section 3.2 and in timm (torchvision averages the map to 7x7 instead,
which is only the same for 224 to 255 pixels). On images below 224 pixels the first dense layer covers the smaller map,
and published weights don't fit. Dropout is the paper's 0.5, after the first two dense layers. timm and torchvision
agree on everything else. Poolings round down: the features are floor(side / stride) pixels wide.
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, conv, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Head, Network, drop, fully_connected, pooled_classifier
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage of table 1: `repeats` 3x3 convolutions, then a 2x2 pooling."""

    channels: int
    repeats: int


# Sides at 224 pixels, before pooling: 224, 112, 56, 28, 14
A = (Row(64, 1), Row(128, 1), Row(256, 2), Row(512, 2), Row(512, 2))
B = (Row(64, 2), Row(128, 2), Row(256, 2), Row(512, 2), Row(512, 2))
D = (Row(64, 2), Row(128, 2), Row(256, 3), Row(512, 3), Row(512, 3))
E = (Row(64, 2), Row(128, 2), Row(256, 4), Row(512, 4), Row(512, 4))

PLAIN, NORMALIZED = {"batch_norms": False}, {"batch_norms": True}
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "vgg11": Variant({"stages": A, **PLAIN}, 224, 132_863_336, 7_609_090_048, "timm/vgg11.tv_in1k"),
    "vgg13": Variant({"stages": B, **PLAIN}, 224, 133_047_848, 11_308_466_176, "timm/vgg13.tv_in1k"),
    "vgg16": Variant({"stages": D, **PLAIN}, 224, 138_357_544, 15_470_264_320, "timm/vgg16.tv_in1k"),
    "vgg19": Variant({"stages": E, **PLAIN}, 224, 143_667_240, 19_632_062_464, "timm/vgg19.tv_in1k"),
    "vgg11_bn": Variant({"stages": A, **NORMALIZED}, 224, 132_868_840, 7_609_090_048, "timm/vgg11_bn.tv_in1k"),
    "vgg13_bn": Variant({"stages": B, **NORMALIZED}, 224, 133_053_736, 11_308_466_176, "timm/vgg13_bn.tv_in1k"),
    "vgg16_bn": Variant({"stages": D, **NORMALIZED}, 224, 138_365_992, 15_470_264_320, "timm/vgg16_bn.tv_in1k"),
    "vgg19_bn": Variant({"stages": E, **NORMALIZED}, 224, 143_678_248, 19_632_062_464, "timm/vgg19_bn.tv_in1k"),
}


@register(VARIANTS, prefix="vgg", dropout=0.5)
def VGG(
    images: KerasTensor, *, stages: tuple[Row, ...], batch_norms: bool, style: ConvStyle = TORCH, width: float = 1.0
) -> Network:
    """Builds a VGG image classifier.

    Feature maps are floor(side / stride) pixels wide.

    Args:
        stages: The variant's column of the table.
        batch_norms: Whether every convolution is followed by batch norm.
        style: Batch normalization. Its padding makes no difference, since no convolution has a stride.
        width: Multiplier of all channels, including the 4096 of the dense layers, above 0. Channels are rounded to
            multiples of 8.
        input_shape: (height, width, channels), with sides of at least 32 pixels or None (at least 224), and at least 1
            channel. None uses 224 x 224 pixels and 3 channels. With the top, published weights need at least 224
            pixels.
        dropout: Dropout rate after each of the first two dense layers, in [0, 1).
    """
    x, features = images, {}
    for s, row in enumerate(stages):
        for c in range(row.repeats):
            part = f"stage{s}_conv{c}"
            x = conv(x, make_divisible(row.channels * width), 3, style=style, name=part)
            if batch_norms:
                x = batch_norm(x, style=style, name=f"{part}_bn")
            x = activate(x, "relu", name=f"{part}_act")
        if s:
            features[f"stride_{2**s}"] = x
        x = layers.MaxPooling2D(2, name=f"stage{s}_pool")(x)
    features[f"stride_{2 ** len(stages)}"] = x

    def top(x: KerasTensor, head: Head) -> KerasTensor:
        units = make_divisible(4096 * width)
        x = fully_connected(x, units, side=7, name="fc1")
        x = drop(x, head.dropout, name="fc1_dropout")
        return pooled_classifier(fully_connected(x, units, name="fc2"), head)

    return Network(features, x, top)
