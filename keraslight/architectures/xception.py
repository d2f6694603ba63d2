"""Xception: deep learning with depthwise separable convolutions.

Source: Chollet, CVPR 2017, https://arxiv.org/abs/1610.02357, figure 5.
Nothing stands between a depthwise convolution and its 1x1 convolution; ReLU comes before each such pair, except at the
start, where the stem has just applied it, and in the exit flow's last two, where it comes after. The stem does not pad.
Padding of the max pools and epsilon as timm; `style=TENSORFLOW` is the Keras net. Dropout defaults to 0, the paper
trains with 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, make_divisible
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.separable import separable_bn, xception_module
from keraslight.registry import Variant, register


class Row(NamedTuple):
    """A residual module: the channels of its separable convolutions; stride 2 is a max pool and a 1x1 shortcut."""

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

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "xception": Variant({"stages": STAGES}, 299, 22_855_952, 8_357_403_496, "timm/legacy_xception.tf_in1k"),
}


@register(VARIANTS, prefix="xception_")
def Xception(
    *,
    stages: tuple[tuple[Row, ...], ...],
    width: float = 1.0,
    style: ConvStyle = TORCH,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float = 0.0,
    name: str,
) -> keras.Model:
    """Builds an Xception image classifier.

    Args:
        stages: The modules of each resolution; given by `variant`.
        width: Multiplier of all channels, more than 0; other than 1, they are rounded to multiples of 8.
        style: Padding of the max pools and batch normalization.
        input_shape: (height, width, channels): sides of at least 32 pixels, 1+ channels; None leaves a side open.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the last map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`; those of
            stride 4 to 16 are sums before their ReLU.
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes). The stem takes a few pixels off: features of stride 2 have
        (side - 5) // 2 of them, each further one half of the last, rounded up.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """

    def scaled(channels: int) -> int:
        return channels if width == 1 else make_divisible(channels * width)

    images = image_input(input_shape, input_tensor)
    features = {}
    x = images
    for n, (channels, stride) in enumerate(zip(STEM, (2, 1), strict=True)):
        x = layers.Conv2D(scaled(channels), 3, strides=stride, use_bias=False, name=f"stem{n}")(x)
        x = activate(batch_norm(x, style=style, name=f"stem{n}_bn"), "relu", name=f"stem{n}_act")
    features["stride_2"] = x
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
    if features_only:
        return feature_model(images, {**features, f"stride_{2 * 2 ** len(stages)}": x}, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
