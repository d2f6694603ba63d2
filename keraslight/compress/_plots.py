"""Pictures of compression reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keraslight.errors import MissingDependencyError


def heat_map(
    path: str | os.PathLike[str],
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    axis: str,
) -> Path:
    """Draws shares (R, C) in 0..1 as colors, each with its percents written in it; returns the path.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = _figure((2.5 + 0.3 * max(map(len, rows)) / 4 + 0.9 * len(columns), 1.6 + 0.24 * len(rows)))
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=float(values.min()), vmax=1)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set(title=title, xlabel=axis)
    middle = (float(values.min()) + 1) / 2
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > middle else "white"
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes)
    return _save(figure, path)


def bars(
    path: str | os.PathLike[str], values: np.ndarray, *, groups: Sequence[str], series: Sequence[str], title: str
) -> Path:
    """Draws shares (S, G), a bar for each of S forms in each of G groups; returns the path.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = _figure((2 + 1.2 * len(groups), 4))
    axes = figure.subplots()
    width = 0.8 / len(series)
    places = np.arange(len(groups))
    for number, (name, row) in enumerate(zip(series, values, strict=True)):
        drawn = axes.bar(places + (number - (len(series) - 1) / 2) * width, row, width, label=name)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.set_xticks(places, groups)
    axes.set(title=title, ylabel=f"as a share of {series[0]}")
    figure.legend(loc="outside lower center", ncols=len(series))  # inside it would hide bars
    return _save(figure, path)


def ranking(
    path: str | os.PathLike[str],
    values: np.ndarray,
    *,
    rows: Sequence[str],
    notes: Sequence[str],
    title: str,
    axis: str,
) -> Path:
    """Draws numbers (R,) as horizontal bars, the first on top, each with its note beside it; returns the path.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    figure = _figure((6 + 0.08 * max(map(len, rows)), 1.4 + 0.24 * len(rows)))
    axes = figure.subplots()
    axes.bar_label(axes.barh(range(len(rows)), values), notes, fontsize=7, padding=3)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)  # room for the notes
    axes.set(title=title, xlabel=axis)
    return _save(figure, path)


def _figure(size: tuple[float, float]):
    try:
        from matplotlib.figure import Figure  # not pyplot: it keeps figures and looks for a display
    except ImportError as error:
        raise MissingDependencyError(
            f"Pictures need matplotlib: pip install 'keraslight[compress]'. Received: {error}."
        ) from error
    return Figure(figsize=size, layout="constrained")


def _save(figure, path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
