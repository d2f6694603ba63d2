"""LR-ASPP's published weights: torchvision's, https://github.com/pytorch/vision (models/segmentation/lraspp.py)."""

import functools
from typing import Any

from keraslight.architectures.mobilenet_v3 import LARGE, SMALL, Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights import mobilenet_v3
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import Names, sequence

STRETCHED = Preprocessing((520, 520), crop_mode="squash", interpolation="bilinear")
"""torchvision resizes the short side to 520 pixels instead; a model of a fixed size can't."""


def backbone_names(stages: tuple[tuple[Row, ...], ...]) -> Names:
    """Yields torchvision's names of a MobileNetV3 that a segmenter is built on."""
    for ours, theirs in mobilenet_v3.torchvision_names(stages=stages):
        if theirs.startswith("features."):
            yield ours, f"backbone.{theirs.removeprefix('features.')}"


def torch_names(stages: tuple[tuple[Row, ...], ...], **_unused: Any) -> Names:
    """Yields torchvision's names for a backbone of these rows."""
    yield from backbone_names(stages)
    yield from sequence("high_conv", "classifier.cbr")
    yield "high_gate", "classifier.scale.1"
    yield "low_classifier", "classifier.low_classifier"
    yield "high_classifier", "classifier.high_classifier"


CHECKPOINTS = {
    "torchvision/lraspp_mobilenet_v3_large": Checkpoint(
        "lraspp_mobilenet_v3_large",
        functools.partial(torch_names, LARGE),
        STRETCHED,
        url="https://download.pytorch.org/models/lraspp_mobilenet_v3_large-d234d4ea.pth",
        dataset="coco",
    ),
    # Known to torchvision without weights, for files that users have trained themselves.
    "torchvision/lraspp_mobilenet_v3_small.untrained": Checkpoint(
        "lraspp_mobilenet_v3_small", functools.partial(torch_names, SMALL), STRETCHED, dataset="coco"
    ),
}
