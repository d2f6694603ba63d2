"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters.

Source: Iandola et al., 2016, https://arxiv.org/abs/1602.07360, table 1, for 1.0; the authors' SqueezeNet v1.1
(https://github.com/forresti/SqueezeNet) for 1.1. Built as torchvision does: the stem does not pad, poolings round up,
and the last convolution does not pad either (the authors' 1.0 pads it by one pixel, which changes no weight). The
logits pass a ReLU before they are averaged, so none is negative. Dropout is the paper's 0.5. The last stride is 16.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import activate, conv, make_divisible
from keraslight.blocks.model import backbone, convolutional_classifier, feature_model, image_input
from keraslight.blocks.pool import max_pool_ceil
from keraslight.registry import Variant, register


class Stem(NamedTuple):
    """The first convolution, stride 2."""

    kernel: int
    channels: int


class Fire(NamedTuple):
    """Squeezes to `squeeze` channels, then expands by as many 1x1 as 3x3 kernels."""

    squeeze: int
    expand: int


# Every stage begins with a 3x3 pooling of stride 2; output sides at 224 pixels.
V1_0 = (
    (Fire(16, 64), Fire(16, 64), Fire(32, 128)),  # 54
    (Fire(32, 128), Fire(48, 192), Fire(48, 192), Fire(64, 256)),  # 27
    (Fire(64, 256),),  # 13
)
V1_1 = (
    (Fire(16, 64), Fire(16, 64)),  # 55
    (Fire(32, 128), Fire(32, 128)),  # 27
    (Fire(48, 192), Fire(48, 192), Fire(64, 256), Fire(64, 256)),  # 13
)

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "squeezenet_1_0": Variant(
        {"stem": Stem(7, 96), "stages": V1_0}, 224, 1_248_424, 818_924_576, "torchvision/squeezenet1_0"
    ),
    "squeezenet_1_1": Variant(
        {"stem": Stem(3, 64), "stages": V1_1}, 224, 1_235_496, 349_151_936, "torchvision/squeezenet1_1"
    ),
}


@register(VARIANTS, prefix="squeezenet_")
def SqueezeNet(
    *,
    stem: Stem,
    stages: tuple[tuple[Fire, ...], ...],
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
    """Builds a SqueezeNet image classifier.

    Args:
        stem, stages: The variant's table; given by `variant`.
        width: Multiplier of all channels, more than 0, rounded to multiples of 8.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (any size), 1+ channels. None is
            224 x 224 with 3 channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the last fire module's map.
        classes: Number of classes.
        classifier_activation: None returns logits, which are never negative.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_16": ...}`.
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes). As the stem does not pad, features lose up to two pixels.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor)
    x = layers.Conv2D(make_divisible(stem.channels * width), stem.kernel, strides=2, padding="valid", name="stem")(
        images
    )
    x = activate(x, "relu", name="stem_act")
    features = {"stride_2": x}
    number = 2  # the paper counts the stem as the first layer
    for s, stage in enumerate(stages):
        x = max_pool_ceil(x, 3, name=f"stage{s}_pool")
        for row in stage:
            x = _fire(x, make_divisible(row.squeeze * width), make_divisible(row.expand * width), name=f"fire{number}")
            number += 1
        features[f"stride_{4 * 2**s}"] = x
    if features_only:
        return feature_model(images, features, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    return convolutional_classifier(
        images,
        x,
        classes=classes,
        classifier_activation=classifier_activation,
        dropout=dropout,
        activation="relu",
        name=name,
    )


def _fire(x: keras.KerasTensor, squeeze: int, expand: int, *, name: str) -> keras.KerasTensor:
    """(B, H, W, C) -> (B, H, W, 2 * expand), figure 1."""
    x = activate(conv(x, squeeze, 1, name=f"{name}_squeeze"), "relu", name=f"{name}_squeeze_act")
    ways = [
        activate(conv(x, expand, kernel, name=part), "relu", name=f"{part}_act")
        for kernel, part in ((1, f"{name}_expand1x1"), (3, f"{name}_expand3x3"))
    ]
    return layers.Concatenate(name=f"{name}_concat")(ways)
