"""The run folder: the files that a training run writes, and how to read them."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

import keraslight.layers  # noqa: F401 (registers the layers that best.keras may contain)
from keraslight._files import replacing, write_file
from keraslight._pictures import new_figure
from keraslight._tasks import Head, best_thresholds, check_task, probabilities
from keraslight.errors import InvalidArgumentError
from keraslight.graph import remember_task
from keraslight.training._data import ImageData
from keraslight.training._processes import Processes
from keraslight.training._recipe import Recipe

BEST, INFO, HISTORY, CURVES, STATE = "best.keras", "model.json", "history.csv", "curves.png", "last.npz"
TRACKING, TENSORBOARD = "tracking.json", "tensorboard"  # of `train(track=...)`: a file and a folder
FILES = (STATE, BEST, INFO, HISTORY, CURVES, TRACKING)  # the state first: without it, a run can't be resumed

START_OVER = "pass another `run_dir` or `resume=False`, which overwrites the run"

Row = dict[str, float]
"""Metrics of an epoch: epoch (from 1), learning_rate, loss, accuracy, val_loss, val_accuracy, seconds,
images_per_second, waiting."""


def columns(history: Sequence[Row]) -> tuple[str, ...]:
    """The names of all rows: those of a run that an earlier version began may have fewer."""
    return tuple(dict.fromkeys(name for row in history for name in row))


def load_run(path: str | os.PathLike[str]) -> tuple[keras.Model, dict[str, Any]]:
    """Loads the best model from a run folder, even if its training hasn't finished.

    Args:
        path: The `run_dir` passed to `train`.

    Returns:
        The best model, not compiled: raw pixels (B, H, W, C) in 0..255 -> (B, K); it remembers its task. And the
        content of model.json: "task", "labels", "thresholds" (of a multi-label model, for `save_servable`),
        "preprocessing" (for `Preprocessing.from_dict`), "recipe" (for `Recipe.from_dict`), "seed", "distillation" (None
        without a teacher), "metrics" and "versions".

    Raises:
        InvalidArgumentError: `path` isn't a run folder.
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
    model = keras.saving.load_model(folder / BEST, compile=False)
    check_task(info.get("task"))
    remember_task(model, info.get("task"))
    return model, info


def recorded_data(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The fingerprint of the data that a run was trained on, as `ImageData.fingerprint` gives it; None without one."""
    try:
        with (pathlib.Path(path) / STATE).open("rb") as file, np.load(file) as state:
            identity = json.loads(str(state["meta"]))["identity"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    found: dict[str, Any] | None = identity.get("data")
    return found


def held_out_thresholds(model: keras.Model, head: Head, data: ImageData, batch_size: int = 32) -> tuple[float, ...]:
    """The threshold of each label of a `multi-label` model with the largest F1 on the held-out images."""
    images = data.validation(batch_size).map(lambda images, _: images)
    scores = probabilities(head, model.predict(images, verbose=0))
    return best_thresholds(data.targets[data.validation_indices], scores)


class RunFolder:
    """Writes and reads the files of a run. Each file is replaced atomically, so that none is ever incomplete.

    Of several processes, the first alone writes and reads it, and the others get what it has read.
    """

    def __init__(self, path: str | os.PathLike[str], processes: Processes | None = None) -> None:
        self.path, self._processes = pathlib.Path(path), processes or Processes()
        if not self._processes.first:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in (file for name in FILES for file in self.path.glob(f".*.{name}")):
            leftover.unlink()  # of a run that was killed while writing

    def clear(self) -> None:
        """Removes the files of an earlier run, but no others."""
        if not self._processes.first:
            return
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / TENSORBOARD, ignore_errors=True)

    def save_best(self, model: keras.Model) -> None:
        with replacing(self.path / BEST) as temporary:
            model.save(temporary)

    def load_best(self, model: keras.Model) -> None:
        """Loads the weights of the best checkpoint into `model`."""
        with self._at_hand(BEST) as file:
            if file is None:
                raise _damaged(self.path, f"no {BEST}")
            model.load_weights(file)

    def save_info(self, info: dict[str, Any]) -> None:
        write_file(self.path / INFO, json.dumps(info, indent=2) + "\n")

    def thresholds(self) -> tuple[float, ...] | None:
        """Those of `model.json`, if it is there and has any."""
        try:
            found = json.loads((self.path / INFO).read_text(encoding="utf-8")).get("thresholds")
        except (OSError, ValueError):
            return None
        return None if found is None else tuple(found)

    def save_history(self, history: list[Row]) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, columns(history), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_file(self.path / HISTORY, table.getvalue())

    def save_curves(self, history: list[Row]) -> None:
        """Replaces the plot of loss and accuracy over the epochs."""
        figure = new_figure(10, 4)
        epochs = [row["epoch"] for row in history]
        for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            axes.plot(epochs, [row[metric] for row in history], marker=".", label="training (augmented)")
            axes.plot(epochs, [row[f"val_{metric}"] for row in history], marker=".", label="validation")
            for before, row in itertools.pairwise([{}, *history]):
                if row.get("size") != before.get("size"):
                    axes.axvline(row["epoch"] - 0.5, color="gray", linestyle="--", linewidth=1)
                    axes.text(row["epoch"] - 0.4, 0.02, f"{row['size']:.0f} px", transform=axes.get_xaxis_transform())
            axes.set(xlabel="epoch", ylabel=metric)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        with replacing(self.path / CURVES) as temporary:
            figure.savefig(temporary)

    def save_state(
        self, model: keras.Model, history: list[Row], identity: dict[str, Any], more: Sequence[Any] = ()
    ) -> None:
        """Replaces the state that a resume needs. Written last in an epoch, so that all other files are complete.

        `more`: variables besides those of the compiled model and its optimizer.
        """
        meta = np.asarray(json.dumps({"history": history, "identity": identity}))
        # As np.savez, which would take a copy of every array into memory first.
        with replacing(self.path / STATE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, value in itertools.chain([("meta", meta)], enumerate([*_variables(model), *more])):
                label = name if isinstance(name, str) else f"{name:05d}"
                with archive.open(f"{label}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)

    def load_state(self, model: keras.Model, identity: dict[str, Any], more: Sequence[Any] = ()) -> list[Row]:
        """Restores a compiled model and its optimizer to the last finished epoch; returns the history so far.

        The history is empty without a run to resume. The identity (recipe, data, model) must be equal.
        """
        with self._at_hand(STATE) as found:
            if found is None:
                return []
            try:
                with found.open("rb") as file, np.load(file) as state:  # np.load alone leaves a bad file open
                    meta = json.loads(str(state["meta"]))
                    arrays = [state[name] for name in sorted(set(state.files) - {"meta"})]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise _damaged(self.path, f"{STATE}: {error}") from error
        began = meta["identity"]
        began = began | {"recipe": Recipe.from_dict(began["recipe"]).identity()}  # perhaps before a field was added
        differences = list(_differences(began, json.loads(json.dumps(identity))))
        if differences:
            raise InvalidArgumentError(
                "A run can only be resumed with the recipe, the data and the model that it began with. To start over, "
                f"{START_OVER}. Received: {self.path}, where {'; '.join(differences)}."
            )
        for variable, array in zip([*_variables(model), *more], arrays, strict=True):
            variable.assign(array)
        return meta["history"]

    @contextlib.contextmanager
    def _at_hand(self, name: str) -> Iterator[pathlib.Path | None]:
        """The file, or a copy of that of the first process; None where there is none."""
        file = self.path / name
        if self._processes.count == 1:
            yield file if file.is_file() else None
            return
        content = self._processes.from_first(lambda: file.read_bytes() if file.is_file() else b"")
        if self._processes.first or not content:
            yield file if content else None
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder, name)
            copy.write_bytes(content)
            yield copy


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, statistics, states of random layers, and the optimizer's moments and step count."""
    trained = getattr(model, "student", model)  # a distiller's teacher doesn't change
    return [*trained.variables, *model.optimizer.variables]


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Compares two JSON values; yields the innermost fields that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {before!r} and is now {now!r}"


def _damaged(path: pathlib.Path, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"A run to resume must be complete. To start over, {START_OVER}. Received: {path}, {what}."
    )
