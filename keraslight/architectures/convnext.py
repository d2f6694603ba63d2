"""ConvNeXt: a ConvNet for the 2020s.

Source: Liu et al., CVPR 2022, https://arxiv.org/abs/2201.03545, section 3 and Table 9 (ConvNeXt-T). S, B, L and XL are
listed in section 3. Taken from the released code (facebookresearch/ConvNeXt): layer norm epsilon 1e-6, layer scale
initialized to 1e-6, the last layer norm after the pooling, exact GELU. The two dense layers of a block are 1x1
convolutions here: the result is the same, and converters can quantize them. The paper trains with a drop path rate of
0.1 (T), 0.4 (S) or 0.5 (B, L), rising linearly over all blocks; the default here is 0. The stem takes patches of 4x4
pixels, so there is no stride-2 map, and pixels that don't fill a patch are dropped: a map is floor(side / stride) wide.
"""

from keras import KerasTensor

from keraslight.blocks.conv import make_divisible
from keraslight.blocks.convnext import convnext_block, norm, normalized_classifier, patch_conv
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.residual import drop_rates
from keraslight.registry import Variant

# Channels and blocks of the four stages.
T = {"channels": (96, 192, 384, 768), "blocks": (3, 3, 9, 3)}
S = {"channels": (96, 192, 384, 768), "blocks": (3, 3, 27, 3)}
B = {"channels": (128, 256, 512, 1024), "blocks": (3, 3, 27, 3)}
L = {"channels": (192, 384, 768, 1536), "blocks": (3, 3, 27, 3)}
XL = {"channels": (256, 512, 1024, 2048), "blocks": (3, 3, 27, 3)}

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "convnext_tiny": Variant(T, 224, 28_589_128, 4_455_531_264, "timm/convnext_tiny.in12k_ft_in1k"),
    "convnext_small": Variant(S, 224, 50_223_688, 8_683_712_256, "timm/convnext_small.in12k_ft_in1k"),
    "convnext_base": Variant(B, 224, 88_591_464, 15_354_729_472, "timm/convnext_base.fb_in22k_ft_in1k"),
    "convnext_large": Variant(L, 224, 197_767_336, 34_361_433_600, "timm/convnext_large.fb_in22k_ft_in1k"),
    "convnext_xlarge": Variant(XL, 224, 350_196_968, 60_921_030_656, "timm/convnext_xlarge.fb_in22k_ft_in1k"),
}


@register(VARIANTS, prefix="convnext_")
def ConvNeXt(
    images: KerasTensor,
    *,
    channels: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    layer_scale: float | None = 1e-6,
    width: float = 1.0,
    drop_path: float = 0.0,
) -> Network:
    """Builds a ConvNeXt image classifier.

    Feature maps are floor(side / stride) pixels wide, starting at stride 4.

    Args:
        channels, blocks: Channels and number of blocks of each stage.
        layer_scale: Initial value of the layer scales. None builds the network without them.
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
            x = convnext_block(x, layer_scale=layer_scale, drop_path=next(rates), name=f"stage{s}_block{b}")
        features[f"stride_{4 * 2**s}"] = x
    return Network(features, x, normalized_classifier)
