"""A class activation map on top of its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight._pictures import HEAT, StrPath, checked_path, draw_image, finished, new_figure
from keraslight.analysis.grad_cam import grad_cam

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_grad_cam(
    model: keras.Model,
    image: Any,
    *,
    class_index: int | None = None,
    layer: str | None = None,
    labels: Sequence[str] | None = None,
    path: StrPath | None = None,
) -> Figure:
    """Draws where a classifier looks: the image, and in grayscale with a heat map of what speaks for a class.

    A line surrounds the area with more than half of the largest heat.

    Args:
        model, image, class_index, layer: See `grad_cam`.
        labels: Names of the classes, for the title, such as the contents of a servable's `labels.txt`.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: As for `grad_cam`, or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    found = grad_cam(model, image, class_index=class_index, layer=layer)
    pixels = np.asarray(image, "float32")
    height, width = pixels.shape[:2]
    figure = new_figure(2 + 7 * min(width / height, 2), 4.2)
    plain, covered = figure.subplots(1, 2)
    name = f"class {found.class_index}"
    if labels is not None and found.class_index < len(labels):
        name = f"{labels[found.class_index]} ({found.class_index})"
    draw_image(plain, pixels, f"{model.name}\n{name}: {found.score:.3g}")
    grid = "×".join(map(str, found.heat.shape))
    most = found.heat.max()
    what = "" if most else ": 0 everywhere"
    draw_image(covered, pixels.mean(axis=-1, keepdims=True), f"Grad-CAM of {grid} places\nat {found.layer}{what}")
    share = found.heat / (most or 1)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    heat = covered.imshow(share, cmap=HEAT, alpha=0.65, vmin=0, vmax=1, interpolation="bilinear", extent=extent)
    if most:
        _outline(plain, share, height, width)
        _outline(covered, share, height, width)
    figure.colorbar(heat, ax=covered, label="speaks for the class (share of the most)", fraction=0.05)
    return finished(figure, target)


def _outline(axes: Axes, share: np.ndarray, height: int, width: int) -> None:
    """Draws a line around the area with more than half of the maximum, which is visible in grayscale."""
    edges = np.pad(share, 1, mode="edge")  # the outer pixels extend to the image's border
    rows, columns = (
        np.clip((np.arange(-1, places + 1) + 0.5) * side / places - 0.5, -0.5, side - 0.5)
        for places, side in zip(share.shape, (height, width), strict=True)
    )
    for color, wide in (("black", 3.2), ("white", 1.6)):
        axes.contour(columns, rows, edges, levels=[0.5], colors=color, linewidths=wide)
