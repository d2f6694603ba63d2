"""SqueezeNet's published weights: torchvision's, https://github.com/pytorch/vision (squeezenet.py)."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.squeezenet import Fire
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, stages: tuple[tuple[Fire, ...], ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    yield "stem", "features.0"
    number, index = 2, 2  # torchvision also counts activations and poolings
    for stage in stages:
        index += 1
        for _ in stage:
            for part in ("squeeze", "expand1x1", "expand3x3"):
                yield f"fire{number}_{part}", f"features.{index}.{part}"
            number, index = number + 1, index + 1
    yield "classifier", "classifier.1"


def _checkpoint(variant: str, top1: float, file: str) -> Checkpoint:
    spec = Preprocessing((224, 224), crop_pct=0.875, interpolation="bilinear")
    return Checkpoint(variant, torch_names, spec, top1, url=f"https://download.pytorch.org/models/{file}.pth")


CHECKPOINTS = {  # torchvision 0.28, from its weights enums
    "torchvision/squeezenet1_0": _checkpoint("squeezenet_1_0", 58.092, "squeezenet1_0-b66bff10"),
    "torchvision/squeezenet1_1": _checkpoint("squeezenet_1_1", 58.178, "squeezenet1_1-b8a52dc0"),
}
