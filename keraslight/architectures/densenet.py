"""DenseNet: densely connected convolutional networks.

Source: Huang et al., CVPR 2017, https://arxiv.org/abs/1608.06993, Table 1 (DenseNet-BC: bottlenecks of four times the
growth, transitions that halve the channels). 161 layers with growth 48 are from the authors' code.
Batch norm and ReLU precede each convolution, and follow the last block once more. Transitions average without padding,
so odd sides are rounded down. The paper's dropout of 0.2 after each convolution, used when training without
augmentation, is left out: `dropout` sits before the classifier. Padding and epsilon as in timm and torchvision.
"""

from keras import KerasTensor

from keraslight.blocks.conv import TORCH, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.dense import dense_layer, norm_act, transition
from keraslight.blocks.family import register
from keraslight.blocks.model import Network
from keraslight.blocks.pool import max_pool
from keraslight.registry import Variant

BOTTLENECK = 4
"""Channels of a dense layer's 1x1 convolution, as a multiple of the growth."""

D121 = {"repeats": (6, 12, 24, 16), "growth": 32}  # dense layers of each block, 56x56 to 7x7
D161 = {"repeats": (6, 12, 36, 24), "growth": 48}
D169 = {"repeats": (6, 12, 32, 32), "growth": 32}
D201 = {"repeats": (6, 12, 48, 32), "growth": 32}
D264 = {"repeats": (6, 12, 64, 48), "growth": 32}

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "densenet121": Variant(D121, 224, 7_978_856, 2_834_161_664, "timm/densenet121.ra_in1k"),
    "densenet161": Variant(D161, 224, 28_681_000, 7_727_907_072, "timm/densenet161.tv_in1k"),
    "densenet169": Variant(D169, 224, 14_149_480, 3_359_843_328, "timm/densenet169.tv_in1k"),
    "densenet201": Variant(D201, 224, 20_013_928, 4_291_365_888, "timm/densenet201.tv_in1k"),
    "densenet264": Variant(D264, 224, 33_337_704, 5_751_653_376, None),
}


@register(VARIANTS, prefix="densenet")
def DenseNet(
    images: KerasTensor, *, repeats: tuple[int, ...], growth: int, width: float = 1.0, style: ConvStyle = TORCH
) -> Network:
    """Builds a DenseNet image classifier.

    Features are taken before each transition, and the last one after its batch norm and ReLU, as in timm. Those of
    stride 2 and 4 round odd sides up, the others down.

    Args:
        repeats: Number of dense layers in each block.
        growth: Channels that each dense layer adds. The stem has twice as many.
        width: Multiplier of the growth, above 0. Unless it is 1, all channels are rounded to multiples of 8.
        style: Padding and batch normalization.
    """
    divisor = 1 if width == 1 else 8
    growth = make_divisible(growth * width, divisor)
    x = conv_bn(images, 2 * growth, 7, stride=2, activation="relu", style=style, name="stem")
    features = {"stride_2": x}
    x = max_pool(x, 3, stride=2, style=style, name="stem_pool")
    for s, count in enumerate(repeats):
        if s:
            x = transition(x, make_divisible(x.shape[-1] // 2, divisor), style=style, name=f"stage{s}_transition")
        for b in range(count):
            x = dense_layer(x, growth, bottleneck=BOTTLENECK, style=style, name=f"stage{s}_block{b}")
        features[f"stride_{4 * 2**s}"] = x
    x = norm_act(x, style=style, name="head")
    features[f"stride_{2 * 2 ** len(repeats)}"] = x
    return Network(features, x)
