"""GoogLeNet's published weights: torchvision's, https://github.com/pytorch/vision (googlenet.py).

The file also contains the auxiliary heads, which a model without them ignores.
"""

from typing import Any

from keraslight.architectures.googlenet import AUXILIARY, STAGES, STYLE, Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import HALF, Names

_BRANCHES = (("pointwise", "branch1"), ("middle_reduce", "branch2.0"), ("middle", "branch2.1"),
             ("wide_reduce", "branch3.0"), ("wide", "branch3.1"), ("project", "branch4.1"))  # fmt: skip


def torch_names(*, stages: tuple[tuple[Row, ...], ...] = STAGES, auxiliary: bool = False, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    for ours, theirs in (("stem", "conv1"), ("stem_reduce", "conv2"), ("stem_expand", "conv3")):
        yield from _conv_bn(ours, theirs)
    for s, rows in enumerate(stages):
        for b, letter in zip(range(len(rows)), "abcde", strict=False):
            for ours, theirs in _BRANCHES:
                yield from _conv_bn(f"stage{s}_block{b}_{ours}", f"inception{s + 3}{letter}.{theirs}")
    yield "classifier", "fc"
    for head in AUXILIARY.values() if auxiliary else ():
        yield from _conv_bn(f"{head}_reduce", f"{head}.conv")
        yield f"{head}_dense", f"{head}.fc1"
        yield f"{head}_classifier", f"{head}.fc2"


def _conv_bn(ours: str, theirs: str) -> Names:
    yield ours, f"{theirs}.conv"
    yield f"{ours}_bn", f"{theirs}.bn"


CHECKPOINTS = {  # IMAGENET1K_V1 of torchvision 0.28, which scales its inputs to -1..1 (`transform_input`)
    "torchvision/googlenet": Checkpoint(
        "googlenet",
        torch_names,
        Preprocessing((224, 224), crop_pct=224 / 256, interpolation="bilinear", **HALF),
        69.778,
        arguments={"style": STYLE},
        url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        training_only=tuple(AUXILIARY.values()),
    )
}
