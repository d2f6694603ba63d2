"""ResNet's published weights: timm's (https://github.com/huggingface/pytorch-image-models, resnet.py) and torchvision's
(https://github.com/pytorch/vision, resnet.py). Both give their modules the same names.
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.resnet import Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, stages: tuple[Row, ...], expansion: int | None, **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's and torchvision's module name) of all layers with weights."""
    yield "stem", "conv1"
    yield "stem_bn", "bn1"
    parts = ("conv1", "conv2") if expansion is None else ("reduce", "spatial", "expand")
    for s, row in enumerate(stages):
        for b in range(row.repeats):
            ours, theirs = f"stage{s}_block{b}", f"layer{s + 1}.{b}"
            for p, part in enumerate(parts, start=1):
                yield f"{ours}_{part}", f"{theirs}.conv{p}"
                yield f"{ours}_{part}_bn", f"{theirs}.bn{p}"
            if b == 0 and (row.stride > 1 or expansion is not None):  # stage 0 of the basic networks keeps its shape
                yield f"{ours}_shortcut", f"{theirs}.downsample.0"
                yield f"{ours}_shortcut_bn", f"{theirs}.downsample.1"
    yield "classifier", "fc"


def _timm(variant: str, size: int, crop_pct: float, interpolation: str, top1: float) -> Checkpoint:
    spec = Preprocessing((size, size), crop_pct=crop_pct, interpolation=interpolation)
    return Checkpoint(variant, torch_names, spec, top1)


def _torchvision(variant: str, resized: int, top1: float, file: str) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=224 / resized, interpolation="bilinear")
    return Checkpoint(variant, torch_names, spec, top1, url=f"https://download.pytorch.org/models/{file}.pth")


CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/resnet18.a1_in1k": _timm("resnet18", 224, 0.95, "bicubic", 71.504),
    "timm/resnet18.tv_in1k": _timm("resnet18", 224, 0.875, "bilinear", 69.752),
    "timm/resnet34.a1_in1k": _timm("resnet34", 224, 0.95, "bicubic", 76.420),
    "timm/resnet34.tv_in1k": _timm("resnet34", 224, 0.875, "bilinear", 73.298),
    "timm/resnet50.a1_in1k": _timm("resnet50", 224, 0.95, "bicubic", 80.382),
    "timm/resnet50.tv_in1k": _timm("resnet50", 224, 0.875, "bilinear", 76.156),
    "timm/resnet101.a1h_in1k": _timm("resnet101", 224, 0.95, "bicubic", 81.950),
    "timm/resnet101.tv_in1k": _timm("resnet101", 224, 0.875, "bilinear", 77.404),
    "timm/resnet152.a1h_in1k": _timm("resnet152", 224, 0.95, "bicubic", 82.818),
    "timm/resnet152.tv_in1k": _timm("resnet152", 224, 0.875, "bilinear", 78.330),
    # torchvision 0.28, from its weights enums.
    "torchvision/resnet18": _torchvision("resnet18", 256, 69.758, "resnet18-f37072fd"),
    "torchvision/resnet34": _torchvision("resnet34", 256, 73.314, "resnet34-b627a593"),
    "torchvision/resnet50": _torchvision("resnet50", 232, 80.858, "resnet50-11ad3fa6"),
    "torchvision/resnet50.imagenet1k_v1": _torchvision("resnet50", 256, 76.130, "resnet50-0676ba61"),
    "torchvision/resnet101": _torchvision("resnet101", 232, 81.886, "resnet101-cd907fc2"),
    "torchvision/resnet101.imagenet1k_v1": _torchvision("resnet101", 256, 77.374, "resnet101-63fe2227"),
    "torchvision/resnet152": _torchvision("resnet152", 232, 82.284, "resnet152-f82ba261"),
    "torchvision/resnet152.imagenet1k_v1": _torchvision("resnet152", 256, 78.312, "resnet152-394f9c45"),
}
