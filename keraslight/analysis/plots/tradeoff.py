"""Accuracy against cost for many models, and their Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from keraslight._pictures import COLORS, StrPath, checked_path, finished, new_figure
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = {  # attribute -> what its values are divided by, label
    "macs": (1e6, "multiply-adds (millions)"),
    "parameters": (1e6, "parameters (millions)"),
    "latency_ms": (1.0, "latency (ms)"),
    "top1": (1.0, "ImageNet top-1 accuracy (%)"),
}
_MARKERS = (  # one for each family of the zoo, to distinguish them in grayscale
    *"os^DvP<X>hpd*",
    *((4, 1, 0), (4, 1, 45), (6, 1, 0), (10, 1, 0), (5, 1, 180)),  # stars: points, 1, angle
    *("$\\spadesuit$", [(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)], "$\\clubsuit$", "8"),  # one drawn: an hourglass
)
_LABELLED = 25  # with more points, only those on the front are named


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Finds the points that no other point beats, where beating means cheaper or better, and not worse in the other.

    Args:
        costs: One finite number per point; less is better.
        scores: One finite number per point; more is better.

    Returns:
        Indices of the points, by ascending cost. Of equal points, either all are on the front or none.

    Raises:
        InvalidArgumentError: The lengths differ, or a value is not finite.
    """
    cost, score = np.asarray(costs, "float64"), np.asarray(scores, "float64")
    if cost.ndim != 1 or cost.shape != score.shape:
        raise InvalidArgumentError(
            "`costs` and `scores` must have one number per point each. "
            f"Received: shapes {cost.shape} and {score.shape}."
        )
    if not (np.isfinite(cost).all() and np.isfinite(score).all()):
        raise InvalidArgumentError("`costs` and `scores` must be finite. Received: some that are not.")
    front: list[int] = []
    for index in np.lexsort((-score, cost)):  # by cost, the best of a cost first
        best = front[-1] if front else None
        if best is None or score[index] > score[best] or (score[index], cost[index]) == (score[best], cost[best]):
            front.append(int(index))
    return front


def plot_tradeoff(
    records: Sequence[Any], *, x: str = "macs", y: str = "top1", group: str | None = None, path: StrPath | None = None
) -> Figure:
    """Draws accuracy against cost, one point per model, and the Pareto front: the models that no other one beats.

    Points on the front are filled, others are hollow. Up to 25 models are all named if there is room; of more, only
    those on the front.

    Args:
        records: One mapping or object per model with `name`, `x`, `y` and `group`, such as
            `keraslight.model_info(...)` or rows of your own measurements. Records whose `x` or `y` is None are left
            out; the title gives their number.
        x: Cost, such as `"macs"`, `"parameters"` or `"latency_ms"`; positive, less is better. Its axis is logarithmic.
        y: Score, such as `"top1"`; more is better.
        group: Attribute by which models share a marker and a color, such as `"family"`.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: A record lacks an attribute, a cost is not positive, a value is not a finite number, no
            record is left, or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    asked = ["name", x, y, *([group] if group else [])]
    rows = [[_value(record, field) for field in asked] for record in records]
    known = [row for row in rows if row[1] is not None and row[2] is not None]
    if not known:
        raise InvalidArgumentError(
            f"`records` must have one with both {x!r} and {y!r}. Received: {len(rows)} records, none with both."
        )
    for row in known:
        if not all(isinstance(value, Real) for value in row[1:3]):
            raise InvalidArgumentError(
                f"{x!r} and {y!r} must be numbers. Received: {row[1]!r}, {row[2]!r} of {row[0]!r}."
            )
    names = [str(row[0]) for row in known]
    (unit, x_label), (y_unit, y_label) = _AXES.get(x, (1.0, x)), _AXES.get(y, (1.0, y))
    costs, scores = [row[1] / unit for row in known], [row[2] / y_unit for row in known]
    if min(costs) <= 0:
        raise InvalidArgumentError(f"`x` must be positive. Received: {x}={min(costs) * unit}.")
    front = pareto_front(costs, scores)
    groups = [str(row[3]) if group else "" for row in known]

    figure = new_figure(10 if group else 8, 6)
    axes = figure.subplots()
    axes.plot(
        [costs[i] for i in front], [scores[i] for i in front],
        color="0.35", linestyle="--", linewidth=1, drawstyle="steps-post", zorder=1, label="Pareto front",
    )  # fmt: skip
    for number, name in enumerate(dict.fromkeys(groups)):
        color, marker = COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]
        look = {"marker": marker, "linestyle": "", "markersize": 7}
        axes.plot([], [], color=color, markeredgecolor="black", label=name or "on the front", **look)
        for i in (i for i, own in enumerate(groups) if own == name):
            face = color if i in front else "white"
            edge = "black" if i in front else color
            axes.plot(costs[i], scores[i], color=face, markeredgecolor=edge, **look)
    axes.plot([], [], "o", color="white", markeredgecolor="0.35", label="not on the front")
    axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
    axes.margins(0.08)
    _plain_ticks(axes)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if missing := len(rows) - len(known):
        axes.set_title(f"{missing} of {len(rows)} models left out: {x} or {y} not known", fontsize="medium")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    _name_points(figure, axes, names, costs, scores, front)
    return finished(figure, target)


def _value(record: Any, field: str) -> Any:
    try:
        return record[field] if isinstance(record, Mapping) else getattr(record, field)
    except (KeyError, AttributeError):
        raise InvalidArgumentError(f"Every record must have {field!r}. Received: {record!r}.") from None


def _plain_ticks(axes: Axes) -> None:
    """Labels the axis with 50, 100, 200 instead of powers of 10."""
    from matplotlib import ticker

    least, greatest = axes.get_xlim()
    decades = math.log10(greatest / least)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _name_points(
    figure: Figure, axes: Axes, names: list[str], costs: list[float], scores: list[float], front: list[int]
) -> None:
    """Writes names next to points, each at the first position around its point where it covers nothing.

    Names on the front come first and are always written, where they cover the least.
    """
    figure.draw_without_rendering()  # the layout must be known before texts can be measured
    area = axes.get_window_extent()
    points = axes.transData.transform(np.column_stack([costs, scores]))
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in points]
    for (x0, y0), (x1, y1) in zip(points[front], points[front][1:], strict=False):  # the front's steps
        taken += [(x0, y0 - 1, x1, y0 + 1), (x1 - 1, min(y0, y1), x1 + 1, max(y0, y1))]
    others = [i for i in range(len(names)) if i not in front] if len(names) <= _LABELLED else []
    for i in [*front, *others]:
        text = axes.text(0, 0, names[i], fontsize="x-small", color="black" if i in front else "0.35")
        box = text.get_window_extent()
        text.remove()
        places = []
        for dx, dy in _around(box.width, box.height):
            left, bottom = points[i][0] + dx, points[i][1] + dy
            place = (left, bottom, left + box.width, bottom + box.height)
            outside = box.width * box.height - _overlap(place, area.extents)
            places.append((sum(_overlap(place, other) for other in taken) + 100 * outside, dx, dy, place))
        cost, dx, dy, place = min(places, key=lambda found: round(found[0], 3))  # of equal ones, the closest
        if round(cost, 3) and i not in front:
            continue
        note = axes.annotate(
            names[i], (costs[i], scores[i]), (dx * 72 / figure.dpi, dy * 72 / figure.dpi), textcoords="offset points",
            fontsize="x-small", color=text.get_color(), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 3},
        )  # fmt: skip
        note.set_in_layout(False)  # otherwise the layout would move after the text was placed
        taken.append(place)


def _around(width: float, height: float) -> list[tuple[float, float]]:
    """Positions of a text's lower left corner relative to its point, in pixels, the closest first."""
    places = []
    for gap in (9.0, 18.0, 32.0, 50.0):
        places += [(gap, -height / 2), (-gap - width, -height / 2), (-width / 2, gap), (-width / 2, -gap - height)]
        places += [(dx, dy) for dy in (gap * 0.7, -gap * 0.7 - height) for dx in (gap * 0.7, -gap * 0.7 - width)]
    return places


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Area shared by two rectangles (x0, y0, x1, y1), in square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
