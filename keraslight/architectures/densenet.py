"""DenseNet: densely connected convolutional networks.

Source: Huang et al., CVPR 2017, https://arxiv.org/abs/1608.06993, Table 1 (DenseNet-BC: bottlenecks of four times the
growth, transitions that halve the channels); 161 layers with growth 48 and 264 layers as in the authors' code.
Batch norm and ReLU come before each convolution, and once more after the last block. Transitions average without
padding, so odd sides are rounded down. The paper's dropout of 0.2 after each convolution, for training without
augmentation, is left out: `dropout` sits before the classifier. Padding and epsilon as timm and torchvision.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.dense import dense_layer, norm_act, transition
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.pool import max_pool
from keraslight.registry import Variant, register

BOTTLENECK = 4
"""Channels of a dense layer's 1x1 convolution in units of the growth."""

VARIANTS = {  # keywords (dense layers of each block, 56x56 to 7x7), input size, parameters, MACs, published checkpoint
    "densenet121": Variant(
        {"repeats": (6, 12, 24, 16), "growth": 32}, 224, 7_978_856, 2_834_161_664, "timm/densenet121.ra_in1k"
    ),
    "densenet161": Variant(
        {"repeats": (6, 12, 36, 24), "growth": 48}, 224, 28_681_000, 7_727_907_072, "timm/densenet161.tv_in1k"
    ),
    "densenet169": Variant(
        {"repeats": (6, 12, 32, 32), "growth": 32}, 224, 14_149_480, 3_359_843_328, "timm/densenet169.tv_in1k"
    ),
    "densenet201": Variant(
        {"repeats": (6, 12, 48, 32), "growth": 32}, 224, 20_013_928, 4_291_365_888, "timm/densenet201.tv_in1k"
    ),
    "densenet264": Variant({"repeats": (6, 12, 64, 48), "growth": 32}, 224, 33_337_704, 5_751_653_376, None),
}


@register(VARIANTS, prefix="densenet")
def DenseNet(
    *,
    repeats: tuple[int, ...],
    growth: int,
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
    """Builds a DenseNet image classifier.

    Args:
        repeats: Dense layers of each block; given by `variant`.
        growth: Channels that each dense layer adds; given by `variant`. The stem has twice as many.
        width: Multiplier of the growth, more than 0; other than 1, all channels are rounded to multiples of 8.
        style: Padding and batch normalization.
        input_shape: (height, width, channels): sides of at least 32 pixels, 1+ channels; None leaves a side open.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the last map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution before its transition, `{"stride_2": ..., "stride_32":
            ...}`, the last one after its batch norm and ReLU (as timm).
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes). Features of stride 2 and 4 round odd sides up, the others down.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    divisor = 1 if width == 1 else 8
    growth = make_divisible(growth * width, divisor)
    images = image_input(input_shape, input_tensor)
    features = {}
    x = conv_bn(images, 2 * growth, 7, stride=2, activation="relu", style=style, name="stem")
    features["stride_2"] = x
    x = max_pool(x, 3, stride=2, style=style, name="stem_pool")
    for s, count in enumerate(repeats):
        if s:
            x = transition(x, make_divisible(x.shape[-1] // 2, divisor), style=style, name=f"stage{s}_transition")
        for b in range(count):
            x = dense_layer(x, growth, bottleneck=BOTTLENECK, style=style, name=f"stage{s}_block{b}")
        features[f"stride_{4 * 2**s}"] = x
    x = norm_act(x, style=style, name="head")
    if features_only:
        return feature_model(images, {**features, f"stride_{2 * 2 ** len(repeats)}": x}, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
