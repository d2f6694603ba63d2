"""Published weights: where they are, how they are preprocessed, and how their names map to our layers."""

from keraslight.errors import InvalidArgumentError
from keraslight.weights import (
    alexnet,
    convnext,
    convnext_v2,
    densenet,
    efficientnet,
    efficientnet_v2,
    ghostnet,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilenet_v4,
    mobilenext,
    repvgg,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    shufflenet_v2_plus,
    squeezenet,
    vgg,
    xception,
)
from keraslight.weights.loader import Checkpoint, load_weights

_TABLES = (
    alexnet.CHECKPOINTS,
    convnext.CHECKPOINTS,
    convnext_v2.CHECKPOINTS,
    densenet.CHECKPOINTS,
    efficientnet.CHECKPOINTS,
    efficientnet_v2.CHECKPOINTS,
    ghostnet.CHECKPOINTS,
    googlenet.CHECKPOINTS,
    mobilenet_v1.CHECKPOINTS,
    mobilenet_v2.CHECKPOINTS,
    mobilenet_v3.CHECKPOINTS,
    mobilenet_v4.CHECKPOINTS,
    mobilenext.CHECKPOINTS,
    repvgg.CHECKPOINTS,
    resnet.CHECKPOINTS,
    shufflenet_v1.CHECKPOINTS,
    shufflenet_v2.CHECKPOINTS,
    shufflenet_v2_plus.CHECKPOINTS,
    squeezenet.CHECKPOINTS,
    vgg.CHECKPOINTS,
    xception.CHECKPOINTS,
)

CHECKPOINTS: dict[str, Checkpoint] = {}
"""Published id, `source/architecture[.recipe]` -> checkpoint. The first of an architecture is its default recipe."""

ALIASES: dict[str, str] = {}
"""What users may write for an id: with and without the recipe -> the id."""

for _table in _TABLES:
    for _id, _checkpoint in _table.items():
        if _id in CHECKPOINTS:
            raise InvalidArgumentError(f"Checkpoint ids must be unique. Received again: {_id!r}.")
        CHECKPOINTS[_id] = _checkpoint
        ALIASES[_id] = _id
        ALIASES.setdefault(_id.partition(".")[0], _id)

__all__ = ["ALIASES", "CHECKPOINTS", "Checkpoint", "load_weights"]
