"""MobileNetV2's published weights.

timm's: https://github.com/huggingface/pytorch-image-models (efficientnet.py).
torchvision's: https://github.com/pytorch/vision (mobilenetv2.py).
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.mobilenet_v2 import STAGES
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def timm_names(**_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for s, row in enumerate(STAGES):
        if row.expansion > 1:
            parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        else:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for b in range(row.repeats):
            for i, (ours, theirs) in enumerate(parts.items(), 1):
                yield f"stage{s}_block{b}_{ours}", f"blocks.{s}.{b}.{theirs}"
                yield f"stage{s}_block{b}_{ours}_bn", f"blocks.{s}.{b}.bn{i}"
    yield "head", "conv_head"
    yield "head_bn", "bn2"
    yield "classifier", "classifier"


def torchvision_names(**_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields the same for torchvision, which numbers all blocks consecutively, and the parts of each."""
    yield "stem", "features.0.0"
    yield "stem_bn", "features.0.1"
    index = 1
    for s, row in enumerate(STAGES):
        wide = ("expand", "depthwise") if row.expansion > 1 else ("depthwise",)
        for b in range(row.repeats):
            ours, theirs = f"stage{s}_block{b}", f"features.{index}.conv"
            for i, part in enumerate(wide):  # with an activation, nested
                yield f"{ours}_{part}", f"{theirs}.{i}.0"
                yield f"{ours}_{part}_bn", f"{theirs}.{i}.1"
            yield f"{ours}_project", f"{theirs}.{len(wide)}"
            yield f"{ours}_project_bn", f"{theirs}.{len(wide) + 1}"
            index += 1
    yield "head", f"features.{index}.0"
    yield "head_bn", f"features.{index}.1"
    yield "classifier", "classifier.1"


def _timm(variant: str, top1: float | None = None) -> Checkpoint:
    return Checkpoint(variant, timm_names, Preprocessing((224, 224), crop_pct=0.875), top1)


def _torchvision(variant: str, resized: int, top1: float, file: str) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=224 / resized, interpolation="bilinear")
    url = f"https://download.pytorch.org/models/{file}.pth"
    return Checkpoint(variant, torchvision_names, spec, top1, url=url)


CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/mobilenetv2_100.ra_in1k": _timm("mobilenet_v2_100", 72.910),
    "timm/mobilenetv2_050.lamb_in1k": _timm("mobilenet_v2_050", 65.928),
    "timm/mobilenetv2_140.ra_in1k": _timm("mobilenet_v2_140", 76.528),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/mobilenetv2_035.untrained": _timm("mobilenet_v2_035"),
    "timm/mobilenetv2_075.untrained": _timm("mobilenet_v2_075"),
    # torchvision 0.28, from its weights enum.
    "torchvision/mobilenet_v2": _torchvision("mobilenet_v2_100", 232, 72.154, "mobilenet_v2-7ebf99e0"),
    "torchvision/mobilenet_v2.imagenet1k_v1": _torchvision("mobilenet_v2_100", 256, 71.878, "mobilenet_v2-b0353104"),
}
