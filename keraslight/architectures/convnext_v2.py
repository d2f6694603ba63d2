"""ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders.

Source: Woo et al., CVPR 2023, https://arxiv.org/abs/2301.00808, section 5 (the eight sizes) and figure 5 (the block).
The network is ConvNeXt's with global response normalization after the GELU and without layer scale. Taken from the
released code (facebookresearch/ConvNeXt-V2): epsilon 1e-6 in both normalizations, the last layer norm after the
pooling, exact GELU. The two dense layers of a block are 1x1 convolutions here: the result is the same, and converters
can quantize them. timm also has a `small`, which is not in the paper and has no trained weights. Drop path rises
linearly over all blocks and defaults to 0. The stem takes patches of 4x4 pixels, so there is no stride-2 map, and
pixels that don't fill a patch are dropped: a map is floor(side / stride) wide.
"""

from keras import KerasTensor

from keraslight.blocks.conv import make_divisible
from keraslight.blocks.convnext import convnext_block, norm, normalized_classifier, patch_conv
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.residual import drop_rates
from keraslight.registry import Variant

# Channels and blocks of the four stages.
ATTO = {"channels": (40, 80, 160, 320), "blocks": (2, 2, 6, 2)}
FEMTO = {"channels": (48, 96, 192, 384), "blocks": (2, 2, 6, 2)}
PICO = {"channels": (64, 128, 256, 512), "blocks": (2, 2, 6, 2)}
NANO = {"channels": (80, 160, 320, 640), "blocks": (2, 2, 8, 2)}
TINY = {"channels": (96, 192, 384, 768), "blocks": (3, 3, 9, 3)}
BASE = {"channels": (128, 256, 512, 1024), "blocks": (3, 3, 27, 3)}
LARGE = {"channels": (192, 384, 768, 1536), "blocks": (3, 3, 27, 3)}
HUGE = {"channels": (352, 704, 1408, 2816), "blocks": (3, 3, 27, 3)}

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "convnext_v2_atto": Variant(ATTO, 224, 3_708_400, 547_332_480, "timm/convnextv2_atto.fcmae_ft_in1k"),
    "convnext_v2_femto": Variant(FEMTO, 224, 5_233_240, 779_629_824, "timm/convnextv2_femto.fcmae_ft_in1k"),
    "convnext_v2_pico": Variant(PICO, 224, 9_066_280, 1_367_055_360, "timm/convnextv2_pico.fcmae_ft_in1k"),
    "convnext_v2_nano": Variant(NANO, 224, 15_623_800, 2_445_528_320, "timm/convnextv2_nano.fcmae_ft_in22k_in1k"),
    "convnext_v2_tiny": Variant(TINY, 224, 28_635_496, 4_455_531_264, "timm/convnextv2_tiny.fcmae_ft_in22k_in1k"),
    "convnext_v2_base": Variant(BASE, 224, 88_717_800, 15_354_729_472, "timm/convnextv2_base.fcmae_ft_in22k_in1k"),
    "convnext_v2_large": Variant(LARGE, 224, 197_956_840, 34_361_433_600, "timm/convnextv2_large.fcmae_ft_in22k_in1k"),
    "convnext_v2_huge": Variant(HUGE, 224, 660_289_640, 114_922_100_480, "timm/convnextv2_huge.fcmae_ft_in1k"),
}


@register(VARIANTS, prefix="convnext_v2_")
def ConvNeXtV2(
    images: KerasTensor,
    *,
    channels: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    width: float = 1.0,
    drop_path: float = 0.0,
) -> Network:
    """Builds a ConvNeXt V2 image classifier.

    Feature maps are floor(side / stride) pixels wide, starting at stride 4.

    Args:
        channels, blocks: Channels and number of blocks of each stage.
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8.
        drop_path: Drop path rate of the last block, in [0, 1), rising linearly from 0 over all blocks.
    """
    x = patch_conv(images, make_divisible(channels[0] * width), 4, name="stem")
    x = norm(x, name="stem_norm")
    features, rates = {}, drop_rates(drop_path, sum(blocks))
    for s, (stage_channels, stage_blocks) in enumerate(zip(channels, blocks, strict=True)):
        if s > 0:
            x = norm(x, name=f"stage{s}_down_norm")
            x = patch_conv(x, make_divisible(stage_channels * width), 2, name=f"stage{s}_down")
        for b in range(stage_blocks):
            x = convnext_block(x, grn=True, drop_path=next(rates), name=f"stage{s}_block{b}")
        features[f"stride_{4 * 2**s}"] = x
    return Network(features, x, normalized_classifier)
