"""Published weights: where they are, their preprocessing, and how their names map to our layers.

Each file of this package that defines `CHECKPOINTS` is found and added to the table below.
"""

import importlib
import pkgutil

from keraslight import _doors, registry
from keraslight.errors import InvalidArgumentError

_doors.require("keraslight.weights", "models", "numpy", "keras")

from keraslight.weights.loader import Checkpoint, load_weights

CHECKPOINTS: dict[str, Checkpoint] = {}
"""Published id, `source/architecture[.recipe]` -> checkpoint. The first of an architecture is its default recipe."""

for _module in pkgutil.iter_modules(__path__):
    _table = getattr(importlib.import_module(f"{__name__}.{_module.name}"), "CHECKPOINTS", {})
    for _id, _checkpoint in _table.items():
        if _id in CHECKPOINTS:
            raise InvalidArgumentError(f"Checkpoint ids must be unique. Received again: {_id!r}.")
        CHECKPOINTS[_id] = _checkpoint
        registry.PUBLISHED[_id] = registry.Published(_checkpoint.variant, _checkpoint.top1, _checkpoint.preprocessing)

__all__ = ["CHECKPOINTS", "Checkpoint", "load_weights"]
