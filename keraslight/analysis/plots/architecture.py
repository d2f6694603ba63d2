"""A model's stages as boxes drawn to scale: how resolution falls and the number of channels rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keraslight._pictures import HEAT, StrPath, checked_path, finished, new_figure
from keraslight.analysis.profile import By, LayerCost, profile
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 80  # boxes; more can't be labeled


def plot_architecture(
    model: keras.Model, *, by: By = "stage", input_shape: Sequence[int] | None = None, path: StrPath | None = None
) -> Figure:
    """Draws the model's stages to scale, from left to right.

    The height of a box is the height of the stage's output map in pixels, its width is the number of channels, each on
    one scale for the whole model; vectors are one pixel high. The larger a box's share of the model's multiply-adds,
    the darker it is. Groups without multiply-adds and parameters are left out, unless they change the size of a map or
    the number of channels; flattening and global pooling do neither.

    Args:
        model: A functional or built Sequential model.
        by: What a box stands for. `"block"` and `"layer"` suit small models (at most 80 boxes).
        input_shape: (H, W, C) if the model leaves sides open.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: There are more than 80 boxes, a size is open, or `by` or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    costs = profile(model, input_shape)
    rows: list[LayerCost] = []
    for row in costs._by(by):
        if row.macs or row.parameters or not rows or _reshapes(rows[-1].output, row.output):
            rows.append(row)
    if len(rows) > _MOST:
        raise InvalidArgumentError(f'At most {_MOST} boxes can be drawn: take `by="stage"`. Received: {len(rows)}.')

    channels = [row.output[-1] for row in rows]
    heights = [row.output[0] if len(row.output) > 1 else 1 for row in rows]
    # Every box has a slot at least as wide as its text, so that texts don't overlap; boxes keep their scale.
    narrowest, drawn = 0.27, max(8.0, 0.5 * len(rows))  # in inches: a slot, and all channels together
    scale = drawn / sum(channels)
    slots = [max(count * scale + 0.06, narrowest) for count in channels]

    figure = new_figure(sum(slots) + 1.6, 5.6)

    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = figure.subplots()
    greatest = max((row.macs for row in rows), default=0) / (costs.macs or 1) * 100
    shades = ScalarMappable(Normalize(0, greatest or 1), colormaps[f"{HEAT}_r"])
    left, centers = 0.0, []
    for row, slot, count, height in zip(rows, slots, channels, heights, strict=True):
        center, width = left + slot / 2, count * scale
        color = shades.to_rgba(np.array(100 * row.macs / (costs.macs or 1)))
        axes.bar(center, height, width, color=color, edgecolor="black", linewidth=0.8)
        centers.append(center)
        left += slot
    axes.set(xlim=(-0.1, left + 0.1), ylim=(0, 1.02 * max(heights)), ylabel="height of the map (pixels)")
    axes.set_xticks(
        centers, [f"{row.name}  {'×'.join(map(str, row.output))}" for row in rows], rotation=90, fontsize="small"
    )
    axes.tick_params(axis="x", length=0)
    ticks = [max(heights)]
    for height in sorted({0, *heights}, reverse=True):
        if ticks[-1] - height > max(heights) / 20:  # closer ones would overlap
            ticks.append(height)
    axes.set_yticks(ticks)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{costs.name}: width of a box = channels of the output, {max(channels):,} at most"
    axes.set_title(title, loc="left", fontsize="medium")
    figure.colorbar(shades, ax=axes, label="share of the multiply-adds (%)", fraction=0.05, pad=0.01)
    return finished(figure, target)


def _reshapes(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    resized = math.prod(before) != math.prod(after)
    return resized and (after[-1] != before[-1] or (len(after) > 2 and after[0] > 1))
