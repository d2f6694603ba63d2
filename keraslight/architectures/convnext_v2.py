"""ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders.

Source: Woo et al., CVPR 2023, https://arxiv.org/abs/2301.00808, section 5 (the eight sizes) and figure 5 (the block).
It is ConvNeXt's net with global response normalization after the GELU and without layer scale. Taken from the released
code (facebookresearch/ConvNeXt-V2): the epsilons of 1e-6 of both normalizations, the last layer norm after the pooling,
exact GELU. The two dense layers of a block are 1x1 convolutions here: the same numbers, and the form that converters
quantize. timm also has a `small`, which the paper lacks and nobody trained. Drop path rises linearly over all blocks
and defaults to 0. The stem takes patches of 4x4 pixels, so there is no stride-2 map, and pixels that fill no patch are
left out: a map is floor(side / stride) wide.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import make_divisible
from keraslight.blocks.convnext import convnext_block, norm, patch_conv
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.registry import Variant, register

VARIANTS = {  # keywords (channels and blocks of the four stages), input size, parameters, MACs, published checkpoint
    "convnext_v2_atto": Variant(
        {"channels": (40, 80, 160, 320), "blocks": (2, 2, 6, 2)},
        224,
        3_708_400,
        547_332_480,
        "timm/convnextv2_atto.fcmae_ft_in1k",
    ),
    "convnext_v2_femto": Variant(
        {"channels": (48, 96, 192, 384), "blocks": (2, 2, 6, 2)},
        224,
        5_233_240,
        779_629_824,
        "timm/convnextv2_femto.fcmae_ft_in1k",
    ),
    "convnext_v2_pico": Variant(
        {"channels": (64, 128, 256, 512), "blocks": (2, 2, 6, 2)},
        224,
        9_066_280,
        1_367_055_360,
        "timm/convnextv2_pico.fcmae_ft_in1k",
    ),
    "convnext_v2_nano": Variant(
        {"channels": (80, 160, 320, 640), "blocks": (2, 2, 8, 2)},
        224,
        15_623_800,
        2_445_528_320,
        "timm/convnextv2_nano.fcmae_ft_in22k_in1k",
    ),
    "convnext_v2_tiny": Variant(
        {"channels": (96, 192, 384, 768), "blocks": (3, 3, 9, 3)},
        224,
        28_635_496,
        4_455_531_264,
        "timm/convnextv2_tiny.fcmae_ft_in22k_in1k",
    ),
    "convnext_v2_base": Variant(
        {"channels": (128, 256, 512, 1024), "blocks": (3, 3, 27, 3)},
        224,
        88_717_800,
        15_354_729_472,
        "timm/convnextv2_base.fcmae_ft_in22k_in1k",
    ),
    "convnext_v2_large": Variant(
        {"channels": (192, 384, 768, 1536), "blocks": (3, 3, 27, 3)},
        224,
        197_956_840,
        34_361_433_600,
        "timm/convnextv2_large.fcmae_ft_in22k_in1k",
    ),
    "convnext_v2_huge": Variant(
        {"channels": (352, 704, 1408, 2816), "blocks": (3, 3, 27, 3)},
        224,
        660_289_640,
        114_922_100_480,
        "timm/convnextv2_huge.fcmae_ft_in1k",
    ),
}


@register(VARIANTS, prefix="convnext_v2_")
def ConvNeXtV2(
    *,
    channels: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
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
    """Builds a ConvNeXt V2 image classifier.

    Args:
        channels, blocks: Of each stage; given by `variant`.
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
            x = convnext_block(x, grn=True, drop_path=drop_path * index / last, name=f"stage{s}_block{b}")
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
