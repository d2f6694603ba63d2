"""MobileNetV1's published weights: timm's, https://github.com/huggingface/pytorch-image-models (efficientnet.py)."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.mobilenet_v1 import STAGES
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(**_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            for i, (ours, theirs) in enumerate((("depthwise", "conv_dw"), ("pointwise", "conv_pw")), 1):
                yield f"stage{s}_block{b}_{ours}", f"blocks.{s}.{b}.{theirs}"
                yield f"stage{s}_block{b}_{ours}_bn", f"blocks.{s}.{b}.bn{i}"
    yield "classifier", "classifier"


def _checkpoint(variant: str, crop_pct: float, top1: float) -> Checkpoint:
    half = (0.5, 0.5, 0.5)
    return Checkpoint(variant, torch_names, Preprocessing((224, 224), crop_pct=crop_pct, mean=half, std=half), top1)


CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/mobilenetv1_100.ra4_e3600_r224_in1k": _checkpoint("mobilenet_v1_100", 0.875, 75.388),
    "timm/mobilenetv1_125.ra4_e3600_r224_in1k": _checkpoint("mobilenet_v1_125", 0.9, 76.920),
}
