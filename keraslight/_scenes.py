"""Synthetic scenes of real digits: scikit-learn's handwritten digits in random colors on crops of its two photographs.

Boxes and masks come at no cost, and everything is a function of a seed. Held-out scenes have other digits and another
part of the photographs.
"""

import functools
from typing import NamedTuple

import numpy as np

from keraslight.errors import InvalidArgumentError

LABELS = tuple("0123456789")
HELD_OUT = 0.25
"""Share of the digits, and of the photographs' height, for held-out scenes."""

INK = 0.35
"""Opacity from which a pixel belongs to a digit."""

TRIES = 20
"""Places that are tried for a digit before it is left out."""


class Scene(NamedTuple):
    """A synthetic image.

    Args:
        image: uint8 (S, S, 3).
        boxes: float32 (T, 4), around the digits' ink: left, top, right, bottom in pixels.
        labels: int64 (T,), 0..9.
        mask: uint8 (S, S): 0 for the background, digit + 1 for ink.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


def draw_scene(seed: int | tuple[int, ...], size: int = 128, *, held_out: bool = False) -> Scene:
    """Draws a scene of 1 to 5 digits, each an eighth to 5/16 of the image's side, which don't overlap.

    Args:
        seed: Seed, or several numbers that are one.
        size: Side of the image in pixels, 64 to 256.
        held_out: Whether its digits and its background are from the part that other scenes don't have.

    Raises:
        InvalidArgumentError: The size is out of range.
    """
    if not 64 <= size <= 256:
        raise InvalidArgumentError(f"`size` of a scene must be in 64..256. Received: size={size}.")
    random = np.random.default_rng(seed)
    photographs, digits, classes = _material(held_out)
    photograph = photographs[random.integers(len(photographs))]
    if photograph.shape[0] < size:  # the held-out part is lower: its reflection continues it
        photograph = np.concatenate([photograph, photograph[::-1]] * -(-size // photograph.shape[0]))
    top, left = (int(random.integers(side - size + 1)) for side in photograph.shape[:2])
    image = photograph[top : top + size, left : left + size].astype(np.float32)
    mask = np.zeros((size, size), np.uint8)
    taken = np.zeros((size, size), bool)
    boxes, labels = [], []
    for _ in range(random.integers(1, 6)):
        side = int(random.integers(size // 8, size * 5 // 16 + 1))
        number = int(random.integers(len(digits)))
        ink = _enlarged(digits[number], side)
        color = random.integers(0, 256, 3)
        for _ in range(TRIES):
            y, x = (int(place) for place in random.integers(0, size - side + 1, 2))
            area = (slice(y, y + side), slice(x, x + side))
            if not taken[area].any():
                break
        else:
            continue
        taken[area] = True
        image[area] += (color - image[area]) * ink[..., None]
        written = ink >= INK
        mask[area][written] = classes[number] + 1
        rows, columns = (np.nonzero(written.any(axis=axis))[0] for axis in (1, 0))
        boxes.append((x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1))
        labels.append(classes[number])
    return Scene(
        np.round(image).astype(np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        mask,
    )


@functools.cache
def _material(held_out: bool) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """Returns photographs, digits (N, 8, 8) in 0..1 and their classes (N,) of one of the two parts."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    cut = int(len(digits.images) * (1 - HELD_OUT))
    part = slice(cut, None) if held_out else slice(cut)
    photographs = []
    for photograph in load_sample_images().images:
        row = int(photograph.shape[0] * (1 - HELD_OUT))
        photographs.append(photograph[row:] if held_out else photograph[:row])
    return tuple(photographs), digits.images[part] / 16, digits.target[part]


def _enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """Enlarges a digit (8, 8) to (side, side), bilinear, from centers of pixels."""
    at = np.clip((np.arange(side) + 0.5) * len(digit) / side - 0.5, 0, len(digit) - 1)
    low = np.minimum(at.astype(int), len(digit) - 2)
    share = at - low
    weights = np.zeros((side, len(digit)))
    weights[np.arange(side), low] = 1 - share
    weights[np.arange(side), low + 1] = share
    return weights @ digit @ weights.T
