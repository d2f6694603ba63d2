"""ResNet's published weights: timm's (https://github.com/huggingface/pytorch-image-models, resnet.py) and torchvision's
(https://github.com/pytorch/vision, resnet.py). Both give their modules the same names.
"""

import functools
from typing import Any

from keraslight.architectures.resnet import Row
from keraslight.weights.sources import Names, checkpoint, conv_bn, sequence, torchvision


def torch_names(*, stages: tuple[Row, ...], expansion: int | None, **_unused: Any) -> Names:
    """Yields timm's and torchvision's names."""
    yield from conv_bn("stem", "conv1", "bn1")
    parts = ("conv1", "conv2") if expansion is None else ("reduce", "spatial", "expand")
    for s, row in enumerate(stages):
        for b in range(row.repeats):
            ours, theirs = f"stage{s}_block{b}", f"layer{s + 1}.{b}"
            for p, part in enumerate(parts, start=1):
                yield from conv_bn(f"{ours}_{part}", f"{theirs}.conv{p}", f"{theirs}.bn{p}")
            if b == 0 and (row.stride > 1 or expansion is not None):  # stage 0 of the basic networks keeps its shape
                yield from sequence(f"{ours}_shortcut", f"{theirs}.downsample")
    yield "classifier", "fc"


_timm, _tv = functools.partial(checkpoint, torch_names), functools.partial(torchvision, torch_names)

CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/resnet18.a1_in1k": _timm("resnet18", 71.504, crop_pct=0.95),
    "timm/resnet18.tv_in1k": _timm("resnet18", 69.752, interpolation="bilinear"),
    "timm/resnet34.a1_in1k": _timm("resnet34", 76.420, crop_pct=0.95),
    "timm/resnet34.tv_in1k": _timm("resnet34", 73.298, interpolation="bilinear"),
    "timm/resnet50.a1_in1k": _timm("resnet50", 80.382, crop_pct=0.95),
    "timm/resnet50.tv_in1k": _timm("resnet50", 76.156, interpolation="bilinear"),
    "timm/resnet101.a1h_in1k": _timm("resnet101", 81.950, crop_pct=0.95),
    "timm/resnet101.tv_in1k": _timm("resnet101", 77.404, interpolation="bilinear"),
    "timm/resnet152.a1h_in1k": _timm("resnet152", 82.818, crop_pct=0.95),
    "timm/resnet152.tv_in1k": _timm("resnet152", 78.330, interpolation="bilinear"),
    # torchvision 0.28, from its weights enums.
    "torchvision/resnet18": _tv("resnet18", 69.758, "resnet18-f37072fd"),
    "torchvision/resnet34": _tv("resnet34", 73.314, "resnet34-b627a593"),
    "torchvision/resnet50": _tv("resnet50", 80.858, "resnet50-11ad3fa6", resized=232),
    "torchvision/resnet50.imagenet1k_v1": _tv("resnet50", 76.130, "resnet50-0676ba61"),
    "torchvision/resnet101": _tv("resnet101", 81.886, "resnet101-cd907fc2", resized=232),
    "torchvision/resnet101.imagenet1k_v1": _tv("resnet101", 77.374, "resnet101-63fe2227"),
    "torchvision/resnet152": _tv("resnet152", 82.284, "resnet152-f82ba261", resized=232),
    "torchvision/resnet152.imagenet1k_v1": _tv("resnet152", 78.312, "resnet152-394f9c45"),
}
