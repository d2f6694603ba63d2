"""ShuffleNet V2's published weights: torchvision's, https://github.com/pytorch/vision (shufflenetv2.py), and the
authors', https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV2), which take unscaled pixels 0..255, in the
order blue, green, red.
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.shufflenet_v2 import Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint

# A layer's position in torchvision's sequences. Its batch norm is the next entry.
_MAIN = (("expand", "branch2.0", "branch2.1"), ("depthwise", "branch2.3", "branch2.4"),
         ("project", "branch2.5", "branch2.6"))  # fmt: skip
_SHORTCUT = (("shortcut_depthwise", "branch1.0", "branch1.1"), ("shortcut", "branch1.2", "branch1.3"))

# The same for the authors' network.
_MEGVII_MAIN = (("expand", "branch_main", 0), ("depthwise", "branch_main", 3), ("project", "branch_main", 5))
_MEGVII_SHORTCUT = (("shortcut_depthwise", "branch_proj", 0), ("shortcut", "branch_proj", 2))


def torch_names(*, stages: tuple[Row, ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    yield "stem", "conv1.0"
    yield "stem_bn", "conv1.1"
    for s, row in enumerate(stages):
        for b in range(row.repeats + 1):
            ours, theirs = f"stage{s}_block{b}", f"stage{s + 2}.{b}"
            for part, conv, norm in _MAIN if b else (*_SHORTCUT, *_MAIN):
                yield f"{ours}_{part}", f"{theirs}.{conv}"
                yield f"{ours}_{part}_bn", f"{theirs}.{norm}"
    yield "head", "conv5.0"
    yield "head_bn", "conv5.1"
    yield "classifier", "fc"


def _megvii_names(*, stages: tuple[Row, ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, the authors' module name) of all layers with weights."""
    yield from _with_bn("stem", "first_conv", 0)
    blocks = [f"stage{s}_block{b}" for s, row in enumerate(stages) for b in range(row.repeats + 1)]
    for index, block in enumerate(blocks):
        for part, branch, place in (*_MEGVII_SHORTCUT, *_MEGVII_MAIN) if block.endswith("block0") else _MEGVII_MAIN:
            yield from _with_bn(f"{block}_{part}", f"features.{index}.{branch}", place)
    yield from _with_bn("head", "conv_last", 0)
    yield "classifier", "classifier.0"


def _with_bn(ours: str, theirs: str, place: int) -> Iterator[tuple[str, str]]:
    yield ours, f"{theirs}.{place}"
    yield f"{ours}_bn", f"{theirs}.{place + 1}"


def _checkpoint(variant: str, resized: int, top1: float, file: str) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=224 / resized, interpolation="bilinear")
    return Checkpoint(variant, torch_names, spec, top1, url=f"https://download.pytorch.org/models/{file}.pth")


CHECKPOINTS = {  # IMAGENET1K_V1 of torchvision 0.28
    "torchvision/shufflenet_v2_x0_5": _checkpoint("shufflenet_v2_050", 256, 60.552, "shufflenetv2_x0.5-f707e7126e"),
    "torchvision/shufflenet_v2_x1_0": _checkpoint("shufflenet_v2_100", 256, 69.362, "shufflenetv2_x1-5666bf0f80"),
    "torchvision/shufflenet_v2_x1_5": _checkpoint("shufflenet_v2_150", 232, 72.996, "shufflenetv2_x1_5-3c479a10"),
    "torchvision/shufflenet_v2_x2_0": _checkpoint("shufflenet_v2_200", 232, 76.230, "shufflenetv2_x2_0-8be3c8ee"),
}
_RAW = Preprocessing((224, 224), crop_pct=0.875, interpolation="bilinear", mean=(0.0,) * 3, std=(1 / 255,) * 3)
CHECKPOINTS |= {  # top-1 from the repository's page
    f"ref/shufflenet_v2_{size}": Checkpoint(f"shufflenet_v2_{width}_megvii", _megvii_names, _RAW, top1)
    for size, width, top1 in (
        ("x0_5", "050", 61.1),
        ("x1_0", "100", 69.4),
        ("x1_5", "150", 72.6),
        ("x2_0", "200", 75.0),
    )
}
