"""ShuffleNet V2+: ShuffleNet V2 with hard swish, squeeze-and-excitation and searched kernels.

Source: the authors' code, https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV2+); there is no paper. The
units of V2 are Ma et al., ECCV 2018, https://arxiv.org/abs/1807.11164; the searched list of kernels is that of Guo et
al., "Single Path One-Shot Neural Architecture Search", ECCV 2020, https://arxiv.org/abs/1904.00420.
No convolution or dense layer has a bias, the classifier included. Dropout defaults to 0; the authors train with 0.2.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import activate, conv_bn, make_divisible
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.shuffle import shuffle_plus_unit, squeeze_excite_bn
from keraslight.registry import Variant, register


class Row(NamedTuple):
    """A stage: the depthwise kernel of each unit, None for the Xception form; the first unit has stride 2."""

    channels: int
    kernels: tuple[int | None, ...]
    activation: str
    attention: bool


def _stages(*channels: int) -> tuple[Row, ...]:
    return (
        Row(channels[0], (3, 3, None, 5), "relu", False),  # 56x56
        Row(channels[1], (5, 5, 3, 3), "hard_silu", False),  # 28x28
        Row(channels[2], (7, 3, 7, 5, 5, 3, 7, 3), "hard_silu", True),  # 14x14
        Row(channels[3], (7, 5, None, 7), "hard_silu", True),  # 7x7
    )


VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "shufflenet_v2_plus_small": Variant(
        {"stages": _stages(36, 104, 208, 416)}, 224, 5_137_116, 155_845_008, "ref/shufflenet_v2_plus_small"
    ),
    "shufflenet_v2_plus_medium": Variant(
        {"stages": _stages(48, 128, 256, 512)}, 224, 5_679_840, 222_249_984, "ref/shufflenet_v2_plus_medium"
    ),
    "shufflenet_v2_plus_large": Variant(
        {"stages": _stages(68, 168, 336, 672)}, 224, 6_768_220, 360_050_704, "ref/shufflenet_v2_plus_large"
    ),
}


@register(VARIANTS, prefix="shufflenet_v2_plus_")
def ShuffleNetV2Plus(
    *,
    stages: tuple[Row, ...],
    stem: int = 16,
    head: int = 1280,
    width: float = 1.0,
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
    """Builds a ShuffleNet V2+ image classifier.

    Args:
        stages, stem, head: The variant's table; given by `variant`.
        width: Multiplier of the table's channels, more than 0; other than 1, every convolution's channels are rounded
            to multiples of 8. Stem and head are never made narrower.
        input_shape: (height, width, channels): sides of at least 32 pixels, 1+ channels. None is the variant's own
            size with 3 channels; a side that is None stays open.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the head's map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are ceil(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    divisor = 1 if width == 1 else 8
    images = image_input(input_shape, input_tensor)
    features = {}
    stem, head = (make_divisible(channels * max(width, 1.0), divisor) for channels in (stem, head))
    x = conv_bn(images, stem, 3, stride=2, activation="hard_silu", name="stem")
    features["stride_2"] = x
    for s, row in enumerate(stages):
        for b, kernel in enumerate(row.kernels):
            x = shuffle_plus_unit(
                x,
                make_divisible(row.channels * width, 2 * divisor),
                kernel=kernel,
                stride=1 if b else 2,
                activation=row.activation,
                attention=row.attention,
                divisor=divisor,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{4 * 2**s}"] = x
    if features_only:
        return feature_model(images, features, name=name)
    x = conv_bn(x, head, 1, activation="hard_silu", name="head")
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = squeeze_excite_bn(x, head // 4, name="head_se")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(head, use_bias=False, name="head_dense")(x)
    x = activate(x, "hard_silu", name="head_dense_act")
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, bias=False, name=name
    )
