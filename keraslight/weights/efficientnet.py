"""EfficientNet's published weights: Google's as converted by timm (`tf_`), timm's own and torchvision's."""

from typing import Any

from keraslight.architectures.efficientnet import STAGES, repeats
from keraslight.blocks.conv import TENSORFLOW, TORCH, ConvStyle
from keraslight.weights import sources
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import HALF, MBCONV, SEPARABLE, Names


def timm_names(*, depth: float, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from sources.conv_bn("stem", "conv_stem", "bn1")
    for s, row in enumerate(STAGES):
        parts = SEPARABLE if row.expansion == 1 else MBCONV
        for b in range(repeats(row, depth)):
            yield from sources.timm_block(f"stage{s}_block{b}", f"blocks.{s}.{b}", parts, attention=True)
    yield from sources.conv_bn("head", "conv_head", "bn2")
    yield "classifier", "classifier"


def torchvision_names(*, depth: float, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield from sources.sequence("stem", "features.0")
    for s, row in enumerate(STAGES):
        parts = ("depthwise", "se", "project") if row.expansion == 1 else ("expand", "depthwise", "se", "project")
        for b in range(repeats(row, depth)):
            yield from sources.torchvision_block(f"stage{s}_block{b}", f"features.{s + 1}.{b}.block", parts)
    yield from sources.sequence("head", f"features.{len(STAGES) + 1}")
    yield "classifier", "classifier.1"


TORCHVISION_LARGE = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.99)
"""Style of torchvision's B5, B6 and B7, which were converted from TensorFlow without its padding."""


def _timm(variant: str, size: int, crop_pct: float, top1: float, style: ConvStyle, **more: Any) -> Checkpoint:
    more |= {"size": size, "crop_pct": crop_pct, "style": style}
    return sources.checkpoint(timm_names, f"efficientnet_{variant}", top1, **more)


def _tv(variant: str, size: int, resized: int, top1: float, file: str, **more: Any) -> Checkpoint:
    more = {"size": size, "resized": resized, "style": TORCH, "interpolation": "bicubic", **more}
    return sources.torchvision(torchvision_names, f"efficientnet_{variant}", top1, f"efficientnet_{file}", **more)


CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31, its results-imagenet.csv and torchvision 0.28
    "timm/tf_efficientnet_b0.ns_jft_in1k": _timm("b0", 224, 0.875, 78.68, TENSORFLOW),
    "timm/tf_efficientnet_b0.aa_in1k": _timm("b0", 224, 0.875, 76.882, TENSORFLOW),
    "timm/tf_efficientnet_b1.ns_jft_in1k": _timm("b1", 240, 0.882, 81.388, TENSORFLOW),
    "timm/tf_efficientnet_b1.aa_in1k": _timm("b1", 240, 0.882, 78.84, TENSORFLOW),
    "timm/tf_efficientnet_b2.ns_jft_in1k": _timm("b2", 260, 0.89, 82.412, TENSORFLOW),
    "timm/tf_efficientnet_b2.aa_in1k": _timm("b2", 260, 0.89, 80.074, TENSORFLOW),
    "timm/tf_efficientnet_b3.ns_jft_in1k": _timm("b3", 300, 0.904, 84.054, TENSORFLOW),
    "timm/tf_efficientnet_b3.aa_in1k": _timm("b3", 300, 0.904, 81.648, TENSORFLOW),
    "timm/tf_efficientnet_b4.ns_jft_in1k": _timm("b4", 380, 0.922, 85.156, TENSORFLOW),
    "timm/tf_efficientnet_b4.aa_in1k": _timm("b4", 380, 0.922, 83.04, TENSORFLOW),
    "timm/tf_efficientnet_b5.ns_jft_in1k": _timm("b5", 456, 0.934, 86.096, TENSORFLOW),
    "timm/tf_efficientnet_b5.aa_in1k": _timm("b5", 456, 0.934, 83.696, TENSORFLOW),
    "timm/tf_efficientnet_b6.ns_jft_in1k": _timm("b6", 528, 0.942, 86.476, TENSORFLOW),
    "timm/tf_efficientnet_b6.aa_in1k": _timm("b6", 528, 0.942, 84.124, TENSORFLOW),
    "timm/tf_efficientnet_b7.ns_jft_in1k": _timm("b7", 600, 0.949, 86.85, TENSORFLOW),
    "timm/tf_efficientnet_b7.aa_in1k": _timm("b7", 600, 0.949, 84.424, TENSORFLOW),
    "timm/efficientnet_b0.ra_in1k": _timm("b0", 224, 0.875, 77.698, TORCH),
    "timm/efficientnet_b0.ra4_e3600_r224_in1k": _timm("b0", 224, 0.9, 78.568, TORCH, **HALF),
    "timm/efficientnet_b1.ra4_e3600_r240_in1k": _timm("b1", 240, 0.9, 80.404, TORCH, **HALF),
    "timm/efficientnet_b1.ft_in1k": _timm("b1", 224, 0.875, 77.592, TORCH),
    "timm/efficientnet_b2.ra_in1k": _timm("b2", 256, 0.875, 79.324, TORCH),
    "timm/efficientnet_b3.ra2_in1k": _timm("b3", 288, 0.875, 81.472, TORCH),
    "timm/efficientnet_b4.ra2_in1k": _timm("b4", 320, 0.875, 82.658, TORCH),
    "timm/efficientnet_b5.sw_in12k_ft_in1k": _timm("b5", 448, 1.0, 85.894, TORCH, crop_mode="squash"),
    "torchvision/efficientnet_b0": _tv("b0", 224, 256, 77.692, "b0_rwightman-7f5810bc"),
    "torchvision/efficientnet_b1": _tv("b1", 240, 255, 79.838, "b1-c27df63c", interpolation="bilinear"),
    "torchvision/efficientnet_b2": _tv("b2", 288, 288, 80.608, "b2_rwightman-c35c1473"),
    "torchvision/efficientnet_b3": _tv("b3", 300, 320, 82.008, "b3_rwightman-b3899882"),
    "torchvision/efficientnet_b4": _tv("b4", 380, 384, 83.384, "b4_rwightman-23ab8bcd"),
    "torchvision/efficientnet_b5": _tv("b5", 456, 456, 83.444, "b5_lukemelas-1a07897c", style=TORCHVISION_LARGE),
    "torchvision/efficientnet_b6": _tv("b6", 528, 528, 84.008, "b6_lukemelas-24a108a5", style=TORCHVISION_LARGE),
    "torchvision/efficientnet_b7": _tv("b7", 600, 600, 84.122, "b7_lukemelas-c5b4e57e", style=TORCHVISION_LARGE),
}
