"""DenseNet's published weights: timm's (densenet.py) and torchvision's (densenet.py), whose names are the same."""

import dataclasses
import functools
import re
from typing import Any

from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import Names, checkpoint, conv_bn, torchvision


def torch_names(*, repeats: tuple[int, ...], **_unused: Any) -> Names:
    """Yields timm's and torchvision's names."""
    yield from conv_bn("stem", "features.conv0", "features.norm0")
    for s, count in enumerate(repeats):
        if s:
            yield f"stage{s}_transition_norm", f"features.transition{s}.norm"
            yield f"stage{s}_transition", f"features.transition{s}.conv"
        for b in range(count):
            ours, theirs = f"stage{s}_block{b}", f"features.denseblock{s + 1}.denselayer{b + 1}"
            yield f"{ours}_norm", f"{theirs}.norm1"
            yield from conv_bn(f"{ours}_reduce", f"{theirs}.conv1", f"{theirs}.norm2")
            yield f"{ours}_grow", f"{theirs}.conv2"
    yield "head_norm", "features.norm5"
    yield "classifier", "classifier"


def _rename(name: str) -> str:
    """Renames tensors: torchvision's files still use the names of its first version, `norm.1` for `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _torchvision(variant: str, top1: float, file: str) -> Checkpoint:
    return dataclasses.replace(torchvision(torch_names, variant, top1, file), rename=_rename)


_timm = functools.partial(checkpoint, torch_names)
CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 from its results-imagenet.csv (which has `ra_in1k` only
    # at 288 pixels: 76.5).
    "timm/densenet121.ra_in1k": _timm("densenet121", None),
    "timm/densenet121.tv_in1k": _timm("densenet121", 74.764),
    "timm/densenet161.tv_in1k": _timm("densenet161", 77.358),
    "timm/densenet169.tv_in1k": _timm("densenet169", 75.900),
    "timm/densenet201.tv_in1k": _timm("densenet201", 77.286),
    # torchvision 0.28, from its weights enums.
    "torchvision/densenet121": _torchvision("densenet121", 74.434, "densenet121-a639ec97"),
    "torchvision/densenet161": _torchvision("densenet161", 77.138, "densenet161-8d451a50"),
    "torchvision/densenet169": _torchvision("densenet169", 75.600, "densenet169-b2777c0a"),
    "torchvision/densenet201": _torchvision("densenet201", 76.896, "densenet201-c1103571"),
}
