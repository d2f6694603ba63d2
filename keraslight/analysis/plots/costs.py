"""Multiply-adds, parameters and memory of models as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from keraslight._pictures import COLORS, StrPath, checked_path, finished, new_figure
from keraslight.analysis.profile import By, Profile, profile
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = {  # attribute of a LayerCost -> base of its unit prefixes, units, axis label
    "macs": (1000, ("", " k", " M", " G", " T"), "multiply-adds"),
    "parameters": (1000, ("", " k", " M", " G", " T"), "parameters"),
    "activation_bytes": (1024, (" B", " KiB", " MiB", " GiB", " TiB"), "memory of the maps"),
    "access_bytes": (1024, (" B", " KiB", " MiB", " GiB", " TiB"), "memory access"),
}


def plot_costs(
    models: keras.Model | Profile | Sequence[keras.Model | Profile],
    *,
    by: By = "stage",
    metrics: Sequence[str] = ("macs", "parameters", "activation_bytes"),
    path: StrPath | None = None,
) -> Figure:
    """Draws the costs of each stage of one or several models for one image.

    There is one row of panels per model and one column per metric. The panels of a column share their scale, so that
    models can be compared. Each bar is labeled with its value and its share of the model's total.

    Args:
        models: Models with a fixed input size, or their profiles (pass `input_shape` to `profile`).
        by: What a bar stands for.
        metrics: Any of `"macs"`, `"parameters"`, `"activation_bytes"` (of all maps; the title shows the peak) and
            `"access_bytes"`; see `LayerCost`.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: There is no model, a size is open, or a metric, `by` or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    if not metrics or not set(metrics) <= set(_METRICS):
        raise InvalidArgumentError(f"`metrics` must be some of {tuple(_METRICS)}. Received: {tuple(metrics)}.")
    given = models if isinstance(models, Sequence) else [models]
    if not given:
        raise InvalidArgumentError("`models` must have at least one model. Received: none.")
    profiles = [one if isinstance(one, Profile) else profile(one) for one in given]
    groups = [[row for row in one._by(by) if any(getattr(row, name) for name in metrics)] for one in profiles]

    counts = [max(len(rows), 1) for rows in groups]
    figure = new_figure(1.6 + 2.9 * len(metrics), 0.5 + sum(0.6 + 0.22 * count for count in counts))
    panels = figure.subplots(
        len(profiles), len(metrics), sharex="col", sharey="row", squeeze=False, height_ratios=[c + 0.5 for c in counts]
    )
    for one, rows, line in zip(profiles, groups, panels, strict=True):
        for name, color, axes in zip(metrics, COLORS, line, strict=False):
            _bars(axes, name, [getattr(row, name) for row in rows], color)
            total = f"{_short(name, getattr(one, name))} {_METRICS[name][2]}"
            if name == "activation_bytes":
                total += f",\nat most {_short(name, one.peak_bytes)} at once"
            axes.set_title(f"{one.name}\n{total}" if axes is line[0] else total, loc="left", fontsize="medium")
        line[0].set_yticks(range(len(rows)), [row.name for row in rows])
        line[0].set_ylim(len(rows) - 0.5, -0.5)  # the first stage on top
    for name, axes in zip(metrics, panels[-1], strict=True):
        greatest = max((getattr(row, name) for rows in groups for row in rows), default=0)
        axes.set_xlim(0, 1.55 * greatest or 1)  # room for the bars' labels, shared by the whole column
        axes.set_xlabel(_METRICS[name][2])
        if _METRICS[name][0] == 1024 and greatest:  # steps of a power of 2, so that ticks are whole KiB or MiB
            axes.set_xticks([tick * 2 ** int(math.log2(greatest / 2)) for tick in range(4)])
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _, name=name: _short(name, value))
    return finished(figure, target)


def _bars(axes: Axes, name: str, values: list[int], color: str) -> None:
    total = sum(values)
    bars = axes.barh(range(len(values)), values, color=color, height=0.75)
    shares = [f"{v / total:.0%}" if v / total >= 0.005 else "<1%" for v in values] if total else values
    texts = [f"{_short(name, v)} ({share})" if v else "" for v, share in zip(values, shares, strict=True)]
    axes.bar_label(bars, texts, padding=2, fontsize="small")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str, value: float) -> str:
    """Formats a value with three digits and a unit: 928, 10.4 k, 3.12 MiB."""
    thousand, powers, _ = _METRICS[name]
    power = 0
    while abs(value) >= 999.5 and power < len(powers) - 1:
        value, power = value / thousand, power + 1
    return f"{value:.3g}{powers[power]}"
