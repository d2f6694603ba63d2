"""The report of an evaluation as one picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keraslight._pictures import COLORS, StrPath, checked_path, finished, new_figure
from keraslight.analysis._evaluation_text import cut, headline, shown_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keraslight.analysis._scores import Calibration
    from keraslight.analysis.evaluation import Evaluation

_NAMED = 30  # classes whose names fit at a confusion matrix
_NUMBERED = 15  # classes whose counts fit into it
_BARS = 20  # classes in the chart of scores
_LABEL = 18


def plot(report: Evaluation, path: StrPath | None) -> Figure:
    """Draws up to four panels: see `Evaluation.plot`."""
    file = checked_path(path)
    confusion, calibration = report.confusion, report.calibration
    panels: list[Callable[[Axes], None]] = []
    if confusion is not None:
        panels.append(lambda axes: _confusion(axes, report, confusion))
    if report.classes:
        panels.append(lambda axes: _classes(axes, report))
    if report.values:
        panels.append(lambda axes: _values(axes, report))
    if calibration is not None:
        panels.append(lambda axes: _calibration(axes, report, calibration))
    if report.robustness:
        panels.append(lambda axes: _robustness(axes, report))
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(6.2 * columns, 4.8 * rows)
    places = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, panel in zip(places, panels, strict=False):
        panel(axes)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(cut(f"{report.name}: {headline(report)}", 100))
    return finished(figure, file)


def _confusion(axes: Axes, report: Evaluation, counts: NDArray[np.int64]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= _NUMBERED:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    if len(counts) <= _NAMED:
        names, places = [cut(label, _LABEL) for label in report.labels], range(len(counts))
        turned = 90 if max(map(len, names)) * len(names) > 40 else 0
        axes.set_xticks(places, names, rotation=turned, fontsize=8)
        axes.set_yticks(places, names, fontsize=8)
    axes.set(xlabel="answer", ylabel="true class", title="Confusions, as a share of the class")


def _classes(axes: Axes, report: Evaluation) -> None:
    several = report.task == "multi-label"
    shown = shown_classes(report, _BARS)
    rows = [report.classes[index] for index in shown]
    places = np.arange(len(rows))
    bars = {"precision": [row.precision for row in rows], "recall": [row.recall for row in rows]}
    if several:
        bars["average precision"] = [row.average_precision or 0.0 for row in rows]
    height = 0.8 / len(bars)
    for number, (name, values) in enumerate(bars.items()):
        middle = places + (number - (len(bars) - 1) / 2) * height
        axes.barh(middle, np.nan_to_num(values), height, label=name, color=COLORS[number])
    axes.set_yticks(places, [f"{cut(row.label, _LABEL)} ({row.count})" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    left = len(report.classes) - len(rows)
    axes.set_title(f"The {len(rows)} classes with the lowest F1" if left else "Scores per class (and images)")
    _legend(axes)
    axes.grid(axis="x", alpha=0.3)


def _legend(axes: Axes) -> None:
    """Above the panel, as the bars and curves fill it."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    axes.set_title(axes.get_title(), pad=20)


def _values(axes: Axes, report: Evaluation) -> None:
    for number, row in enumerate(report.values[: len(COLORS)]):
        targets, found = report.targets[:, number], report.outputs[:, number]
        label = f"{cut(row.label, _LABEL)}, R2 {row.r2:.3f}"
        axes.plot(targets, found, ".", markersize=4, alpha=0.6, color=COLORS[number], label=label)
    ends = [float(report.targets.min()), float(report.targets.max())]
    axes.plot(ends, ends, color="gray", linewidth=1)
    left = len(report.values) - len(COLORS)
    axes.set(xlabel="target", ylabel="prediction", title="Predictions" + (f" ({left} not shown)" if left > 0 else ""))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _calibration(axes: Axes, report: Evaluation, found: Calibration) -> None:
    bins = len(found.counts)
    middles = (np.arange(bins) + 0.5) / bins
    counts = np.asarray(found.counts)
    axes.bar(middles, counts / counts.max(), 1 / bins, color="#DDDDDD", label="answers, relative to the fullest bin")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    axes.plot(found.confidence, found.accuracy, marker="o", color=COLORS[0], label="right answers")
    what = "score" if report.task == "multi-label" else "probability of the answer"
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=what, ylabel="share that is right")
    axes.set_title(f"Calibration: expected error {found.ece:.1%}")
    _legend(axes)


def _robustness(axes: Axes, report: Evaluation) -> None:
    values = {"as they are": report.score, **report.robustness}
    numbers = np.nan_to_num(list(values.values()))
    colors = [COLORS[0], *[COLORS[4]] * len(report.robustness)]
    bars = axes.barh(range(len(values)), numbers, color=colors)
    plain = report.task == "regression"
    axes.bar_label(bars, [f"{v:.3f}" if plain else f"{100 * v:.1f}%" for v in values.values()], padding=3, fontsize=8)
    axes.set_yticks(range(len(values)), [cut(name, 26) for name in values], fontsize=8)
    axes.invert_yaxis()
    if not plain:
        axes.set_xlim(0, 1.15)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title({"multi-label": "Mean average precision", "regression": "R2"}.get(report.task, "Accuracy"))
