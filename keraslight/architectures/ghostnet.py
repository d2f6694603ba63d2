"""GhostNet: more features from cheap operations.

Source: Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907, table 1 with the widths of table 7. What the paper
leaves open is the authors' code's, which timm has too with the same numbers: channels rounded to multiples of 4, a
squeeze of a quarter of the expanded width, symmetric padding, batch-norm epsilon 1e-5, a last 1280-channel convolution
that is not scaled, with bias and without batch norm. The authors' code cuts a ghost module's output to its width; as
all widths are even, there is nothing to cut. Dropout and drop path default to 0; the authors train with dropout 0.2.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, activate, conv_bn, make_divisible
from keraslight.blocks.ghost import ghost_bottleneck
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.registry import Variant, register


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
VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "ghostnet_100": Variant({"width": 1.0}, 224, 5_182_508, 141_150_512, "timm/ghostnet_100.in1k"),
    "ghostnet_050": Variant({"width": 0.5}, 224, 2_587_292, 42_328_152, None),
    "ghostnet_130": Variant({"width": 1.3}, 224, 7_358_820, 227_003_256, None),
}


@register(VARIANTS, prefix="ghostnet_")
def GhostNet(
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
    """Builds a GhostNet image classifier.

    Args:
        width: Multiplier of all channels but the last 1280, more than 0, rounded to multiples of 4.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (open), 1+ channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the 960-channel map.
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

    def scaled(channels: float) -> int:
        return make_divisible(channels * width, 4)

    images = image_input(input_shape, input_tensor)
    x = conv_bn(images, scaled(16), 3, stride=2, activation="relu", style=TORCH, name="stem")

    features, total_stride = {}, 2
    index, last = 0, sum(map(len, STAGES)) - 1
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
                drop_path=drop_path * index / last,
                name=f"stage{s}_block{b}",
            )
            index += 1
            total_stride *= row.stride
        features[f"stride_{total_stride}"] = x
    if features_only:
        return feature_model(images, features, name=name)

    x = conv_bn(x, scaled(960), 1, activation="relu", style=TORCH, name="head_expand")
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Conv2D(1280, 1, name="head")(x)
    x = activate(x, "relu", name="head_act")
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
