"""MobileNetV4: universal models for the mobile ecosystem.

Source: Qin et al., ECCV 2024, https://arxiv.org/abs/2404.10518, tables 11 to 15 (the five networks, block by block).
The paper's totals lie below those of both released codes (timm, TensorFlow Model Garden), which agree with each other
in every block: the rows below are theirs. Left open by the paper, taken from timm, whose weights are the published
ones: symmetric padding (the Model Garden pads "same"), batch-norm epsilon 1e-5, layer scale from 1e-5. Layer scale also
sits on blocks without a residual (both codes). Dropout and drop path default to 0; the Model Garden trains with dropout
0.3 (conv_small) or 0.2 and with drop path of up to 0.35, rising linearly over the blocks. The stride-32 feature map is
the last block's, as in the Model Garden (timm gives the 960-channel map after it).
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import conv_bn, make_divisible
from keraslight.blocks.mobile_mqa import mobile_mqa
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.uib import fused_inverted_bottleneck, universal_inverted_bottleneck
from keraslight.registry import Variant, register


class Conv(NamedTuple):
    """Convolution, batch norm, activation; no residual."""

    kernel: int
    channels: int
    stride: int = 1


class Fused(NamedTuple):
    """Fused inverted bottleneck."""

    kernel: int
    expansion: float
    channels: int
    stride: int = 1


class UIB(NamedTuple):
    """Universal inverted bottleneck; a `start` or `middle` of 0 leaves that depthwise convolution out."""

    start: int
    middle: int
    expansion: float
    channels: int
    stride: int = 1


class MQA(NamedTuple):
    """Mobile MQA; the channels stay."""

    heads: int
    key_dim: int
    kv_stride: int


# Each stage halves the sides, except the last; the comments give the output sides at the reference size.
CONV_SMALL = (
    (Conv(3, 32, 2), Conv(1, 32)),  # 56
    (Conv(3, 96, 2), Conv(1, 64)),  # 28
    (  # 14
        UIB(5, 5, 3, 96, 2),
        *4 * (UIB(0, 3, 2, 96),),
        UIB(3, 0, 4, 96),
    ),
    (  # 7
        UIB(3, 3, 6, 128, 2),
        UIB(5, 5, 4, 128),
        UIB(0, 5, 4, 128),
        UIB(0, 5, 3, 128),
        UIB(0, 3, 4, 128),
        UIB(0, 3, 4, 128),
    ),
    (Conv(1, 960),),
)
CONV_MEDIUM = (
    (Fused(3, 4, 48, 2),),  # 64
    (UIB(3, 5, 4, 80, 2), UIB(3, 3, 2, 80)),  # 32
    (  # 16
        UIB(3, 5, 6, 160, 2),
        UIB(3, 3, 4, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 5, 4, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 0, 4, 160),
        UIB(0, 0, 2, 160),
        UIB(3, 0, 4, 160),
    ),
    (  # 8
        UIB(5, 5, 6, 256, 2),
        UIB(5, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(3, 0, 4, 256),
        UIB(3, 5, 2, 256),
        UIB(5, 5, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(5, 0, 2, 256),
    ),
    (Conv(1, 960),),
)
CONV_LARGE = (
    (Fused(3, 4, 48, 2),),  # 96
    (UIB(3, 5, 4, 96, 2), UIB(3, 3, 4, 96)),  # 48
    (  # 24
        UIB(3, 5, 4, 192, 2),
        *3 * (UIB(3, 3, 4, 192),),
        UIB(3, 5, 4, 192),
        *5 * (UIB(5, 3, 4, 192),),
        UIB(3, 0, 4, 192),
    ),
    (  # 12
        UIB(5, 5, 4, 512, 2),
        *3 * (UIB(5, 5, 4, 512),),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 5, 4, 512),
        *3 * (UIB(5, 0, 4, 512),),
    ),
    (Conv(1, 960),),
)
HYBRID_MEDIUM = (
    (Fused(3, 4, 48, 2),),  # 64
    (UIB(3, 5, 4, 80, 2), UIB(3, 3, 2, 80)),  # 32
    (  # 16
        UIB(3, 5, 6, 160, 2),
        UIB(0, 0, 2, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 5, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 3, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 0, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 3, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 0, 4, 160),
    ),
    (  # 8
        UIB(5, 5, 6, 256, 2),
        UIB(5, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(0, 0, 2, 256),
        UIB(3, 5, 2, 256),
        UIB(0, 0, 2, 256),
        UIB(0, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(3, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 5, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 0, 4, 256),
    ),
    (Conv(1, 960),),
)
HYBRID_LARGE = (
    (Fused(3, 4, 48, 2),),  # 96
    (UIB(3, 5, 4, 96, 2), UIB(3, 3, 4, 96)),  # 48
    (  # 24
        UIB(3, 5, 4, 192, 2),
        *3 * (UIB(3, 3, 4, 192),),
        UIB(3, 5, 4, 192),
        UIB(5, 3, 4, 192),
        UIB(5, 3, 4, 192),
        *3 * (MQA(8, 48, 2), UIB(5, 3, 4, 192)),
        MQA(8, 48, 2),
        UIB(3, 0, 4, 192),
    ),
    (  # 12
        UIB(5, 5, 4, 512, 2),
        *3 * (UIB(5, 5, 4, 512),),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 5, 4, 512),
        *4 * (MQA(8, 64, 1), UIB(5, 0, 4, 512)),
    ),
    (Conv(1, 960),),
)

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "mobilenet_v4_conv_small": Variant(
        {"stem": 32, "stages": CONV_SMALL}, 224, 3_774_024, 186_005_568, "timm/mobilenetv4_conv_small.e2400_r224_in1k"
    ),
    "mobilenet_v4_conv_medium": Variant(
        {"stem": 32, "stages": CONV_MEDIUM},
        256,
        9_715_512,
        1_080_244_224,
        "timm/mobilenetv4_conv_medium.e500_r256_in1k",
    ),
    "mobilenet_v4_conv_large": Variant(
        {"stem": 24, "stages": CONV_LARGE}, 384, 32_590_864, 6_376_220_672, "timm/mobilenetv4_conv_large.e600_r384_in1k"
    ),
    "mobilenet_v4_hybrid_medium": Variant(
        {"stem": 32, "stages": HYBRID_MEDIUM, "layer_scale": 1e-5},
        256,
        11_074_648,
        1_271_183_360,
        "timm/mobilenetv4_hybrid_medium.ix_e550_r256_in1k",
    ),
    "mobilenet_v4_hybrid_large": Variant(
        {"stem": 24, "stages": HYBRID_LARGE, "layer_scale": 1e-5, "activation": "gelu"},
        384,
        37_764_624,
        7_711_877_120,
        "timm/mobilenetv4_hybrid_large.ix_e600_r384_in1k",
    ),
}


@register(VARIANTS, prefix="mobilenet_v4_")
def MobileNetV4(
    *,
    stem: int,
    stages: tuple[tuple[NamedTuple, ...], ...],
    activation: str = "relu",
    layer_scale: float | None = None,
    width: float = 1.0,
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
    """Builds a MobileNetV4 image classifier.

    Args:
        stem, stages, activation, layer_scale: The variant's table; given by `variant`.
        width: Multiplier of the channels of the stages, more than 0, rounded to multiples of 8. The stem is kept below
            1, and the 1280 channels of the head always, as timm does.
        input_shape: (height, width, channels): sides of at least 32 pixels, 1+ channels. None is the variant's own
            size with 3 channels. Variants without attention take None for a side, which leaves it open.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the 960-channel map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        drop_path: Of the last residual block, in [0, 1); rises linearly from 0 over all blocks.
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are ceil(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor)
    features = {}
    x = conv_bn(images, make_divisible(stem * max(width, 1.0)), 3, stride=2, activation=activation, name="stem")
    features["stride_2"] = x

    *body, head = stages
    last = max(sum(map(len, body)) - 1, 1)
    index = 0
    for s, stage in enumerate(body):
        for b, row in enumerate(stage):
            x = _block(
                x,
                row,
                width=width,
                activation=activation,
                layer_scale=layer_scale,
                drop_path=drop_path * index / last,
                name=f"stage{s}_block{b}",
            )
            index += 1
        features[f"stride_{4 * 2**s}"] = x
    if features_only:
        return feature_model(images, features, name=name)

    for b, row in enumerate(head):
        x = _block(
            x,
            row,
            width=width,
            activation=activation,
            layer_scale=None,
            drop_path=0.0,
            name=f"stage{len(body)}_block{b}",
        )
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = conv_bn(x, 1280, 1, activation=activation, name="head")
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )


def _block(
    x: keras.KerasTensor,
    row: NamedTuple,
    *,
    width: float,
    activation: str,
    layer_scale: float | None,
    drop_path: float,
    name: str,
) -> keras.KerasTensor:
    """Builds one row of a table."""
    match row:
        case Conv(kernel, channels, stride):
            return conv_bn(x, make_divisible(channels * width), kernel, stride=stride, activation=activation, name=name)
        case Fused(kernel, expansion, channels, stride):
            return fused_inverted_bottleneck(
                x,
                make_divisible(channels * width),
                expansion=expansion,
                kernel=kernel,
                stride=stride,
                activation=activation,
                name=name,
            )
        case UIB(start, middle, expansion, channels, stride):
            return universal_inverted_bottleneck(
                x,
                make_divisible(channels * width),
                expansion=expansion,
                start=start,
                middle=middle,
                stride=stride,
                activation=activation,
                layer_scale=layer_scale,
                drop_path=drop_path,
                name=name,
            )
        case MQA(heads, key_dim, kv_stride):
            return mobile_mqa(
                x,
                heads=heads,
                key_dim=key_dim,
                kv_stride=kv_stride,
                layer_scale=layer_scale,
                drop_path=drop_path,
                name=name,
            )
    raise TypeError(f"A row of `stages` must be a Conv, Fused, UIB or MQA. Received: {row!r}.")
