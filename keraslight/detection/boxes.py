"""Boxes as left, top, right, bottom: overlaps, and the two ways in which detectors write boxes.

Every function takes NumPy arrays and returns such, or takes tensors of any Keras backend, also in a graph.
"""

from types import ModuleType
from typing import Any

import numpy as np
from keras import ops

Array = Any
"""A NumPy array or a backend's tensor."""

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the offsets of a box's center and of the logarithms of its sides: SSD's variances 0.1 and 0.2."""

LARGEST = float(np.log(1000 / 16))
"""Bound of the logarithm by which a decoded box may be wider or higher than its anchor, as in torchvision."""


def namespace(*arrays: Array) -> ModuleType:
    """NumPy for NumPy's arrays, `keras.ops` if one is a tensor."""
    return np if all(isinstance(array, np.ndarray | float | int) for array in arrays) else ops


def softmax(x: Array) -> Array:
    """Probabilities over the last axis."""
    xp = namespace(x)
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, without overflow for logits of any size."""
    xp = namespace(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + small), small / (1 + small))


def area(boxes: Array) -> Array:
    """(..., 4) -> (...): width times height."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Array, b: Array) -> Array:
    """(..., M, 4), (..., N, 4) -> (..., M, N): area of the intersection over that of the union, 0..1.

    Two boxes without area have the overlap 0.
    """
    xp = namespace(a, b)
    shared, union = _shared(a[..., :, None, :], b[..., None, :, :])
    return shared / xp.maximum(union, 1e-12)


def giou(a: Array, b: Array) -> Array:
    """(..., 4), (..., 4) -> (...): generalized overlap of each pair, -1..1.

    It is the overlap minus the share of the smallest box around both that neither covers.
    Source: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, https://arxiv.org/abs/1902.09630,
    algorithm 1.
    """
    xp = namespace(a, b)
    shared, union = _shared(a, b)
    around = area(xp.concatenate([xp.minimum(a[..., :2], b[..., :2]), xp.maximum(a[..., 2:], b[..., 2:])], axis=-1))
    union, around = xp.maximum(union, 1e-7), xp.maximum(around, 1e-7)
    return shared / union - (around - union) / around


def _shared(a: Array, b: Array) -> tuple[Array, Array]:
    """Areas of intersection and union of boxes that are broadcast against each other."""
    xp = namespace(a, b)
    sides = xp.minimum(a[..., 2:], b[..., 2:]) - xp.maximum(a[..., :2], b[..., :2])
    sides = xp.maximum(sides, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, area(a) + area(b) - shared


def clip(boxes: Array, height: float, width: float) -> Array:
    """Moves the sides of boxes (..., 4) that lie outside an image of `height` x `width` pixels to its border."""
    xp = namespace(boxes)
    x, y = xp.clip(boxes[..., 0::2], 0, width), xp.clip(boxes[..., 1::2], 0, height)
    return xp.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1)


def encode(boxes: Array, anchors: Array) -> Array:
    """Writes boxes relative to anchors: (..., 4), (..., 4) -> (..., 4).

    `(10 dx / w, 10 dy / h, 5 log(width / w), 5 log(height / h))` for centers that are (dx, dy) apart and an anchor of
    w x h. Source: Liu et al., "SSD", https://arxiv.org/abs/1512.02325, section 2.2; the factors are those of its code.
    """
    xp = namespace(boxes, anchors)
    centers, sides = _centers(anchors)
    wanted, wanted_sides = _centers(boxes)
    return xp.concatenate([(wanted - centers) / sides * WEIGHTS[0], xp.log(wanted_sides / sides) * WEIGHTS[2]], axis=-1)


def decode(deltas: Array, anchors: Array) -> Array:
    """Reverses `encode`. A box is at most 62.5 times as wide and as high as its anchor."""
    xp = namespace(deltas, anchors)
    centers, sides = _centers(anchors)
    centers = deltas[..., :2] / WEIGHTS[0] * sides + centers
    half = xp.exp(xp.minimum(deltas[..., 2:] / WEIGHTS[2], LARGEST)) * sides / 2
    return xp.concatenate([centers - half, centers + half], axis=-1)


def _centers(boxes: Array) -> tuple[Array, Array]:
    """Centers and sides, both (..., 2)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides
