"""EfficientNetV2's published weights: Google's as converted by timm (`tf_`) and torchvision's."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.efficientnet_v2 import GOOGLE, Fused, MBConv, repeats
from keraslight.blocks.conv import ConvStyle
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def _parts(row: Fused | MBConv) -> tuple[str, ...]:
    """Returns a block's parts with weights, in order: convolutions and "se"."""
    if isinstance(row, Fused):
        return ("conv",) if row.expansion == 1 else ("expand", "project")
    return ("expand", "depthwise", "se", "project")


_TIMM = {
    ("conv",): {"conv": "conv"},
    ("expand", "project"): {"expand": "conv_exp", "project": "conv_pwl"},
    ("expand", "depthwise", "se", "project"): {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"},
}


def timm_names(*, stages: tuple[Fused | MBConv, ...], depth: float = 1.0, **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for s, row in enumerate(stages):
        parts = _parts(row)
        for b in range(repeats(row, depth)):
            ours, theirs = f"stage{s}_block{b}", f"blocks.{s}.{b}"
            for i, (our_part, their_part) in enumerate(_TIMM[parts].items(), start=1):
                yield f"{ours}_{our_part}", f"{theirs}.{their_part}"
                yield f"{ours}_{our_part}_bn", f"{theirs}.bn{i}"
            if "se" in parts:
                yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
                yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"
    yield "head", "conv_head"
    yield "head_bn", "bn2"
    yield "classifier", "classifier"


def torchvision_names(
    *, stages: tuple[Fused | MBConv, ...], depth: float = 1.0, **_unused: Any
) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    yield "stem", "features.0.0"
    yield "stem_bn", "features.0.1"
    for s, row in enumerate(stages):
        for b in range(repeats(row, depth)):
            ours, theirs = f"stage{s}_block{b}", f"features.{s + 1}.{b}.block"
            for i, part in enumerate(_parts(row)):
                if part == "se":
                    yield f"{ours}_se_reduce", f"{theirs}.{i}.fc1"
                    yield f"{ours}_se_expand", f"{theirs}.{i}.fc2"
                else:
                    yield f"{ours}_{part}", f"{theirs}.{i}.0"
                    yield f"{ours}_{part}_bn", f"{theirs}.{i}.1"
    yield "head", f"features.{len(stages) + 1}.0"
    yield "head_bn", f"features.{len(stages) + 1}.1"
    yield "classifier", "classifier.1"


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def _timm(variant: str, size: int, crop_pct: float, top1: float, **more: Any) -> Checkpoint:
    spec = Preprocessing((size, size), crop_pct=crop_pct, **more)
    return Checkpoint(f"efficientnet_v2_{variant}", timm_names, spec, top1, arguments={"style": GOOGLE})


def _tv(variant: str, size: int, top1: float, file: str, **more: Any) -> Checkpoint:
    return Checkpoint(
        f"efficientnet_v2_{variant}",
        torchvision_names,
        Preprocessing((size, size), **more),
        top1,
        arguments={"style": ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.9)},
        url=f"https://download.pytorch.org/models/efficientnet_v2_{file}.pth",
    )


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
    "torchvision/efficientnet_v2_s": _tv("s", 384, 84.228, "s-dd5fe13b", interpolation="bilinear"),
    "torchvision/efficientnet_v2_m": _tv("m", 480, 85.112, "m-dc08266a", interpolation="bilinear"),
    "torchvision/efficientnet_v2_l": _tv("l", 480, 85.808, "l-59c71312", **HALF),
}
