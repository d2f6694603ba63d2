"""Figures without pyplot: their colors and files, images in them, and the charts of compression reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keraslight.errors import InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

StrPath = str | os.PathLike[str]

# Distinguishable for color-blind readers: Okabe and Ito, "Color Universal Design", 2008,
# https://jfly.uni-koeln.de/color/. Ordered so that neighbors also differ in lightness; without their yellow, as thin
# yellow lines are hard to see on white.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
HEAT = "cividis"  # rises in lightness, and looks the same to color-blind readers
SUFFIXES = (".png", ".svg")
_UNSTABLE: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def new_figure(width: float, height: float, extra: str = "analysis") -> Figure:
    """Makes an empty figure, in inches. Not by pyplot, which keeps all figures and looks for a display.

    If matplotlib is missing, the error names `extra` as the extra of the package that installs it.
    """
    try:
        from keraslight._figure import ShownFigure
    except ImportError as error:
        raise MissingDependencyError(
            f"Plots need matplotlib: pip install 'keraslight[{extra}]'. Received: {error}."
        ) from error
    return ShownFigure(figsize=(width, height), layout="constrained")


def checked_path(path: StrPath | None) -> Path | None:
    """Returns the path of a picture if its suffix is known. Called before the work, not after it."""
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise InvalidArgumentError(f"`path` must end in .png or .svg. Received: {str(path)!r}.")
    return None if path is None else Path(path)


def finished(figure: Figure, path: Path | None) -> Figure:
    """Returns the figure, and writes it to `path` if there is one. The same figure gives the same bytes."""
    if path is not None:
        from matplotlib import rc_context

        path.parent.mkdir(parents=True, exist_ok=True)
        with rc_context({"svg.hashsalt": "keraslight"}):  # otherwise the ids in an SVG are random
            figure.savefig(path, dpi=120, metadata=_UNSTABLE.get(path.suffix.lower()))
    return figure


def displayable(image: np.ndarray) -> np.ndarray:
    """Converts an image (H, W, C) to what `imshow` takes: 0 to 1, (H, W, 3), or (H, W) with one channel.

    Pixels in 0..255 and 0..1 keep their brightness. Any other range, as of normalized images, is stretched from its
    minimum to its maximum. Of 2 channels the first is shown, of more than 3 the first three.
    """
    pixels = np.asarray(image, "float32")
    least, greatest = float(pixels.min()), float(pixels.max())
    if least < 0 or greatest > 255:
        pixels = (pixels - least) / max(greatest - least, 1e-12)
    elif greatest > 1:
        pixels = pixels / 255
    return pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]


def draw_image(axes: Axes, image: np.ndarray, title: str) -> None:
    """Shows an image without ticks. Pixel (y, x) has its center at these coordinates."""
    axes.imshow(displayable(image), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize="medium")
    axes.set(xticks=[], yticks=[])


def heat_map(
    path: StrPath | None, values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str, axis: str
) -> Figure:
    """Draws shares (R, C) in 0..1 as colors with their percentages."""
    file = checked_path(path)
    size = 2.5 + 0.3 * max(map(len, rows)) / 4 + 0.9 * len(columns), 1.6 + 0.24 * len(rows)
    figure = new_figure(*size, extra="compress")
    axes = figure.subplots()
    least = float(values.min())
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=least, vmax=1)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set(title=title, xlabel=axis)
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > (least + 1) / 2 else "white"
        axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes)
    return finished(figure, file)


def ranking(
    path: StrPath | None, values: np.ndarray, *, rows: Sequence[str], notes: Sequence[str], title: str, axis: str
) -> Figure:
    """Draws numbers (R,) as horizontal bars with notes, the first on top."""
    file = checked_path(path)
    figure = new_figure(6 + 0.08 * max(map(len, rows)), 1.4 + 0.24 * len(rows), extra="compress")
    axes = figure.subplots()
    axes.bar_label(axes.barh(range(len(rows)), values), notes, fontsize=7, padding=3)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)  # room for the notes
    axes.set(title=title, xlabel=axis)
    return finished(figure, file)
