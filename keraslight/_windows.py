"""Windows of images: crops, enlargements and reflections that move boxes and masks along with the pixels.

A window is a rectangle in an image that becomes the whole network input. It may extend over the image's border. Every
draw is a function of a seed, so that an interrupted training resumes with the same images.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from keraslight.errors import InvalidArgumentError

GRAY = 127.0
"""Pixels outside of an image."""

OUTSIDE = 255
"""Class of pixels outside of a mask, which losses and figures ignore."""


class Window(NamedTuple):
    """A part of an image.

    Args:
        left, top, right, bottom: Its sides, in pixels of the image.
        flip: Whether it is mirrored left to right.
        gain: Factor of the distance of all pixels from middle gray, above 0.
        shift: Number that is added to all pixels.
    """

    left: float
    top: float
    right: float
    bottom: float
    flip: bool = False
    gain: float = 1.0
    shift: float = 0.0

    def pixels(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Resamples an image (h, w, C), 0..255, to float32 (H, W, C): bilinear, from centers of pixels."""
        x = image.astype(np.float32)
        for axis, (start, end) in enumerate(((self.top, self.bottom), (self.left, self.right))):
            x = _resampled(x, axis, start, end, size[axis])
        x = (x[:, ::-1] if self.flip else x) * self.gain + (1 - self.gain) * GRAY + self.shift
        return np.clip(x, 0, 255)

    def mask(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Takes the nearest class of a mask (h, w) for each pixel of (H, W), `OUTSIDE` beyond its border."""
        sides = ((self.top, self.bottom), (self.left, self.right))
        places = [np.floor(_centers(*ends, count)).astype(int) for ends, count in zip(sides, size, strict=True)]
        inside = [(at >= 0) & (at < side) for at, side in zip(places, mask.shape, strict=True)]
        clipped = (np.clip(at, 0, side - 1) for at, side in zip(places, mask.shape, strict=True))
        found = np.where(np.logical_and.outer(*inside), mask[np.ix_(*clipped)], OUTSIDE)
        return found[:, ::-1] if self.flip else found

    def boxes(self, boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Moves boxes (T, 4) to pixels of the network's input, and clips them.

        Returns:
            float32 (T, 4), and bool (T,): whether the box's center is in the window and something of it remains.
        """
        start = np.array([self.left, self.top])
        factor = np.array(size[::-1]) / (np.array([self.right, self.bottom]) - start)
        moved = ((boxes.reshape(-1, 2, 2) - start) * factor).reshape(-1, 4)
        if self.flip:
            moved[:, [0, 2]] = size[1] - moved[:, [2, 0]]
        center, limits = (moved[:, :2] + moved[:, 2:]) / 2, np.array(size[::-1], float)
        clipped = np.clip(moved, 0, np.tile(limits, 2))
        kept = ((center >= 0) & (center <= limits) & (clipped[:, 2:] - clipped[:, :2] >= 1)).all(axis=1)
        return clipped.astype(np.float32), kept


def whole(image: np.ndarray) -> Window:
    """The window that stretches a whole image (h, w, ...) to the network's input."""
    return Window(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))


def _centers(start: float, end: float, count: int) -> np.ndarray:
    """Where the centers of `count` pixels between two sides lie."""
    return start + (np.arange(count) + 0.5) * (end - start) / count


def _resampled(x: np.ndarray, axis: int, start: float, end: float, count: int) -> np.ndarray:
    """Interpolates between the two nearest centers along an axis, and to gray beyond the border."""
    side = x.shape[axis]
    places = _centers(start, end, count)
    at = np.clip(places - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), max(side - 2, 0))
    share = np.expand_dims((at - low).astype(np.float32), tuple(n for n in range(x.ndim) if n != axis))
    found = np.take(x, low, axis=axis) * (1 - share) + np.take(x, np.minimum(low + 1, side - 1), axis=axis) * share
    outside = (places < 0) | (places > side)
    found[(slice(None),) * axis + (outside,)] = GRAY
    return found


@dataclasses.dataclass(frozen=True)
class SceneAugmentation:
    """Random changes to images that boxes and masks follow.

    Source: Liu et al., "SSD", ECCV 2016, https://arxiv.org/abs/1512.02325, sections 2.2 and 3.6: crops, and images that
    are placed on a larger canvas.

    Args:
        flip: Whether to mirror half of the images left to right. Not for digits or text.
        crop: Least share of each side that a crop keeps, in (0, 1]. 1 disables it.
        canvas: Largest factor by which the canvas around an image is larger than it, at least 1. 1 disables it.
        canvas_share: Share of the images that get a canvas instead of a crop, 0 to 1.
        aspect: Largest ratio of a crop's aspect ratio to the image's, at least 1.
        brightness: Share of the full range 255 that is added to all pixels, in [0, 1].
        contrast: Share by which the distance of all pixels from middle gray grows or shrinks, in [0, 1).

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    flip: bool = False
    crop: float = 0.5
    canvas: float = 1.0
    canvas_share: float = 0.5
    aspect: float = 1.33
    brightness: float = 0.1
    contrast: float = 0.2

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "crop": (0 < self.crop <= 1, "in (0, 1]"),
            "canvas": (self.canvas >= 1, "at least 1"),
            "canvas_share": (0 <= self.canvas_share <= 1, "in 0..1"),
            "aspect": (self.aspect >= 1, "at least 1"),
            "brightness": (0 <= self.brightness <= 1, "in 0..1"),
            "contrast": (0 <= self.contrast < 1, "in [0, 1)"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InvalidArgumentError(f"`{name}` must be {rule}. Received: {name}={getattr(self, name)}.")

    def draw(self, image: np.ndarray, seed: Any) -> Window:
        """Draws a window of an image (h, w, C); `seed` is a number or several of them."""
        random = np.random.default_rng(seed)
        height, width = image.shape[:2]
        values = random.random(7)
        if self.canvas > 1 and values[0] < self.canvas_share:
            factors = np.full(2, 1 + (self.canvas - 1) * values[1])
        else:
            share = self.crop + (1 - self.crop) * values[1]
            ratio = self.aspect ** ((2 * values[2] - 1) / 2)
            factors = np.clip([share * ratio, share / ratio], min(self.crop, share), 1)
        w, h = factors * (width, height)
        # Of a crop, somewhere in the image; of a canvas, with the image somewhere in it.
        left, top = (width - w) * values[3], (height - h) * values[4]
        return Window(
            left,
            top,
            left + w,
            top + h,
            flip=bool(self.flip and random.random() < 0.5),
            gain=float(1 + self.contrast * (2 * values[5] - 1)),
            shift=float(255 * self.brightness * (2 * values[6] - 1)),
        )
