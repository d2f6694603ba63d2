"""Receptive fields on top of an image: what layers can see, and what they look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight._pictures import COLORS, HEAT, StrPath, checked_path, draw_image, finished, new_figure
from keraslight.analysis._maps import one_image
from keraslight.analysis.receptive_field import ReceptiveField, receptive_field
from keraslight.errors import InvalidArgumentError
from keraslight.graph import read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 6  # boxes that are easy to distinguish
_LINES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (1, 1)))


def plot_receptive_field(
    model: keras.Model,
    image: Any,
    *,
    layers: Sequence[str] | None = None,
    effective: Any = None,
    path: StrPath | None = None,
) -> Figure:
    """Draws the theoretical receptive fields of layers as boxes on top of an image.

    Each box is the field of the output closest to the center of the image. Fields larger than the image extend beyond
    it, where they see padding.

    Args:
        model: A functional model of one image that `receptive_field` can follow.
        image: (H, W, C), as the model takes it.
        layers: Names of one to six layers, as `receptive_field` lists them, that don't see the whole image through
            pooling or attention. None takes up to six with different field sizes, evenly spaced from the smallest to
            the largest that is not much larger than the image. The legend then also names the layer with the largest
            field, and the first layer that sees the whole image.
        effective: Effective receptive field, (H, W), at least 0: the weight of each pixel for an output. Drawn as a
            heat map on top of the image.
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: A layer is unknown or sees the whole image, there are more than six, the image or
            `effective` doesn't fit, the fields can't be followed, or `path` is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    pixels = one_image(read(model, opaque=True), image)[0]
    height, width = pixels.shape[:2]
    heat = None if effective is None else np.asarray(effective, "float64")
    if heat is not None and (heat.shape != (height, width) or not (heat >= 0).all() or not heat.max() < np.inf):
        raise InvalidArgumentError(
            f"`effective` must have the image's shape, {(height, width)}, and finite values of at least 0. "
            f"Received: shape {heat.shape}."
        )
    fields, note = _chosen(receptive_field(model, pixels.shape), layers, (height, width))

    boxes = [_box(field, (height, width)) for field in fields]
    corners = [(-0.5, -0.5, height, width), *boxes]
    top, left = min(box[0] for box in corners), min(box[1] for box in corners)
    bottom, right = max(box[0] + box[2] for box in corners), max(box[1] + box[3] for box in corners)
    panels = 1 if heat is None else 2
    figure = new_figure(3.6 + 4.2 * min(max((right - left) / (bottom - top), 0.5), 2) * panels, 4.8)

    from matplotlib.patches import Rectangle

    line = figure.subplots(1, panels, squeeze=False)[0]
    draw_image(line[0], pixels, f"{model.name}: theoretical receptive fields")
    if heat is not None:
        draw_image(line[1], pixels.mean(axis=-1, keepdims=True), "effective receptive field")
        shown = line[1].imshow(heat / (heat.max() or 1), cmap=HEAT, alpha=0.7, vmin=0, vmax=1)
        figure.colorbar(shown, ax=line[1], label="weight of the pixel (share of the most)", fraction=0.05)
    margin = 0.02 * max(right - left, bottom - top)
    for axes in line:
        for field, box, color, style in zip(fields, boxes, COLORS, _LINES, strict=False):
            corner, box_height, box_width = (box[1], box[0]), *box[2:]
            # A white rim makes lines visible on dark and on light areas.
            for line_color, wide, line_style in (("white", 3.6, "-"), (color, 2.0, style)):
                look: dict[str, Any] = {"edgecolor": line_color, "linewidth": wide, "linestyle": line_style}
                axes.add_patch(Rectangle(corner, box_width, box_height, fill=False, **look))
            axes.plot([], [], color=color, linestyle=style, label=f"{field.name}  {field.size[0]}×{field.size[1]}")
        axes.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))
        axes.set_facecolor("0.85")  # beyond the image: padding
    if fields or note:
        figure.legend(
            *line[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small",
            title=note, title_fontsize="small", alignment="left",
        )  # fmt: skip
    return finished(figure, target)


def _chosen(
    fields: list[ReceptiveField], names: Sequence[str] | None, image: tuple[int, int]
) -> tuple[list[ReceptiveField], str]:
    """Returns the fields to draw, by size, and a note on those that are not drawn."""
    seen = {field.name: field for field in fields if not field.whole}
    if names is None:
        sizes = {field.size: field for field in reversed(seen.values()) if field.size > (1, 1)}  # the first of a size
        ordered = sorted(sizes.values(), key=_area)
        near = [f for f in ordered if all(s <= 1.25 * side for s, side in zip(_size(f), image, strict=True))]
        largest = ordered[-1] if len(near) < len(ordered) else None
        if len(near) > _MOST:
            near = [near[round(i * (len(near) - 1) / (_MOST - 1))] for i in range(_MOST)]
        notes = []
        if largest:
            notes.append(f"not drawn, the largest:\n{largest.name}  {largest.size[0]}×{largest.size[1]}\n")
        if whole := next((field.name for field in fields if field.whole), None):
            notes.append(f"the first that sees\nthe whole image:\n{whole}\n")
        return near, "\n".join(notes)
    if not 1 <= len(names) <= _MOST:
        raise InvalidArgumentError(f"`layers` must name 1 to {_MOST} layers. Received: {len(names)}.")
    for name in names:
        if name not in seen:
            what = "sees the whole image" if any(field.name == name for field in fields) else "not in the model"
            raise InvalidArgumentError(
                f"`layers` must name layers of the model that see a part of the image. Received: {name!r}, {what}."
            )
    return sorted((seen[name] for name in names), key=_area), ""


def _size(field: ReceptiveField) -> tuple[int, int]:
    height, width = field.size
    return height or 0, width or 0  # never None here, as the image has a size


def _area(field: ReceptiveField) -> int:
    return math.prod(_size(field))


def _box(field: ReceptiveField, image: tuple[int, int]) -> tuple[float, float, int, int]:
    """Returns (top, left, height, width) in pixels of the field of the output closest to the image's center."""
    top, left = (
        (center or 0.0) + round(((side - 1) / 2 - (center or 0.0)) / stride) * stride - size / 2
        for side, size, stride, center in zip(image, _size(field), field.stride, field.center, strict=True)
    )
    return top, left, *_size(field)
