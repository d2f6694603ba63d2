"""AlexNet's published weights: torchvision's, https://github.com/pytorch/vision (alexnet.py)."""

from typing import Any

from keraslight.architectures.alexnet import Row
from keraslight.weights.sources import Names, torchvision


def torch_names(*, rows: tuple[Row, ...], **_unused: Any) -> Names:
    """Yields torchvision's names."""
    index = 0  # torchvision also counts activations and poolings
    for c, row in enumerate(rows, start=1):
        yield f"conv{c}", f"features.{index}"
        index += 3 if row.pool else 2
    yield "fc1", "classifier.1"
    yield "fc2", "classifier.4"
    yield "classifier", "classifier.6"


CHECKPOINTS = {  # torchvision 0.28, from its weights enum
    "torchvision/alexnet": torchvision(torch_names, "alexnet", 56.522, "alexnet-owt-7be5be79")
}
