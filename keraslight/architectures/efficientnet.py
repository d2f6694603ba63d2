"""EfficientNet: rethinking model scaling for convolutional neural networks.

Source: Tan and Le, ICML 2019, https://arxiv.org/abs/1905.11946, Table 1 (B0) and equation 3 (compound scaling). The
coefficients of B1 to B7 are those of the released code (tensorflow/tpu), which rounds the equation's. Left open by the
paper, taken from that code: "same" padding with batch-norm epsilon 1e-3 and momentum 0.99 (torchvision and timm's own
retrained networks pad symmetrically; their checkpoints set that `style`), a squeeze of a quarter of the block's input,
and a drop path rate that rises linearly over the blocks up to 0.2. It trains with dropout 0.2 (B0, B1), 0.3 (B2, B3),
0.4 (B4, B5) and 0.5 (B6, B7). Here both default to 0. B2 runs at 260 pixels in that code, at 256 or 288 in timm and
torchvision.
"""

import functools
import math
from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import TENSORFLOW, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.mbconv import mbconv
from keraslight.blocks.model import Network, pooled_classifier
from keraslight.blocks.residual import drop_rates
from keraslight.errors import InvalidArgumentError
from keraslight.registry import Variant


class Row(NamedTuple):
    """A row of Table 1: `repeats` MBConv blocks, the first of them with `stride`."""

    expansion: int
    kernel: int
    channels: int
    repeats: int
    stride: int


STAGES = (
    #   t  k    c  n  s    output of a 224x224 image
    Row(1, 3, 16, 1, 1),  # 112
    Row(6, 3, 24, 2, 2),  # 56
    Row(6, 5, 40, 2, 2),  # 28
    Row(6, 3, 80, 3, 2),  # 14
    Row(6, 5, 112, 3, 1),  # 14
    Row(6, 5, 192, 4, 2),  # 7
    Row(6, 3, 320, 1, 1),  # 7
)


class Scaling(NamedTuple):
    """Result of compound scaling: the builder's `depth` and `width`, and the side of the images in pixels."""

    depth: float
    width: float
    size: int


def compound_scaling(
    phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15, base_size: int = 224
) -> Scaling:
    """Scales depth, width and resolution together: `alpha**phi`, `beta**phi`, `gamma**phi`.

    With `alpha * beta**2 * gamma**2` near 2, as the paper's search requires, each step of `phi` doubles the
    multiply-adds. Source: equation 3 and section 4 of the paper, whose coefficients for B0 are the defaults.

    Args:
        phi: Compound coefficient. 0 is B0 itself.
        alpha, beta, gamma: Coefficients of depth, width and resolution, each at least 1.
        base_size: Side of the images at `phi` 0, in pixels.

    Raises:
        InvalidArgumentError: A coefficient is below 1.
    """
    if min(alpha, beta, gamma) < 1:
        raise InvalidArgumentError(
            f"`alpha`, `beta` and `gamma` must be at least 1. Received: alpha={alpha}, beta={beta}, gamma={gamma}."
        )
    return Scaling(alpha**phi, beta**phi, round(base_size * gamma**phi))


def repeats(row: Row, depth: float) -> int:
    """Returns the number of blocks of a row in a network of that depth, rounded up."""
    return math.ceil(row.repeats * depth)


VARIANTS = {
    f"efficientnet_{name}": Variant(
        {"width": width, "depth": depth}, size, parameters, macs, f"timm/tf_efficientnet_{name}.ns_jft_in1k"
    )
    for name, width, depth, size, parameters, macs in (
        ("b0", 1.0, 1.0, 224, 5_288_548, 385_814_752),
        ("b1", 1.0, 1.1, 240, 7_794_184, 686_802_832),
        ("b2", 1.1, 1.2, 260, 9_109_994, 993_561_872),
        ("b3", 1.2, 1.4, 300, 12_233_232, 1_827_141_392),
        ("b4", 1.4, 1.8, 380, 19_341_616, 4_393_771_024),
        ("b5", 1.6, 2.2, 456, 30_389_784, 10_266_384_752),
        ("b6", 1.8, 2.6, 528, 43_040_704, 19_067_593_536),
        ("b7", 2.0, 3.1, 600, 66_347_960, 37_745_884_192),
    )
}


@register(VARIANTS, prefix="efficientnet_")
def EfficientNet(
    images: KerasTensor, *, width: float, depth: float, style: ConvStyle = TENSORFLOW, drop_path: float = 0.0
) -> Network:
    """Builds an EfficientNet image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the map of 1280 * width
    channels.

    Args:
        width: Multiplier of all channels of B0, above 0. Channels are rounded to multiples of 8.
        depth: Multiplier of the number of blocks in each stage of B0, above 0, rounded up. `compound_scaling` computes
            width, depth and image size.
        style: Padding and batch normalization. Published weights set their own.
        drop_path: Drop path rate in [0, 1). Block i of n drops its branch with probability `drop_path * i / n`.
    """
    x = conv_bn(images, make_divisible(32 * width), 3, stride=2, activation="silu", style=style, name="stem")
    features, resolution = {}, 2
    rates = drop_rates(drop_path, sum(repeats(row, depth) for row in STAGES) + 1)
    for s, row in enumerate(STAGES):
        resolution *= row.stride
        for b in range(repeats(row, depth)):
            x = mbconv(
                x,
                make_divisible(row.channels * width),
                expansion=row.expansion,
                kernel=row.kernel,
                stride=row.stride if b == 0 else 1,
                drop_path=next(rates),
                style=style,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{resolution}"] = x
    x = conv_bn(x, make_divisible(1280 * width), 1, activation="silu", style=style, name="head")
    return Network(features, x, functools.partial(pooled_classifier, keepdims=True))
