"""What NetAdapt found, and the files that it keeps."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight._files import replacing, write_file
from keraslight._notebook import Report
from keraslight._pictures import COLORS, checked_path, finished, new_figure
from keraslight.compress.channels.groups import Groups
from keraslight.compress.channels.shrink import shrunk
from keraslight.errors import InvalidArgumentError
from keraslight.graph import build, copy, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "netadapt"
_SETTINGS, _HISTORY, _WIDTHS, _PLOT = "settings.json", "history.csv", "widths.json", "tradeoff.png"
START_OVER = "pass another `run_dir` or `resume=False`, which overwrites the run"

Kept = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class NetAdaptIteration:
    """A net on the way from the original to the budget.

    Attributes:
        iteration: Number of the iteration; 0 is the original net.
        group: Group of channels that became narrower; empty for the original net.
        was, now: Its width before and after.
        target: The resource that was aimed at.
        resource: The resource of the net.
        loss, accuracy: On the held-out part of the training images, after the short training.
        proposals: Number of groups that could reach the target, each of which was trained.
        halvings: How often the step was halved until a group could give it.
    """

    iteration: int
    group: str
    was: int
    now: int
    target: float
    resource: float
    loss: float
    accuracy: float
    proposals: int
    halvings: int


@dataclasses.dataclass(frozen=True)
class NetAdaptResult(Report):
    """What `netadapt` found. `str()` is a table of the iterations and one of the widths.

    Attributes:
        model: The narrower model, after the long training if there was one.
        iterations: The original net, and the one after each iteration.
        widths: Name of a group -> its widths before and after, of all that were searched.
        metric, unit: What was saved: those of the resource.
        budget: The resource that was aimed at in the end.
        run_dir: Folder with all files.
    """

    model: keras.Model
    iterations: tuple[NetAdaptIteration, ...]
    widths: dict[str, tuple[int, int]]
    metric: str
    unit: str
    budget: float
    run_dir: Path
    original: keras.Model = dataclasses.field(repr=False)

    def __str__(self) -> str:
        first = self.iterations[0].resource
        table = [("iteration", "group", "width", self.metric, "", "loss", "accuracy", "proposals")]
        for row in self.iterations:
            amount = f"{row.resource:.3f} {self.unit}" if self.unit else f"{row.resource:,.0f}"
            change = f"{row.was} -> {row.now}" if row.group else ""
            share = f"{row.resource / first:.1%}"
            scores = f"{row.loss:.4f}", f"{row.accuracy:.2%}"
            table.append((str(row.iteration), row.group, change, amount, share, *scores, str(row.proposals)))
        widths = [("group", "before", "after")]
        widths += [(name, str(before), str(after)) for name, (before, after) in self.widths.items()]
        return f"{_columns(table, 2)}\n\n{_columns(widths, 1)}"

    def at(self, iteration: int) -> keras.Model:
        """The net after an iteration as a model of its own, with the weights after the short training.

        Raises:
            InvalidArgumentError: There was no such iteration.
        """
        if iteration not in range(len(self.iterations)):
            raise InvalidArgumentError(
                f"`iteration` must be from 0 to {len(self.iterations) - 1}. Received: {iteration!r}."
            )
        _, kept, state = AdaptationFolder(self.run_dir).load(iteration)
        model = copy(self.original)
        for variable, value in zip(model.variables, state, strict=True):
            variable.assign(value)
        return narrowed(model, kept)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draws loss and accuracy of all iterations against the resource, and the widths before and after."""
        file = checked_path(path)
        figure = new_figure(11, max(3.5, 1.2 + 0.22 * len(self.widths)), extra="compress")
        left, right = figure.subplots(1, 2)
        costs = [row.resource for row in self.iterations]
        lines = left.plot(costs, [row.loss for row in self.iterations], color=COLORS[0], marker=".", label="loss")
        lines.append(left.axvline(self.budget, color=COLORS[5], linewidth=1, label="budget"))
        scores = left.twinx()
        accuracies = [row.accuracy for row in self.iterations]
        lines += scores.plot(costs, accuracies, color=COLORS[1], marker=".", linestyle="--", label="accuracy")
        left.set(xlabel=f"{self.metric} ({self.unit})" if self.unit else self.metric, ylabel="loss on held-out images")
        left.locator_params(axis="x", nbins=5)  # multiply-adds have many digits
        left.grid(color="0.9")
        scores.set_ylabel("accuracy")
        left.legend(handles=lines)
        places = np.arange(len(self.widths))
        for number, label in enumerate(("before", "after")):
            sizes = [pair[number] for pair in self.widths.values()]
            right.barh(places + 0.4 * number - 0.2, sizes, 0.4, color=COLORS[number], label=label)
        right.set_yticks(places, list(self.widths), fontsize=7)
        right.invert_yaxis()
        right.set_xlabel("width")
        right.legend()
        return finished(figure, file)


def _columns(rows: Sequence[Sequence[str]], left: int) -> str:
    """A table whose first columns are aligned to the left."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if place < left else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ).rstrip()
        for row in rows
    )


def narrowed(model: keras.Model, kept: Mapping[str, np.ndarray]) -> keras.Model:
    """The model without the channels that aren't kept."""
    return build(shrunk(Groups(read(model, opaque=True)), kept))


class AdaptationFolder:
    """Writes and reads the files of a search. Each is replaced in one step, so that none is ever incomplete."""

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.path = Path(run_dir, FOLDER)

    def begin(self, identity: Mapping[str, Any], *, resume: bool) -> int:
        """Prepares the folder; returns the number of iterations that can be loaded.

        Raises:
            InvalidArgumentError: It has a search that began with other settings.
        """
        if not resume:
            shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".*"):
            leftover.unlink()  # of a search that was killed while writing
        settings = self.path / _SETTINGS
        wanted = json.loads(json.dumps(identity))
        if settings.exists():
            try:
                began = json.loads(settings.read_text(encoding="utf-8"))
            except ValueError as error:
                raise self._damaged(f"{_SETTINGS}: {error}") from error
            differ = sorted(name for name in {**began, **wanted} if began.get(name) != wanted.get(name))
            if differ:
                raise InvalidArgumentError(
                    "A search can only be resumed with the model, the data and the settings that it began with. To "
                    f"start over, {START_OVER}. Received: {self.path}, where {', '.join(differ)} differ."
                )
        write_file(settings, json.dumps(wanted, indent=2) + "\n")
        count = 0
        while self._file(count).exists():
            count += 1
        return count

    def save(self, row: NetAdaptIteration, kept: Kept, state: Sequence[np.ndarray]) -> None:
        """Writes an iteration."""
        meta = json.dumps({"row": dataclasses.asdict(row), "kept": {n: p.tolist() for n, p in kept.items()}})
        with replacing(self._file(row.iteration)) as temporary:
            np.savez(temporary, np.asarray(meta), *state)

    def load(self, iteration: int) -> tuple[NetAdaptIteration, Kept, list[np.ndarray]]:
        """Reads an iteration."""
        try:
            with self._file(iteration).open("rb") as file, np.load(file) as found:
                arrays = [found[f"arr_{place}"] for place in range(len(found.files))]
            meta = json.loads(str(arrays[0]))
            kept = {name: np.array(places) for name, places in meta["kept"].items()}
            return NetAdaptIteration(**meta["row"]), kept, arrays[1:]
        except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
            raise self._damaged(f"{self._file(iteration).name}: {error}") from error

    def save_history(self, rows: Sequence[NetAdaptIteration]) -> None:
        """Replaces the table of iterations."""
        table = io.StringIO()
        names = [field.name for field in dataclasses.fields(NetAdaptIteration)]
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))
        write_file(self.path / _HISTORY, table.getvalue())

    def finish(self, result: NetAdaptResult) -> None:
        """Writes the widths, as `shrink` takes them, and the plot."""
        widths = {name: after for name, (_, after) in result.widths.items()}
        write_file(self.path / _WIDTHS, json.dumps(widths, indent=2) + "\n")
        with replacing(self.path / _PLOT) as temporary:
            result.plot(temporary)

    def _file(self, iteration: int) -> Path:
        return self.path / f"{iteration:04d}.npz"

    def _damaged(self, what: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"A search to resume must be complete. To start over, {START_OVER}. Received: {self.path}, {what}."
        )
