"""VGG: very deep convolutional networks for large-scale image recognition.

Source: Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556, table 1, columns A, B, D and E.
The variants with batch norm are torchvision's: it follows every 3x3 convolution, which keeps its bias. The three dense
layers are convolutions that cover the 7x7 map of a 224-pixel image, so that larger images also work: they are evaluated
at every place and averaged, as in the paper's section 3.2 (timm does so too; torchvision averages the map to 7x7
instead, which is the same for 224 to 255 pixels only). On images below 224 pixels the first dense layer covers
the smaller map, and published weights don't fit. Dropout is the paper's 0.5 after the first two of them. timm and
torchvision agree on all else. Poolings round down: the features are floor(side / stride) pixels wide.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, conv, make_divisible
from keraslight.blocks.model import backbone, classifier, drop, feature_model, fully_connected, image_input
from keraslight.registry import Variant, register


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
VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "vgg11": Variant({"stages": A, **PLAIN}, 224, 132_863_336, 7_609_090_048, "timm/vgg11.tv_in1k"),
    "vgg13": Variant({"stages": B, **PLAIN}, 224, 133_047_848, 11_308_466_176, "timm/vgg13.tv_in1k"),
    "vgg16": Variant({"stages": D, **PLAIN}, 224, 138_357_544, 15_470_264_320, "timm/vgg16.tv_in1k"),
    "vgg19": Variant({"stages": E, **PLAIN}, 224, 143_667_240, 19_632_062_464, "timm/vgg19.tv_in1k"),
    "vgg11_bn": Variant({"stages": A, **NORMALIZED}, 224, 132_868_840, 7_609_090_048, "timm/vgg11_bn.tv_in1k"),
    "vgg13_bn": Variant({"stages": B, **NORMALIZED}, 224, 133_053_736, 11_308_466_176, "timm/vgg13_bn.tv_in1k"),
    "vgg16_bn": Variant({"stages": D, **NORMALIZED}, 224, 138_365_992, 15_470_264_320, "timm/vgg16_bn.tv_in1k"),
    "vgg19_bn": Variant({"stages": E, **NORMALIZED}, 224, 143_678_248, 19_632_062_464, "timm/vgg19_bn.tv_in1k"),
}


@register(VARIANTS, prefix="vgg")
def VGG(
    *,
    stages: tuple[Row, ...],
    batch_norms: bool,
    style: ConvStyle = TORCH,
    width: float = 1.0,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float = 0.5,
    name: str,
) -> keras.Model:
    """Builds a VGG image classifier.

    Args:
        stages: The variant's column of the table; given by `variant`.
        batch_norms: Whether every convolution is followed by a batch norm; given by `variant`.
        style: What batch norms add; no convolution has a stride, so its padding makes no difference.
        width: Multiplier of all channels, the 4096 of the dense layers too, more than 0, rounded to multiples of 8.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (at least 224), 1+ channels.
            None is 224 x 224 with 3 channels. Published weights need at least 224 pixels with the top.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the three dense layers; otherwise the model gives the last pooling's map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: After each of the first two dense layers, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are floor(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    x = images = image_input(input_shape, input_tensor)
    features = {}
    for s, row in enumerate(stages):
        for c in range(row.repeats):
            part = f"stage{s}_conv{c}"
            x = conv(x, make_divisible(row.channels * width), 3, style=style, name=part)
            if batch_norms:
                x = batch_norm(x, style=style, name=f"{part}_bn")
            x = activate(x, "relu", name=f"{part}_act")
        features[f"stride_{2**s}"] = x
        x = layers.MaxPooling2D(2, name=f"stage{s}_pool")(x)
    features[f"stride_{2 ** len(stages)}"] = x
    if features_only:
        del features["stride_1"]
        return feature_model(images, features, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    units = make_divisible(4096 * width)
    x = fully_connected(x, units, side=7, name="fc1")
    x = drop(x, dropout, name="fc1_dropout")
    x = fully_connected(x, units, name="fc2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
