"""What is known about each model without building it. Imports no Keras.

The figures stand in the architectures' and checkpoints' files, whose import loads Keras. `catalogue.json` repeats them:
`python docs/generate.py` writes it, and a test compares. Once those files are imported, their own tables count, so that
families that users register are found as well.
"""

import dataclasses
import fnmatch
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from keraslight import registry
from keraslight._near import nearest
from keraslight.errors import InvalidArgumentError, UnknownModelError
from keraslight.preprocessing import Preprocessing
from keraslight.registry import Published

HUB = ("hf-hub:", "hf_hub:")
"""What timm writes before an id on the Hugging Face hub."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a model without building it.

    Attributes:
        name: Full name, as taken by `create_model`.
        family: Name of the builder, as in `keraslight.MobileNetV4`.
        input_size: Side of the square image that the figures refer to, in pixels.
        parameters: Number of learned parameters with the variant's own classes and channels, without batch-norm
            statistics.
        macs: Multiply-adds for one image.
        top1: Reported ImageNet-1k top-1 accuracy of the checkpoint, in percent. None if none is reported.
        paper: Title of the architecture's file.
        checkpoint: Id of the published weights. None if none are published.
        preprocessing: Preprocessing that the checkpoint was trained with. None without a checkpoint.
        task: What the model is for: `"classification"`, `"detection"` or `"segmentation"`.
    """

    name: str
    family: str
    input_size: int
    parameters: int
    macs: int
    top1: float | None
    paper: str
    checkpoint: str | None
    preprocessing: Preprocessing | None
    task: str = "classification"


class _Row(NamedTuple):
    """A variant's row."""

    family: str
    paper: str
    input_size: int
    parameters: int
    macs: int
    checkpoint: str | None
    task: str = "classification"


def list_models(pattern: str = "*", task: str | None = "classification") -> list[str]:
    """Returns the names of the models that match a shell-style pattern such as `"mobilenet*"`, sorted by name.

    Args:
        pattern: The pattern.
        task: What the models are for: `"classification"`, `"detection"`, `"segmentation"`, or None for all of them.

    Raises:
        InvalidArgumentError: The task is another one.
    """
    if task is not None and task not in registry.TASKS:
        raise InvalidArgumentError(f"`task` must be None or one of {registry.TASKS}. Received: task={task!r}.")
    names = fnmatch.filter(_rows(), pattern)
    return sorted(name for name in names if task in (None, _rows()[name].task))


def model_info(name: str) -> ModelInfo:
    """Returns what is known about a model, without building it.

    Args:
        name: Name as for `create_model`.

    Raises:
        UnknownModelError: No model has this name. The text lists the nearest names.
    """
    full, checkpoint_id = find(name)
    row, checkpoint = _rows()[full], _checkpoints().get(checkpoint_id or "")
    return ModelInfo(
        name=full,
        family=row.family,
        input_size=row.input_size,
        parameters=row.parameters,
        macs=row.macs,
        top1=checkpoint.top1 if checkpoint else None,
        paper=row.paper,
        checkpoint=checkpoint_id,
        preprocessing=checkpoint.preprocessing if checkpoint else None,
        task=row.task,
    )


def find(name: str) -> tuple[str, str | None]:
    """Returns the full name of a model, and the id of its checkpoint or None.

    Args:
        name: Full name, or a published id, with or without its recipe, and with or without timm's `hf-hub:`.

    Raises:
        UnknownModelError: No model has this name. The text lists the nearest names.
    """
    row = _rows().get(name)
    if row is not None:
        return name, row.checkpoint
    checkpoints = _checkpoints()
    checkpoint_id = aliases(checkpoints).get(functools.reduce(str.removeprefix, HUB, str(name)))
    if checkpoint_id is not None:
        return checkpoints[checkpoint_id].variant, checkpoint_id
    raise UnknownModelError(f"No model has this name. {hint(name)} Received: {name!r}.")


def hint(name: str) -> str:
    """The sentence of an error that names the models nearest to an unknown name."""
    families: dict[str, list[str]] = {}
    for model, row in _rows().items():
        families.setdefault(row.family, []).append(model)
    near = nearest(str(name), families, aliases(_checkpoints()))
    return f"The nearest names: {', '.join(near)}." if near else "`keraslight.list_models()` lists all."


def aliases(checkpoints: dict[str, Any]) -> dict[str, str]:
    """What users may write for a checkpoint's id, with and without the recipe -> the id."""
    found = {checkpoint_id: checkpoint_id for checkpoint_id in checkpoints}
    for checkpoint_id in checkpoints:  # the first of an architecture is its default recipe
        found.setdefault(checkpoint_id.partition(".")[0], checkpoint_id)
    return found


def recorded() -> dict[str, Any]:
    """The content of `catalogue.json`, from the imported tables."""
    return {
        "models": {name: list(row) for name, row in _registered().items()},
        "checkpoints": {
            name: [entry.variant, entry.top1, _changed(entry.preprocessing)]
            for name, entry in registry.PUBLISHED.items()
        },
    }


def _changed(spec: Preprocessing) -> dict[str, Any]:
    """The fields of a preprocessing that differ from their defaults, as JSON has them."""
    values, usual = json.loads(json.dumps([spec.to_dict(), Preprocessing(spec.size).to_dict()]))
    return {name: value for name, value in values.items() if name == "size" or value != usual[name]}


def _registered() -> dict[str, _Row]:
    """The rows of the families that are imported."""
    return {
        name: _Row(family.name, family.paper, row.input_size, row.parameters, row.macs, row.checkpoint, row.task)
        for family in registry.families().values()
        for name, row in family.variants.items()
    }


def _rows() -> dict[str, _Row]:
    return _stored()[0] | _registered()


def _checkpoints() -> dict[str, Published]:
    return _stored()[1] | registry.PUBLISHED


@functools.cache
def _stored() -> tuple[dict[str, _Row], dict[str, Published]]:
    stored = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return {name: _Row(*row) for name, row in stored["models"].items()}, {
        name: Published(variant, top1, Preprocessing.from_dict(spec))
        for name, (variant, top1, spec) in stored["checkpoints"].items()
    }
