"""ConvNeXt: a ConvNet for the 2020s.

Source: Liu et al., CVPR 2022, https://arxiv.org/abs/2201.03545, section 3 and Table 9 (ConvNeXt-T); S, B, L and XL are
the list in section 3. Taken from the released code (facebookresearch/ConvNeXt): layer norm epsilon 1e-6, layer scale
from 1e-6, the last layer norm after the pooling, exact GELU. The two dense layers of a block are 1x1 convolutions here:
the same numbers, and the form that converters quantize. The paper trains with drop path of 0.1 (T), 0.4 (S), 0.5 (B, L)
rising linearly over all blocks; here it defaults to 0. The stem takes patches of 4x4 pixels, so there is no stride-2
map, and pixels that fill no patch are left out: a map is floor(side / stride) wide.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import make_divisible
from keraslight.blocks.convnext import convnext_block, norm, patch_conv
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.registry import Variant, register

VARIANTS = {  # keywords (channels and blocks of the four stages), input size, parameters, MACs, published checkpoint
    "convnext_tiny": Variant(
        {"channels": (96, 192, 384, 768), "blocks": (3, 3, 9, 3)},
        224,
        28_589_128,
        4_455_531_264,
        "timm/convnext_tiny.in12k_ft_in1k",
    ),
    "convnext_small": Variant(
        {"channels": (96, 192, 384, 768), "blocks": (3, 3, 27, 3)},
        224,
        50_223_688,
        8_683_712_256,
        "timm/convnext_small.in12k_ft_in1k",
    ),
    "convnext_base": Variant(
        {"channels": (128, 256, 512, 1024), "blocks": (3, 3, 27, 3)},
        224,
        88_591_464,
        15_354_729_472,
        "timm/convnext_base.fb_in22k_ft_in1k",
    ),
    "convnext_large": Variant(
        {"channels": (192, 384, 768, 1536), "blocks": (3, 3, 27, 3)},
        224,
        197_767_336,
        34_361_433_600,
        "timm/convnext_large.fb_in22k_ft_in1k",
    ),
    "convnext_xlarge": Variant(
        {"channels": (256, 512, 1024, 2048), "blocks": (3, 3, 27, 3)},
        224,
        350_196_968,
        60_921_030_656,
        "timm/convnext_xlarge.fb_in22k_ft_in1k",
    ),
}


@register(VARIANTS, prefix="convnext_")
def ConvNeXt(
    *,
    channels: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    layer_scale: float | None = 1e-6,
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
    """Builds a ConvNeXt image classifier.

    Args:
        channels, blocks: Of each stage; given by `variant`.
        layer_scale: Start value of the layer scales; None builds without.
        width: Multiplier of all channels, more than 0, rounded to multiples of 8.
        input_shape: (height, width, channels): sides of at least 32 pixels or None (open), 1+ channels. None is
            the variant's own size with 3 channels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the last stage's map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_4": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        drop_path: Of the last block, in [0, 1); rises linearly from 0 over all blocks.
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes); the features are floor(side / stride) pixels wide.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor)
    x = patch_conv(images, make_divisible(channels[0] * width), 4, name="stem")
    x = norm(x, name="stem_norm")

    features = {}
    index, last = 0, max(sum(blocks) - 1, 1)
    for s, (stage_channels, stage_blocks) in enumerate(zip(channels, blocks, strict=True)):
        if s > 0:
            x = norm(x, name=f"stage{s}_down_norm")
            x = patch_conv(x, make_divisible(stage_channels * width), 2, name=f"stage{s}_down")
        for b in range(stage_blocks):
            x = convnext_block(
                x, layer_scale=layer_scale, drop_path=drop_path * index / last, name=f"stage{s}_block{b}"
            )
            index += 1
        features[f"stride_{4 * 2**s}"] = x
    if features_only:
        return feature_model(images, features, name=name)

    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = norm(x, name="head_norm")
    return classifier(
        images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
    )
