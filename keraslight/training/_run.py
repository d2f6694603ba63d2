"""The run folder: what a training leaves on the disk, and how it is read back."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

import keraslight.layers  # noqa: F401  its layers register themselves, so that best.keras can be read
from keraslight.errors import InvalidArgumentError
from keraslight.training._extras import require

BEST, INFO, HISTORY, CURVES, STATE = "best.keras", "model.json", "history.csv", "curves.png", "last.npz"

Row = dict[str, float]
"""One epoch: epoch (from 1), learning_rate, loss, accuracy, val_loss, val_accuracy, seconds."""


def load_run(path: str | os.PathLike[str]) -> tuple[keras.Model, dict[str, Any]]:
    """Reads back what `train` left in its run folder, also of a training that was stopped early.

    Args:
        path: The `run_dir` that was given to `train`.

    Returns:
        The best model, not compiled: raw pixels (B, H, W, C) in 0..255 -> (B, classes). And the content of
        model.json: "labels", "preprocessing" (for `Preprocessing.from_dict`), "recipe" (for `Recipe.from_dict`),
        "seed", "distillation" (None without a teacher), "metrics" and "versions".

    Raises:
        InvalidArgumentError: `path` is not a run folder.
    """
    folder = pathlib.Path(path)
    missing = [name for name in (INFO, BEST) if not (folder / name).is_file()]
    if missing:
        raise InvalidArgumentError(
            f"A run folder must hold {INFO} and {BEST}, which `train` writes after the first epoch. "
            f"Received: {folder} without {' and '.join(missing)}."
        )
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgumentError(f"{INFO} must be JSON as `train` writes it. Received: {folder}, {error}.") from error
    return keras.saving.load_model(folder / BEST, compile=False), info


class RunFolder:
    """Writes and reads the files of one run. Every file is replaced at once, so that a kill can't leave half of one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob("writing.*"):  # of a run that was killed while it wrote
            leftover.unlink()

    def clear(self) -> None:
        """Removes the files of an earlier run, and no other file."""
        for name in (STATE, BEST, INFO, HISTORY, CURVES):  # the state first: without it nothing can be resumed
            (self.path / name).unlink(missing_ok=True)

    def save_best(self, model: keras.Model) -> None:
        """Replaces the best checkpoint."""
        with self._replace(BEST) as temporary:
            model.save(temporary)

    def load_best(self, model: keras.Model) -> None:
        """Gives `model` the best checkpoint's weights."""
        if not (self.path / BEST).is_file():
            raise _damaged(self.path, f"no {BEST}")
        model.load_weights(self.path / BEST)

    def save_info(self, info: dict[str, Any]) -> None:
        """Replaces model.json."""
        self._write(INFO, json.dumps(info, indent=2) + "\n")

    def save_history(self, history: list[Row]) -> None:
        """Replaces history.csv."""
        table = io.StringIO()
        writer = csv.DictWriter(table, history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        self._write(HISTORY, table.getvalue())

    def save_curves(self, history: list[Row]) -> None:
        """Replaces the plot of loss and accuracy over the epochs."""
        # A Figure of its own, not pyplot: pyplot picks a window system and keeps every figure for ever.
        figure = require("matplotlib.figure", "matplotlib").Figure(figsize=(10, 4), layout="constrained")
        epochs = [row["epoch"] for row in history]
        for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            axes.plot(epochs, [row[metric] for row in history], marker=".", label="training (augmented)")
            axes.plot(epochs, [row[f"val_{metric}"] for row in history], marker=".", label="validation")
            axes.set(xlabel="epoch", ylabel=metric)
            axes.grid(alpha=0.3)
            axes.legend()
        with self._replace(CURVES) as temporary:
            figure.savefig(temporary)

    def save_state(self, model: keras.Model, history: list[Row], identity: dict[str, Any]) -> None:
        """Replaces all that a resume needs. The last thing that an epoch writes, so that it vouches for the others."""
        arrays = {f"{index:05d}": np.asarray(value) for index, value in enumerate(_variables(model))}
        meta = json.dumps({"history": history, "identity": identity})
        with self._replace(STATE) as temporary:
            np.savez(temporary, meta=np.asarray(meta), **arrays)

    def load_state(self, model: keras.Model, identity: dict[str, Any]) -> list[Row]:
        """Restores a compiled model and its optimizer after the last finished epoch.

        Returns:
            The history so far; empty, and nothing restored, if there is no run to resume.

        Raises:
            InvalidArgumentError: the run has another identity (recipe, data, model), or its state can't be read.
        """
        if not (self.path / STATE).is_file():
            return []
        try:
            with (self.path / STATE).open("rb") as file, np.load(file) as state:  # np.load alone leaves a bad file open
                meta = json.loads(str(state["meta"]))
                arrays = [state[name] for name in sorted(set(state.files) - {"meta"})]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, f"{STATE}: {error}") from error
        differences = list(_differences(meta["identity"], json.loads(json.dumps(identity))))
        if differences:
            raise InvalidArgumentError(
                "A run can only be resumed with the recipe, the data and the model that it began with. To start "
                f"afresh, pass another `run_dir` or `resume=False`, which overwrites the run. Received: {self.path}, "
                f"where {'; '.join(differences)}."
            )
        for variable, array in zip(_variables(model), arrays, strict=True):
            variable.assign(array)
        return meta["history"]

    def _write(self, name: str, text: str) -> None:
        with self._replace(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def _replace(self, name: str) -> Iterator[pathlib.Path]:
        """A path to write to; takes the place of `name` at once when it is complete."""
        temporary = self.path / f"writing.{name}"  # before the name: Keras, NumPy and matplotlib look at the suffix
        yield temporary
        os.replace(temporary, self.path / name)


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, statistics, the state of random layers, and the optimizer's moments and step count."""
    trained = getattr(model, "student", model)  # a distiller's teacher does not change
    return [*trained.variables, *model.optimizer.variables]


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Compares two JSON values and names the innermost fields that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {before!r} and is now {now!r}"


def _damaged(path: pathlib.Path, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "A run to resume must be complete. To start afresh, pass another `run_dir` or `resume=False`, which "
        f"overwrites the run. Received: {path}, {what}."
    )
