"""SqueezeNet's published weights: torchvision's, https://github.com/pytorch/vision (squeezenet.py)."""

from typing import Any

from keraslight.architectures.squeezenet import Fire
from keraslight.weights.sources import Names, torchvision


def torch_names(*, stages: tuple[tuple[Fire, ...], ...], **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield "stem", "features.0"
    number, index = 2, 2  # torchvision also counts activations and poolings
    for stage in stages:
        index += 1
        for _ in stage:
            for part in ("squeeze", "expand1x1", "expand3x3"):
                yield f"fire{number}_{part}", f"features.{index}.{part}"
            number, index = number + 1, index + 1
    yield "classifier", "classifier.1"


CHECKPOINTS = {  # torchvision 0.28, from its weights enums
    "torchvision/squeezenet1_0": torchvision(torch_names, "squeezenet_1_0", 58.092, "squeezenet1_0-b66bff10"),
    "torchvision/squeezenet1_1": torchvision(torch_names, "squeezenet_1_1", 58.178, "squeezenet1_1-b8a52dc0"),
}
