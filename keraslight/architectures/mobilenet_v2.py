"""MobileNetV2: inverted residuals with linear bottlenecks.

Source: Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381, table 2; the widths of table 4 and of TensorFlow's
slim README. Channels are rounded as in the authors' code; the 1280 channels of the head are kept below width 1.
Left open by the paper: symmetric padding and batch-norm epsilon 1e-5 (timm and torchvision; the authors' own code and
keras.applications pad "same" and use 1e-3, `style=keraslight.blocks.conv.TENSORFLOW`). Dropout and drop path default to
0; the released recipes train with dropout 0.2.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.inverted_residual import inverted_residual
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.registry import Variant, register


class Row(NamedTuple):
    """A line of table 2: `repeats` blocks, of which the first has `stride`; an expansion of 1 is left out."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STAGES = (  # output sides of a 224x224 image
    Row(1, 16, 1, 1),  # 112
    Row(6, 24, 2, 2),  # 56
    Row(6, 32, 3, 2),  # 28
    Row(6, 64, 4, 2),  # 14
    Row(6, 96, 3, 1),  # 14
    Row(6, 160, 3, 2),  # 7
    Row(6, 320, 1, 1),  # 7
)
VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "mobilenet_v2_100": Variant({"width": 1.0}, 224, 3_504_872, 300_774_272, "timm/mobilenetv2_100.ra_in1k"),
    "mobilenet_v2_035": Variant({"width": 0.35}, 224, 1_677_128, 59_285_808, None),
    "mobilenet_v2_050": Variant({"width": 0.5}, 224, 1_968_680, 97_131_840, "timm/mobilenetv2_050.lamb_in1k"),
    "mobilenet_v2_075": Variant({"width": 0.75}, 224, 2_636_424, 209_069_792, None),
    "mobilenet_v2_130": Variant({"width": 1.3}, 224, 5_386_792, 509_374_560, None),
    "mobilenet_v2_140": Variant({"width": 1.4}, 224, 6_108_776, 582_195_824, "timm/mobilenetv2_140.ra_in1k"),
}


@register(VARIANTS, prefix="mobilenet_v2_")
def MobileNetV2(
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
    style: ConvStyle = TORCH,
    name: str,
) -> keras.Model:
    """Builds a MobileNetV2 image classifier.

    Args:
        width: Multiplier of all channels, more than 0, rounded to multiples of 8; of the head's 1280 only above 1.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (open), 1+ channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the 1280-channel map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        drop_path: Of the last residual block, in [0, 1); rises linearly from 0 over all blocks.
        style: Padding and normalization; that of the weights.
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are ceil(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor)
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="relu6", style=style, name="stem")

    features, total_stride = {}, 2
    index, last = 0, sum(row.repeats for row in STAGES) - 1
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            x = inverted_residual(
                x,
                make_divisible(row.channels * width),
                expanded=x.shape[-1] * row.expansion,
                expand=row.expansion > 1,
                stride=row.stride if b == 0 else 1,
                drop_path=drop_path * index / last,
                style=style,
                name=f"stage{s}_block{b}",
            )
            index += 1
        total_stride *= row.stride
        features[f"stride_{total_stride}"] = x
    if features_only:
        return feature_model(images, features, name=name)

    x = conv_bn(x, make_divisible(1280 * max(width, 1.0)), 1, activation="relu6", style=style, name="head")
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
