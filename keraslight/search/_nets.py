"""Nets of trials: built by a space, or by a user's function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from optuna.trial import BaseTrial

from keraslight.errors import InvalidArgumentError
from keraslight.search.spaces import RowSpace
from keraslight.training import ImageData


@dataclasses.dataclass(frozen=True)
class Nets:
    """Builds the net of a trial for a data set.

    Attributes:
        space: A space, or a function from trial to model.
        ends: Arguments of `create_model` that the data set determines.
        task: What the outputs are; see `train`.
    """

    space: RowSpace | Callable[[BaseTrial], keras.Model]
    ends: dict[str, Any]
    task: str | None = None

    @classmethod
    def of(cls, space: Any, data: ImageData, task: str | None) -> Nets:
        """Raises InvalidArgumentError for what is neither a space nor a function."""
        if not isinstance(space, RowSpace) and (not callable(space) or isinstance(space, type | keras.Model)):
            raise InvalidArgumentError(
                "`space` must be a MobileNetV3Space, a MobileNetV4Space, or a function that takes an Optuna trial and "
                f"returns a keras.Model. Received: {space!r}."
            )
        ends: dict[str, Any] = {
            "classes": len(data.labels),
            "input_shape": data.image_shape,
            "preprocessing": data.preprocessing,
        }
        if task == "regression":
            ends["classifier_activation"] = None
        elif task == "multi-label" or (task is None and data.targets.ndim == 2):
            ends["classifier_activation"] = "sigmoid"
        elif task == "binary":
            ends |= {"classes": 1, "classifier_activation": "sigmoid"}
        return cls(space, ends, task)

    def build(self, trial: BaseTrial) -> keras.Model:
        """The net of a trial, with random weights."""
        if isinstance(self.space, RowSpace):
            return self.space.build(self.space.sample(trial), self.ends)
        model = self.space(trial)
        if not isinstance(model, keras.Model):
            raise InvalidArgumentError(
                f"`space` must return a keras.Model for each trial. Received: {type(model).__name__}."
            )
        return model

    def code(self, trial: BaseTrial) -> str:
        """The program that builds it; empty for a user's function."""
        if not isinstance(self.space, RowSpace):
            return ""
        return self.space.code(self.space.sample(trial), self.ends)

    def identity(self) -> Any:
        """What tells one space from another, JSON-serializable. Of a function that is its name."""
        if isinstance(self.space, RowSpace):
            return {"space": type(self.space).__name__, **dataclasses.asdict(self.space)}
        name = getattr(self.space, "__qualname__", type(self.space).__qualname__)
        return f"{getattr(self.space, '__module__', '')}.{name}"
