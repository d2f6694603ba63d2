"""Views of images at test time: scaled, turned and mirrored copies, and one answer from the answers to all of them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape

MERGES = ("certain", "mean", "log")
_TINY, _HALF_ULP = 1e-37, 2.0**-24  # closest to 0 for the logarithm of p, and to 0 and 1 for that of 1 - p as well


@keras.saving.register_keras_serializable(package="keraslight")
class ImageViews(keras.layers.Layer):
    """(B, H, W, C) -> (B * V, H, W, C): V views of each image, one after the other.

    For each of `scales`, within each of `rotations`, the image is scaled and turned about its center, with bilinear
    interpolation; pixels from outside the image are 0. With `flip`, the same views of the mirrored image follow. Images
    keep their dtype.

    Args:
        scales: Factors of the size, above 0: 1.3 enlarges and crops, 0.75 shrinks and pads.
        rotations: Angles in degrees, counterclockwise.
        flip: Whether to add the views of the image mirrored left to right.
        whole: Whether to round to whole numbers, as images of integers always are.

    Raises:
        InvalidArgumentError: A scale or an angle is out of range, or there is none.
    """

    def __init__(
        self,
        scales: Sequence[float] = (1.0,),
        rotations: Sequence[float] = (0.0,),
        flip: bool = False,
        whole: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scales, self.rotations = _numbers("scales", scales), _numbers("rotations", rotations)
        self.flip, self.whole = flip, whole
        if min(self.scales) <= 0:
            raise InvalidArgumentError(f"`scales` must be above 0. Received: scales={self.scales}.")
        if not isinstance(flip, bool):
            raise InvalidArgumentError(f"`flip` must be True or False. Received: flip={flip!r}.")

    @property
    def count(self) -> int:
        """Number of views, V."""
        return len(self.scales) * len(self.rotations) * (1 + self.flip)

    def call(self, inputs: KerasTensor) -> KerasTensor:
        shape = ops.shape(inputs)
        height, width, channels = shape[1], shape[2], inputs.shape[-1]
        known = isinstance(height, int) and isinstance(width, int)
        # Places that are known are constants: in a file they must not be computed, and float64 finds whole pixels.
        rows = np.arange(height, dtype="float64") if known else ops.arange(height, dtype="float32")
        columns = np.arange(width, dtype="float64") if known else ops.arange(width, dtype="float32")
        integers = not keras.backend.is_float_dtype(inputs.dtype)
        pixels = ops.cast(inputs, "float32" if integers else self.compute_dtype)
        pixels = ops.reshape(pixels, (-1, height * width, channels))
        total: Any = 0
        for indices, shares in self._corners(np if known else ops, rows, columns):
            total = total + ops.take(pixels, indices, axis=1) * ops.cast(shares, pixels.dtype)
        images = ops.reshape(total, (-1, height, width, channels))
        if integers or self.whole:
            images = ops.round(images)
        return ops.cast(images, inputs.dtype) if integers else images

    def _corners(self, xp: Any, rows: Any, columns: Any) -> list[tuple[Any, Any]]:
        """The four pixels around the place that each pixel of all views comes from: flat indices, and shares (P, 1).

        `xp`: NumPy or `keras.ops`.
        """
        height, width = rows.shape[0], columns.shape[0]
        if height is None or width is None or xp is not np:
            height, width = ops.shape(rows)[0], ops.shape(columns)[0]
        real = str(rows.dtype) if xp is np else "float32"

        def cast(values: Any, dtype: str) -> Any:
            return np.asarray(values).astype(dtype) if xp is np else ops.cast(values, dtype)

        last_row, last_column = cast(height, real) - 1, cast(width, real) - 1
        down = xp.reshape(rows - last_row / 2, (-1, 1))
        right = xp.reshape(columns - last_column / 2, (1, -1))
        found_y, found_x = [], []
        for mirrored in (False, True)[: 1 + self.flip]:
            for degrees in self.rotations:
                for scale in self.scales:
                    cosine = math.cos(math.radians(degrees)) / scale
                    sine = math.sin(math.radians(degrees)) / scale
                    x = cosine * right - sine * down + last_column / 2
                    found_x.append(xp.reshape(last_column - x if mirrored else x, (-1,)))
                    found_y.append(xp.reshape(sine * right + cosine * down + last_row / 2, (-1,)))
        y, x = xp.concatenate(found_y), xp.concatenate(found_x)
        top, left = xp.floor(y), xp.floor(x)
        corners = []
        for below in (0, 1):
            for beside in (0, 1):
                row, column = top + below, left + beside
                share = (1 - xp.abs(y - row)) * (1 - xp.abs(x - column))
                inside = (row >= 0) & (row <= last_row) & (column >= 0) & (column <= last_column)
                row, column = xp.clip(row, 0, last_row), xp.clip(column, 0, last_column)
                index = cast(row, "int32") * cast(width, "int32") + cast(column, "int32")
                corners.append((index, xp.reshape(xp.where(inside, share, xp.zeros_like(share)), (-1, 1))))
        return corners

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        integers = not keras.backend.is_float_dtype(inputs.dtype)
        return KerasTensor(self.compute_output_shape(inputs.shape), inputs.dtype if integers else self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *image = input_shape
        return (None if batch is None else batch * self.count, *image)

    def get_config(self) -> dict[str, Any]:
        views = {"scales": list(self.scales), "rotations": list(self.rotations), "flip": self.flip, "whole": self.whole}
        return {**super().get_config(), **views}


@keras.saving.register_keras_serializable(package="keraslight")
class MergeViews(keras.layers.Layer):
    """(B * V, K) -> (B, K): one answer from those to the V views of each image, as `ImageViews` orders them.

    `"certain"` takes the answer of the view with the largest probability, or for independent scores the score that is
    farthest from one half; of equally certain ones the mean. `"mean"` averages; `"log"` averages logarithms of
    probabilities, or logits of independent scores, and makes probabilities of them again.

    Args:
        count: Number of views, V.
        merge: `"certain"`, `"mean"` or `"log"`.
        independent: Whether the values are scores of their own from 0 to 1, as of a sigmoid, rather than a
            distribution.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    def __init__(self, count: int, merge: str = "certain", independent: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(count, int) or count < 1:
            raise InvalidArgumentError(f"`count` must be an integer of at least 1. Received: count={count!r}.")
        self.count, self.merge, self.independent = count, check_merge(merge), independent

    def call(self, inputs: KerasTensor) -> KerasTensor:
        views = ops.reshape(ops.cast(inputs, "float32"), (-1, self.count, inputs.shape[-1]))
        return ops.cast(self._merged(views), self.compute_dtype)

    def _merged(self, views: KerasTensor) -> KerasTensor:
        if self.merge == "mean":
            return ops.mean(views, axis=1)
        if self.merge == "log" and self.independent:
            views = ops.clip(views, _HALF_ULP, 1 - _HALF_ULP)
            return ops.sigmoid(ops.mean(ops.log(views) - ops.log(1 - views), axis=1))
        if self.merge == "log":
            return ops.softmax(ops.mean(ops.log(ops.maximum(views, _TINY)), axis=1))
        certain = ops.abs(views - 0.5) if self.independent else ops.max(views, axis=-1, keepdims=True)
        # Not `ops.argmax`, which Keras computes by bits of the numbers that LiteRT has no operator for.
        chosen = ops.cast(ops.equal(certain, ops.max(certain, axis=1, keepdims=True)), "float32")
        return ops.sum(views * chosen, axis=1) / ops.sum(chosen, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *values = input_shape
        return (None if batch is None else batch // self.count, *values)

    def get_config(self) -> dict[str, Any]:
        merge = {"count": self.count, "merge": self.merge, "independent": self.independent}
        return {**super().get_config(), **merge}


def check_merge(merge: str) -> str:
    """Returns `merge`; raises InvalidArgumentError unless there is such a way to merge."""
    if merge not in MERGES:
        raise InvalidArgumentError(f"`merge` must be one of {MERGES}. Received: merge={merge!r}.")
    return merge


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if not values or not all(map(math.isfinite, values)) or len(set(values)) < len(values) or isinstance(given, str):
        raise InvalidArgumentError(
            f"`{name}` must be one or more finite numbers, each only once. Received: {name}={given!r}."
        )
    return values
