"""MobileNetV3's published weights.

timm's: https://github.com/huggingface/pytorch-image-models (mobilenetv3.py); its `tf_` names are the authors' weights.
torchvision's: https://github.com/pytorch/vision (mobilenetv3.py).
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.mobilenet_v3 import STEM, Row
from keraslight.blocks.conv import TENSORFLOW, ConvStyle
from keraslight.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from keraslight.weights.loader import Checkpoint

TORCHVISION = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.99)


def _blocks(stages: tuple[tuple[Row, ...], ...]) -> Iterator[tuple[int, int, bool, Row]]:
    """Yields stage, block, whether it expands, and row."""
    before = STEM
    for s, stage in enumerate(stages):
        for b, row in enumerate(stage):
            yield s, b, row.expanded != before, row
            before = row.channels


def timm_names(*, stages: tuple[tuple[Row, ...], ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for s, b, expand, row in _blocks(stages):
        ours, theirs = f"stage{s}_block{b}", f"blocks.{s}.{b}"
        if expand:
            parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        else:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for i, (our_part, their_part) in enumerate(parts.items(), 1):
            yield f"{ours}_{our_part}", f"{theirs}.{their_part}"
            yield f"{ours}_{our_part}_bn", f"{theirs}.bn{i}"
        if row.squeeze:
            yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
            yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"
    yield "head_expand", f"blocks.{len(stages)}.0.conv"
    yield "head_expand_bn", f"blocks.{len(stages)}.0.bn1"
    yield "head", "conv_head"
    yield "classifier", "classifier"


def torchvision_names(*, stages: tuple[tuple[Row, ...], ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields the same for torchvision, which numbers all blocks consecutively, and the parts of each."""
    yield "stem", "features.0.0"
    yield "stem_bn", "features.0.1"
    index = 1
    for s, b, expand, row in _blocks(stages):
        ours, theirs, part = f"stage{s}_block{b}", f"features.{index}.block", 0
        for our_part, present in (("expand", expand), ("depthwise", True), ("se", row.squeeze), ("project", True)):
            if not present:
                continue
            if our_part == "se":
                yield f"{ours}_se_reduce", f"{theirs}.{part}.fc1"
                yield f"{ours}_se_expand", f"{theirs}.{part}.fc2"
            else:
                yield f"{ours}_{our_part}", f"{theirs}.{part}.0"
                yield f"{ours}_{our_part}_bn", f"{theirs}.{part}.1"
            part += 1
        index += 1
    yield "head_expand", f"features.{index}.0"
    yield "head_expand_bn", f"features.{index}.1"
    yield "head", "classifier.0"
    yield "classifier", "classifier.3"


_HALF = (0.5, 0.5, 0.5)


def _timm(
    variant: str,
    top1: float | None = None,
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=crop_pct, interpolation=interpolation, mean=mean, std=std)
    return Checkpoint(variant, timm_names, spec, top1)


def _authors(variant: str, top1: float) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=0.875, interpolation="bilinear", mean=_HALF, std=_HALF)
    return Checkpoint(variant, timm_names, spec, top1, {"style": TENSORFLOW})


def _torchvision(variant: str, resized: int, top1: float, file: str) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=224 / resized, interpolation="bilinear")
    url = f"https://download.pytorch.org/models/{file}.pth"
    return Checkpoint(variant, torchvision_names, spec, top1, {"style": TORCHVISION}, url)


CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/mobilenetv3_large_100.ra_in1k": _timm("mobilenet_v3_large_100", 75.784),
    "timm/mobilenetv3_large_100.ra4_e3600_r224_in1k": _timm(
        "mobilenet_v3_large_100", 76.310, crop_pct=0.95, mean=_HALF, std=_HALF
    ),
    "timm/mobilenetv3_large_100.miil_in21k_ft_in1k": _timm(
        "mobilenet_v3_large_100", 77.920, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    ),
    "timm/mobilenetv3_small_100.lamb_in1k": _timm("mobilenet_v3_small_100", 67.636),
    "timm/mobilenetv3_small_075.lamb_in1k": _timm("mobilenet_v3_small_075", 65.284),
    "timm/mobilenetv3_small_050.lamb_in1k": _timm("mobilenet_v3_small_050", 57.918),
    "timm/tf_mobilenetv3_large_100.in1k": _authors("mobilenet_v3_large_100", 75.510),
    "timm/tf_mobilenetv3_large_075.in1k": _authors("mobilenet_v3_large_075", 73.442),
    "timm/tf_mobilenetv3_large_minimal_100.in1k": _authors("mobilenet_v3_large_minimalistic", 72.270),
    "timm/tf_mobilenetv3_small_100.in1k": _authors("mobilenet_v3_small_100", 67.922),
    "timm/tf_mobilenetv3_small_075.in1k": _authors("mobilenet_v3_small_075", 65.706),
    "timm/tf_mobilenetv3_small_minimal_100.in1k": _authors("mobilenet_v3_small_minimalistic", 62.892),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/mobilenetv3_large_075.untrained": _timm("mobilenet_v3_large_075", interpolation="bilinear"),
    # torchvision 0.28, from its weights enums.
    "torchvision/mobilenet_v3_large": _torchvision(
        "mobilenet_v3_large_100", 232, 75.274, "mobilenet_v3_large-5c1a4163"
    ),
    "torchvision/mobilenet_v3_large.imagenet1k_v1": _torchvision(
        "mobilenet_v3_large_100", 256, 74.042, "mobilenet_v3_large-8738ca79"
    ),
    "torchvision/mobilenet_v3_small": _torchvision(
        "mobilenet_v3_small_100", 256, 67.668, "mobilenet_v3_small-047dcff4"
    ),
}
