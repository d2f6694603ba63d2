"""AlexNet's published weights: torchvision's, https://github.com/pytorch/vision (alexnet.py)."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.alexnet import Row
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, rows: tuple[Row, ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    index = 0  # torchvision also counts activations and poolings
    for c, row in enumerate(rows, start=1):
        yield f"conv{c}", f"features.{index}"
        index += 3 if row.pool else 2
    yield "fc1", "classifier.1"
    yield "fc2", "classifier.4"
    yield "classifier", "classifier.6"


CHECKPOINTS = {  # torchvision 0.28, from its weights enum
    "torchvision/alexnet": Checkpoint(
        "alexnet",
        torch_names,
        Preprocessing((224, 224), crop_pct=0.875, interpolation="bilinear"),
        56.522,
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    )
}
