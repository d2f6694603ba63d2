"""AlexNet: ImageNet classification with deep convolutional neural networks.

Sources: `alexnet_2012`: Krizhevsky et al., NeurIPS 2012, figure 2 and section 3: two groups in the second, fourth and
fifth convolution (the paper's two GPUs), local response normalization after the first two. `alexnet`: Krizhevsky, "One
weird trick for parallelizing convolutional neural networks", https://arxiv.org/abs/1404.5997, as torchvision builds it:
narrower, without groups and without that normalization. The paper's 224-pixel input does not fit its figure; 227 pixels
do. The dense layers are convolutions that cover the last map (6x6 pixels at the reference size): on larger images they
are evaluated at every place and averaged (torchvision averages the map to 6x6 instead), on smaller ones the first
covers a smaller map, and published weights don't fit. Dropout is the paper's 0.5 after the first two of them
(torchvision drops their inputs).
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import activate, conv, make_divisible
from keraslight.blocks.model import backbone, classifier, drop, feature_model, fully_connected, image_input
from keraslight.layers import LocalResponseNorm
from keraslight.registry import Variant, register


class Row(NamedTuple):
    """A convolution with ReLU; `normalize` and `pool` (3x3, stride 2) follow where they are True."""

    kernel: int
    channels: int
    groups: int = 1
    normalize: bool = False
    pool: bool = False


OWT = (  # one weird trick; output sides at 224 pixels after the pooling
    Row(11, 64, pool=True),  # 27
    Row(5, 192, pool=True),  # 13
    Row(3, 384),
    Row(3, 256),
    Row(3, 256, pool=True),  # 6
)
Y2012 = (  # at 227 pixels
    Row(11, 96, normalize=True, pool=True),  # 27
    Row(5, 256, groups=2, normalize=True, pool=True),  # 13
    Row(3, 384),
    Row(3, 384, groups=2),
    Row(3, 256, groups=2, pool=True),  # 6
)

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "alexnet": Variant({"rows": OWT, "stem_padding": 2}, 224, 61_100_840, 714_188_480, "torchvision/alexnet"),
    "alexnet_2012": Variant({"rows": Y2012, "stem_padding": 0}, 227, 60_965_224, 724_406_816, None),
}

STEM_STRIDE = 4


@register(VARIANTS, prefix="alexnet_")
def AlexNet(
    *,
    rows: tuple[Row, ...],
    stem_padding: int,
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
    """Builds an AlexNet image classifier.

    Args:
        rows: The variant's convolutions; given by `variant`.
        stem_padding: Zeros around the image, in pixels; given by `variant`.
        width: Multiplier of all channels, the 4096 of the dense layers too, more than 0, rounded to multiples of 8.
        input_shape: (height, width, channels): sides of at least 67 pixels (63 with the padding) or None, 1+ channels.
            None is the variant's own size with 3 channels. Published weights need at least 224 pixels with the top.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the three dense layers; otherwise the model gives the last pooling's map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_4": ..., ..., "stride_32": ...}`.
        dropout: After each of the first two dense layers, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes). No pooling pads, so features lose up to two pixels to the border.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    x = images = image_input(input_shape, input_tensor, min_size=67 - 2 * stem_padding)
    if stem_padding:
        x = layers.ZeroPadding2D(stem_padding, name="conv1_pad")(x)
    features, stride = {}, STEM_STRIDE
    for c, row in enumerate(rows, start=1):
        part, channels = f"conv{c}", make_divisible(row.channels * width)
        if c == 1:
            x = layers.Conv2D(channels, row.kernel, strides=STEM_STRIDE, padding="valid", name=part)(x)
        else:
            x = conv(x, channels, row.kernel, groups=row.groups, name=part)
        x = activate(x, "relu", name=f"{part}_act")
        features[f"stride_{stride}"] = x
        if row.normalize:
            x = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, bias=2.0, name=f"{part}_norm")(x)
        if row.pool:
            x = layers.MaxPooling2D(3, strides=2, name=f"{part}_pool")(x)
            stride *= 2
    features[f"stride_{stride}"] = x
    if features_only:
        return feature_model(images, features, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    units = make_divisible(4096 * width)
    x = fully_connected(x, units, side=6, name="fc1")
    x = drop(x, dropout, name="fc1_dropout")
    x = fully_connected(x, units, name="fc2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
