"""What a search found."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from optuna.trial import FixedTrial

from keraslight._files import write_file
from keraslight._notebook import Report
from keraslight._pictures import COLORS, finished, new_figure
from keraslight.analysis import pareto_front
from keraslight.errors import InvalidArgumentError
from keraslight.search._measure import COLUMN, Meter
from keraslight.search._nets import Nets
from keraslight.search._study import FRONT, RECORD, TRIALS
from keraslight.training import load_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

_AXES = {"latency": "latency (ms)", "macs": "multiply-adds", "parameters": "parameters"}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One finished trial.

    Attributes:
        number: Number of the trial, from 0.
        choices: What the sampler chose, by name.
        macs, parameters: Multiply-adds for one image, and parameters. None if the trial ended before they were counted.
        latency_ms: Median latency in milliseconds; None if another metric is searched by.
        loss, accuracy: On the images held out of the training part, without label smoothing. None without a training.
        stopped: Why the trial has no loss; empty if it has one.
        seconds: Duration of the trial.
        code: Program that builds the net with random weights; empty if the user's function built it.
    """

    number: int
    choices: dict[str, Any]
    macs: int | None
    parameters: int | None
    latency_ms: float | None
    loss: float | None
    accuracy: float | None
    stopped: str
    seconds: float
    code: str

    @classmethod
    def of(cls, trial: FrozenTrial, nets: Nets) -> Candidate:
        """The candidate of a finished trial."""
        record = trial.user_attrs[RECORD]
        fields = {name: record.get(name) for name in ("macs", "parameters", "latency_ms", "loss", "accuracy")}
        code = nets.code(FixedTrial(trial.params)) if trial.params else ""
        return cls(
            trial.number,
            dict(trial.params),
            **fields,
            stopped=record.get("stopped", ""),
            seconds=record["seconds"],
            code=code,
        )


@dataclasses.dataclass(frozen=True)
class SearchResult(Report):
    """What `search` found so far. `str()` is a table of the front.

    Attributes:
        candidates: All finished trials, by number.
        front: Numbers of the trials that no other one beats, which means cheaper or of lower loss, and not worse in the
            other; the cheapest first.
        metric: What is called cost: `"latency"`, `"macs"` or `"parameters"`.
        target: Cost that the search aimed at, or None.
        exponent: Exponent of the cost in the objective, with a target.
        run_dir: Folder with trials.journal, front.csv, front.png and a run folder per trained trial.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[int, ...]
    metric: str
    target: float | None
    exponent: float
    run_dir: Path
    meter: Meter = dataclasses.field(repr=False)
    nets: Nets = dataclasses.field(repr=False)

    @classmethod
    def of(
        cls,
        candidates: tuple[Candidate, ...],
        meter: Meter,
        nets: Nets,
        target: float | None,
        exponent: float,
        run_dir: Path,
    ) -> SearchResult:
        """The result of these candidates."""
        column = COLUMN[meter.metric]
        trained = [found for found in candidates if found.loss is not None]
        front = pareto_front([getattr(c, column) for c in trained], [-(c.loss or 0.0) for c in trained])
        numbers = tuple(trained[place].number for place in front)
        return cls(candidates, numbers, meter.metric, target, exponent, run_dir, meter, nets)

    def __getitem__(self, number: int) -> Candidate:
        """The finished trial of that number."""
        found = next((candidate for candidate in self.candidates if candidate.number == number), None)
        if found is None:
            numbers = ", ".join(str(candidate.number) for candidate in self.candidates) or "none"
            raise InvalidArgumentError(f"The number must be that of a finished trial, {numbers}. Received: {number}.")
        return found

    def cost(self, candidate: Candidate) -> float:
        """A candidate's cost in the metric of this search."""
        return float(getattr(candidate, COLUMN[self.metric]))

    def pick(self, at_most: float | None = None) -> Candidate:
        """The best candidate: with a target that of the lowest objective, else of the lowest loss.

        Args:
            at_most: Largest cost, in milliseconds, multiply-adds or parameters: then the candidate of the lowest loss
                among those that cost no more. None for any.

        Raises:
            InvalidArgumentError: No trained net costs as little.
        """
        choices = [self[number] for number in self.front if at_most is None or self.cost(self[number]) <= at_most]
        if not choices:
            raise InvalidArgumentError(
                f"`at_most` must be at least the cheapest trained net's {self.metric}. Received: {at_most}, and "
                + (f"{self.cost(self[self.front[0]]):g} in {self.run_dir}." if self.front else "no trained net.")
            )
        target = self.target
        if target is None or at_most is not None:
            return choices[-1]
        return min(choices, key=lambda c: objective(c.loss or 0.0, self.cost(c), target, self.exponent))

    def best(self, at_most: float | None = None) -> keras.Model:
        """The model of `pick(at_most)`, as its trial trained it: on a part of the training images, in few epochs.

        Raises:
            InvalidArgumentError: No trained net costs as little.
        """
        model, _ = load_run(self.run_dir / TRIALS / f"{self.pick(at_most).number:04d}")
        return model

    def build(self, number: int) -> keras.Model:
        """The net of a trial with random weights."""
        return self.nets.build(FixedTrial(self[number].choices))

    def plot(self, path: Path | str | None = None) -> Figure:
        """Draws loss against cost: the front, and all other trained nets."""
        figure = new_figure(8, 5, extra="search")
        axes = figure.subplots()
        trained = [candidate for candidate in self.candidates if candidate.loss is not None]
        others = [candidate for candidate in trained if candidate.number not in self.front]
        groups: tuple[tuple[list[Candidate], str, dict[str, Any]], ...] = (
            (others, "trial", {"marker": "o", "linestyle": "", "color": "0.7"}),
            (
                [self[n] for n in self.front],
                "front",
                {"marker": "o", "color": COLORS[0], "drawstyle": "steps-post", "linestyle": "--"},
            ),
        )
        for group, label, style in groups:
            axes.plot([self.cost(c) for c in group], [c.loss or 0.0 for c in group], label=label, **style)
        for number in self.front:
            place = (self.cost(self[number]), self[number].loss or 0.0)
            axes.annotate(str(number), place, xytext=(4, 4), textcoords="offset points", fontsize="small")
        if self.target is not None:
            axes.axvline(self.target, color=COLORS[5], linewidth=1, label="target")
        axes.set(xscale="log", yscale="log", xlabel=_AXES[self.metric], ylabel="loss on held-out images")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.legend()
        return finished(figure, None if path is None else Path(path))

    def save(self) -> None:
        """Writes front.csv."""
        columns = list(dict.fromkeys(["macs", "parameters", *([COLUMN[self.metric]])]))
        rows = []
        for number in self.front:
            candidate = self[number]
            row = {"trial": number, "loss": candidate.loss, "accuracy": candidate.accuracy}
            rows.append(row | {name: getattr(candidate, name) for name in columns} | candidate.choices)
        table = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row)) or ["trial"]
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(self.run_dir / FRONT, table.getvalue())

    def __str__(self) -> str:
        header = ("trial", "loss", "accuracy", *(("ms",) if self.metric == "latency" else ()), "MACs", "parameters")
        rows = [header]
        for candidate in (self[number] for number in self.front):
            ms = () if candidate.latency_ms is None else (f"{candidate.latency_ms:.3f}",)
            rows.append(
                (
                    str(candidate.number),
                    f"{candidate.loss:.4f}",
                    f"{candidate.accuracy:.2%}",
                    *ms,
                    f"{candidate.macs:,}",
                    f"{candidate.parameters:,}",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        trained = sum(candidate.loss is not None for candidate in self.candidates)
        stopped = len(self.candidates) - trained
        end = f"{trained} nets trained, {stopped} stopped before. Run folder: {self.run_dir}"
        return "\n".join([*lines, end])


def objective(loss: float, cost: float, target: float, exponent: float) -> float:
    """MnasNet's reward, of a loss that is minimized: loss * (cost / target)^exponent."""
    return loss * math.pow(cost / target, exponent)
