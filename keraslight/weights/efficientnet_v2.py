"""EfficientNetV2's published weights: Google's as converted by timm (`tf_`) and torchvision's."""

from typing import Any

from keraslight.architectures.efficientnet_v2 import GOOGLE, Fused, MBConv, repeats
from keraslight.blocks.conv import ConvStyle
from keraslight.weights import sources
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import HALF, MBCONV, Names


def _parts(row: Fused | MBConv) -> dict[str, str]:
    """Returns a block's convolutions, in order: our part -> timm's."""
    if isinstance(row, Fused):
        return {"conv": "conv"} if row.expansion == 1 else {"expand": "conv_exp", "project": "conv_pwl"}
    return MBCONV


def timm_names(*, stages: tuple[Fused | MBConv, ...], depth: float = 1.0, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from sources.conv_bn("stem", "conv_stem", "bn1")
    for s, row in enumerate(stages):
        for b in range(repeats(row, depth)):
            attention = isinstance(row, MBConv)
            yield from sources.timm_block(f"stage{s}_block{b}", f"blocks.{s}.{b}", _parts(row), attention=attention)
    yield from sources.conv_bn("head", "conv_head", "bn2")
    yield "classifier", "classifier"


def torchvision_names(*, stages: tuple[Fused | MBConv, ...], depth: float = 1.0, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield from sources.sequence("stem", "features.0")
    for s, row in enumerate(stages):
        parts = tuple(_parts(row)) if isinstance(row, Fused) else ("expand", "depthwise", "se", "project")
        for b in range(repeats(row, depth)):
            yield from sources.torchvision_block(f"stage{s}_block{b}", f"features.{s + 1}.{b}.block", parts)
    yield from sources.sequence("head", f"features.{len(stages) + 1}")
    yield "classifier", "classifier.1"


TORCHVISION = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.9)


def _timm(variant: str, size: int, crop_pct: float, top1: float, **more: Any) -> Checkpoint:
    more |= {"size": size, "crop_pct": crop_pct, "style": GOOGLE}
    return sources.checkpoint(timm_names, f"efficientnet_v2_{variant}", top1, **more)


def _tv(variant: str, size: int, top1: float, file: str, **more: Any) -> Checkpoint:
    more |= {"size": size, "resized": size, "style": TORCHVISION}
    return sources.torchvision(torchvision_names, f"efficientnet_v2_{variant}", top1, f"efficientnet_v2_{file}", **more)


CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31, its results-imagenet.csv and torchvision 0.28
    "timm/tf_efficientnetv2_b0.in1k": _timm("b0", 224, 0.875, 78.386),
    "timm/tf_efficientnetv2_b1.in1k": _timm("b1", 240, 0.882, 79.518),
    "timm/tf_efficientnetv2_b2.in1k": _timm("b2", 260, 0.89, 80.226),
    "timm/tf_efficientnetv2_b3.in21k_ft_in1k": _timm("b3", 300, 0.9, 82.634, crop_mode="squash", **HALF),
    "timm/tf_efficientnetv2_b3.in1k": _timm("b3", 300, 0.904, 81.96),
    "timm/tf_efficientnetv2_s.in21k_ft_in1k": _timm("s", 384, 1.0, 84.332, **HALF),
    "timm/tf_efficientnetv2_s.in1k": _timm("s", 384, 1.0, 83.9, **HALF),
    "timm/tf_efficientnetv2_m.in21k_ft_in1k": _timm("m", 480, 1.0, 86.014, crop_mode="squash", **HALF),
    "timm/tf_efficientnetv2_m.in1k": _timm("m", 480, 1.0, 85.208, crop_mode="squash", **HALF),
    "timm/tf_efficientnetv2_l.in21k_ft_in1k": _timm("l", 480, 1.0, 86.802, crop_mode="squash", **HALF),
    "timm/tf_efficientnetv2_l.in1k": _timm("l", 480, 1.0, 85.66, crop_mode="squash", **HALF),
    "timm/tf_efficientnetv2_xl.in21k_ft_in1k": _timm("xl", 512, 1.0, 86.754, crop_mode="squash", **HALF),
    "torchvision/efficientnet_v2_s": _tv("s", 384, 84.228, "s-dd5fe13b"),
    "torchvision/efficientnet_v2_m": _tv("m", 480, 85.112, "m-dc08266a"),
    "torchvision/efficientnet_v2_l": _tv("l", 480, 85.808, "l-59c71312", interpolation="bicubic", **HALF),
}
