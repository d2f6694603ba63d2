"""What all plots share: the figure, its colors, the file, and the image that is drawn."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keraslight.errors import InvalidArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by color-blind readers: Okabe and Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
# Ordered so that neighbours also differ in lightness; without their yellow, a thin line of which is lost on white.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
HEAT = "cividis"  # rises in lightness, and looks the same to color-blind readers
SUFFIXES = (".png", ".svg")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. No pyplot: no global state, no display.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        module = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingDependencyError(
            f"Plots need matplotlib: pip install 'keraslight[analysis]'. Received: {error}."
        ) from error
    return module.Figure(figsize=(width, height), layout="constrained")


def checked_path(path: str | Path | None) -> Path | None:
    """The path, if a picture can be written there: asked before the work, not after.

    Raises:
        InvalidArgumentError: it does not end in .png or .svg.
    """
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise InvalidArgumentError(f"`path` must end in .png or .svg. Received: {str(path)!r}.")
    return path if path is None else Path(path)


def finished(figure: Figure, path: Path | None) -> Figure:
    """The figure, written to `path` if there is one; the same figure gives the same bytes."""
    if path is not None:
        from matplotlib import rc_context

        path.parent.mkdir(parents=True, exist_ok=True)
        unstable = {"Software": None} if path.suffix.lower() == ".png" else {"Date": None, "Creator": None}
        with rc_context({"svg.hashsalt": "keraslight"}):  # else an SVG's ids are random
            figure.savefig(path, dpi=120, metadata=unstable)
    return figure


def displayable(image: np.ndarray) -> np.ndarray:
    """The image (H, W, C) as `imshow` takes it: 0..1, three channels, or (H, W) with one.

    Pixels 0..255 and 0..1 are shown as they are, any other range (a normalized image) from its least to its greatest
    value. Of 2 channels the first is shown, of more than 3 the first three.
    """
    pixels = np.asarray(image, "float32")
    least, greatest = float(pixels.min()), float(pixels.max())
    if least < 0 or greatest > 255:
        pixels = (pixels - least) / max(greatest - least, 1e-12)
    elif greatest > 1:
        pixels = pixels / 255
    return pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]


def draw_image(axes: Any, image: np.ndarray, title: str) -> None:
    """Shows an image without ticks. Pixel (y, x) has its centre at these coordinates."""
    axes.imshow(displayable(image), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])
