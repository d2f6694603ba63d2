"""SSDLite's published weights: torchvision's, https://github.com/pytorch/vision (models/detection/ssdlite.py).

Its backbone is a MobileNetV3 cut in two inside the last strided block: up to that block's expansion, and the rest.
"""

from typing import Any

from keraslight.architectures.mobilenet_v3 import LARGE, SMALL, Row
from keraslight.dense.ssdlite import EXTRAS
from keraslight.preprocessing import Preprocessing
from keraslight.weights import mobilenet_v3
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import HALF, Names, sequence

# The detector's images are stretched without antialiasing.
SQUARE = Preprocessing((320, 320), crop_mode="squash", interpolation="bilinear", antialias=False, **HALF)


def torch_names(
    *, stages: tuple[tuple[Row, ...], ...] = LARGE, extras: tuple[int, ...] = EXTRAS, **_unused: Any
) -> Names:
    """Yields torchvision's names for a backbone of these rows."""
    rows = [row for stage in stages for row in stage]
    cut = 1 + max(place for place, row in enumerate(rows) if row.stride > 1)  # its place in torchvision's sequence
    for ours, theirs in mobilenet_v3.torchvision_names(stages=stages):
        if theirs.startswith("features."):
            yield ours, _moved(theirs.removeprefix("features."), cut)
    for i in range(len(extras)):
        for n, part in enumerate(("reduce", "depthwise", "expand")):
            yield from sequence(f"extra{i}_{part}", f"backbone.extra.{i}.{n}")
    for kind, head in (("classifier", "classification_head"), ("regressor", "regression_head")):
        for i in range(2 + len(extras)):
            yield from sequence(f"level{i}_{kind}_depthwise", f"head.{head}.module_list.{i}.0")
            yield f"level{i}_{kind}", f"head.{head}.module_list.{i}.1"


def _moved(name: str, cut: int) -> str:
    """What the cut makes of a name such as `"13.block.1.0"`."""
    index, _, rest = name.partition(".")
    if int(index) < cut:
        return f"backbone.features.0.{name}"
    if int(index) > cut:
        return f"backbone.features.1.{int(index) - cut}.{rest}"
    part = rest.removeprefix("block.")
    # The expansion is an entry of the first half; the other parts keep their numbers in the second.
    return f"backbone.features.0.{index}.{part[2:]}" if part.startswith("0.") else f"backbone.features.1.0.{part}"


def _small_names(**arguments: Any) -> Names:
    return torch_names(**{**arguments, "stages": SMALL})


CHECKPOINTS = {
    "torchvision/ssdlite320_mobilenet_v3_large": Checkpoint(
        "ssdlite320_mobilenet_v3_large",
        torch_names,
        SQUARE,
        url="https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        dataset="coco",
    ),
    # Known to torchvision without weights, for files that users have trained themselves.
    **{
        f"torchvision/ssdlite320_mobilenet_v3_{name}.untrained": Checkpoint(
            f"ssdlite320_mobilenet_v3_{name}", names, SQUARE, dataset="coco"
        )
        for name, names in (("large_full", torch_names), ("small", _small_names), ("small_full", _small_names))
    },
}
