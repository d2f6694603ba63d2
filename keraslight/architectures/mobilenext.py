"""MobileNeXt: sandglass blocks, the bottleneck turned inside out.

Source: Zhou et al., ECCV 2020, https://arxiv.org/abs/2007.02269, table 2, as released by the authors
(https://github.com/zhoudaquan/rethinking_bottleneck_design, mnext.py): there the 960-channel stage has 3 blocks, the
waist is at least a sixth of the output, rounded to multiples of 16, and the last 1280 channels are kept below width 1.
So narrow nets have more parameters than the paper says. The identity takes all channels (a tensor multiplier of 1).
Symmetric padding and batch-norm epsilon 1e-5. Dropout and drop path default to 0; the authors train with dropout 0.2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, conv_bn, make_divisible
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.sandglass import sandglass
from keraslight.registry import Variant, register


class Row(NamedTuple):
    """A line of table 2: `repeats` blocks, of which the first has `stride`; a single block keeps all its layers."""

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
VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "mobilenext_100": Variant({"width": 1.0}, 224, 3_535_416, 311_342_592, "ref/mobilenext_100"),
    "mobilenext_035": Variant({"width": 0.35}, 224, 1_913_976, 75_141_032, "ref/mobilenext_035"),
    "mobilenext_050": Variant({"width": 0.5}, 224, 2_152_304, 103_256_448, "ref/mobilenext_050"),
    "mobilenext_075": Variant({"width": 0.75}, 224, 2_766_168, 207_926_720, "ref/mobilenext_075"),
    "mobilenext_140": Variant({"width": 1.4}, 224, 6_126_168, 588_319_256, "ref/mobilenext_140"),
}


@register(VARIANTS, prefix="mobilenext_")
def MobileNeXt(
    *,
    width: float,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    name: str,
) -> keras.Model:
    """Builds a MobileNeXt image classifier.

    Args:
        width: Multiplier of all channels, more than 0, rounded to multiples of 8; of the last 1280 only above 1.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (open), 1+ channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the 1280-channel map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        drop_path: Of the last block, in [0, 1); rises linearly from 0 over all blocks.
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are ceil(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor)
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="relu6", style=TORCH, name="stem")

    features, total_stride = {"stride_2": x}, 2
    index, last = 0, sum(row.repeats for row in STAGES) - 1
    for s, row in enumerate(STAGES):
        channels = make_divisible(row.channels * (max(width, 1.0) if s == len(STAGES) - 1 else width))
        for b in range(row.repeats):
            x = sandglass(
                x,
                channels,
                reduced=waist(x.shape[-1], channels, row.reduction),
                stride=row.stride if b == 0 else 1,
                spatial=row.repeats == 1,
                drop_path=drop_path * index / last,
                name=f"stage{s}_block{b}",
            )
            index += 1
        total_stride *= row.stride
        features[f"stride_{total_stride}"] = x
    if features_only:
        return feature_model(images, features, name=name)

    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )


def waist(in_channels: int, channels: int, reduction: int) -> int:
    """Channels between reduction and expansion: `in_channels // reduction`, but at least a sixth of the output."""
    reduced = in_channels // reduction
    return reduced if reduced >= channels / 6 else make_divisible(math.ceil(channels / 6), 16)
