"""The operators that a network spends its time in, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keraslight._pictures import COLORS, StrPath, checked_path, finished, new_figure
from keraslight.analysis.operation_table import OperationLatency
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_operations(
    rows: Sequence[OperationLatency], *, top: int = 20, title: str = "", path: StrPath | None = None
) -> Figure:
    """Draws the slowest operators of a network, the slowest one on top, with their shares of the sum.

    A hatched bar at the bottom has all others.

    Args:
        rows: What `OperationTable.operations` returns.
        top: Number of operators with bars of their own (at least 1).
        title: Title of the plot.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: There are no operators, or `top` or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    if not rows or top < 1:
        raise InvalidArgumentError(
            f"`rows` must hold an operator, and `top` must be at least 1. Received: {len(rows)} rows, top={top}."
        )
    ranked = sorted(rows, key=lambda row: -row.ms)
    total = sum(row.ms for row in rows) or 1.0
    shown, others = ranked[:top], ranked[top:]
    names = [f"{row.layers[-1] if row.layers else row.kind}, {_sides(row.output)}" for row in shown]
    times = [row.ms for row in shown]
    if others:
        names.append(f"{len(others)} others")
        times.append(sum(row.ms for row in others))
    figure = new_figure(6 + 0.06 * max(map(len, names)), 1.2 + 0.24 * len(names))
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), times, color=COLORS[0])
    if others:
        bars[-1].set(hatch="//", facecolor="white", edgecolor=COLORS[0])
    notes = [f"{1000 * ms:,.1f} µs, {ms / total:.1%}" for ms in times]
    axes.bar_label(bars, notes, fontsize="small", padding=3)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.25)
    axes.set_title(title or f"{len(rows)} operators, {total:.3f} ms")
    axes.set_xlabel("milliseconds")
    return finished(figure, target)


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:]))
