"""Where detectors look for boxes: SSD's anchors, and NanoDet's places."""

import math
from collections.abc import Sequence

import numpy as np

from keraslight.errors import InvalidArgumentError

Grid = tuple[int, int]
"""Rows and columns of a map."""

SCALES = (0.2, 0.95)
RATIOS = (2.0, 3.0)


def ssd_anchors(image_size: tuple[int, int], grids: Sequence[Grid]) -> np.ndarray:
    """Computes SSDLite's anchors for maps of these sizes.

    The maps' scales rise evenly from 0.2 to 0.95 of the image. A place has 6 anchors around its center: a square of its
    map's scale, one of the geometric mean with the next map's, and the ratios 2, 1/2, 3 and 1/3. No side exceeds the
    image, but anchors may extend over its border.
    Source: Liu et al., "SSD", ECCV 2016, https://arxiv.org/abs/1512.02325, section 2.2; scales and order as in
    torchvision's `ssdlite320_mobilenet_v3_large`.

    Args:
        image_size: Height and width of the network's input, in pixels, each at least 1.
        grids: Rows and columns of each map, largest map first.

    Returns:
        float32 (N, 4): left, top, right, bottom in pixels of the input; map by map, row by row, place by place.

    Raises:
        InvalidArgumentError: A side is below 1, or there are no maps.
    """
    if not grids or min(image_size) < 1 or min(min(grid) for grid in grids) < 1:
        raise InvalidArgumentError(
            "`grids` must have one or more maps, and all sides must be at least 1. "
            f"Received: image_size={image_size}, grids={list(grids)}."
        )
    low, high = SCALES
    scales = [low + (high - low) * k / max(len(grids) - 1, 1) for k in range(len(grids))] + [1.0]
    height, width = image_size
    found = []
    for (rows, columns), scale, following in zip(grids, scales, scales[1:], strict=False):
        sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in map(math.sqrt, RATIOS):
            sides += [(scale * ratio, scale / ratio), (scale / ratio, scale * ratio)]
        half = np.minimum(sides, 1.0) / 2
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        centers = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
        boxes = np.concatenate([centers - half, centers + half], axis=-1).reshape(-1, 4)
        found.append(boxes * (width, height, width, height))
    return np.concatenate(found).astype(np.float32)


def places(image_size: tuple[int, int], strides: Sequence[int]) -> np.ndarray:
    """Computes NanoDet's places: the upper left corner of each cell, without an offset to its center.

    Source: https://github.com/RangiLyu/nanodet (`nanodet_plus_head.py`).

    Args:
        image_size: Height and width of the network's input, in pixels.
        strides: Strides of the maps in pixels, smallest first.

    Returns:
        float32 (N, 3): x, y and stride in pixels, map by map, row by row.
    """
    found = []
    for stride in strides:
        rows, columns = (-(-side // stride) for side in image_size)
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
        found.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], axis=-1))
    return np.concatenate(found).astype(np.float32)
