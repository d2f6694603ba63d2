"""DeepLabV3's published weights: torchvision's, https://github.com/pytorch/vision (segmentation/deeplabv3.py)."""

import functools
from collections.abc import Callable
from typing import Any

from keraslight.architectures.mobilenet_v3 import LARGE
from keraslight.architectures.resnet import R50, R101, Row
from keraslight.weights import resnet
from keraslight.weights.loader import Checkpoint
from keraslight.weights.lraspp import STRETCHED, backbone_names
from keraslight.weights.sources import Names, sequence


def _resnet_names(stages: tuple[Row, ...]) -> Names:
    for ours, theirs in resnet.torch_names(stages=stages, expansion=4):
        if ours != "classifier":
            yield ours, f"backbone.{theirs}"


def torch_names(backbone: Callable[[], Names], *, auxiliary: bool = False, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield from backbone()
    for i in range(4):
        yield from sequence(f"branch{i}", f"classifier.0.convs.{i}")
    yield from sequence("mean_conv", "classifier.0.convs.4", 1)
    yield from sequence("project", "classifier.0.project")
    yield from sequence("head_conv", "classifier", 1)
    yield "classifier", "classifier.4"
    if auxiliary:
        yield from sequence("aux_conv", "aux_classifier")
        yield "aux_classifier", "aux_classifier.4"


CHECKPOINTS = {
    f"torchvision/deeplabv3_{name}": Checkpoint(
        f"deeplab_v3_{name}",
        functools.partial(torch_names, backbone),
        STRETCHED,
        url=f"https://download.pytorch.org/models/deeplabv3_{file}.pth",
        training_only=("aux_classifier",),
        dataset="coco",
    )
    for name, backbone, file in (
        ("mobilenet_v3_large", functools.partial(backbone_names, LARGE), "mobilenet_v3_large-fc3c493d"),
        ("resnet50", functools.partial(_resnet_names, R50), "resnet50_coco-cd0a2569"),
        ("resnet101", functools.partial(_resnet_names, R101), "resnet101_coco-586e9e4e"),
    )
}
