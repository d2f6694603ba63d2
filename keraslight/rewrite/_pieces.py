"""Depthwise convolutions for which XNNPACK, which runs .tflite files on CPUs, has kernels."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

# Taps of the largest depthwise convolution that XNNPACK has kernels for. Six of 7x7 on (28, 28, 96) took 9.3 ms in
# float and 69 ms in int8, and in pieces 1.0 and 1.7; six of 5x5 take 0.3 and 0.6.
MAX_TAPS = 25

Window = tuple[slice, slice]


class Pieces(NamedTuple):
    """How a large kernel is cut.

    Attributes:
        padding: Zeros to put before and behind the maps' rows and columns: ((top, bottom), (left, right)).
        kernels: For each piece its rows and columns of the kernel. The outer ones come first: their sums are small, so
            that int8 rounds them finely.
        maps: For each piece the rows and columns of the padded maps that it reads. Convolved with it, without padding,
            they give its part of the sum.
    """

    padding: tuple[tuple[int, int], tuple[int, int]]
    kernels: list[Window]
    maps: list[Window]


def is_cut(layer: keras.layers.Layer, inputs: Any) -> bool:
    """Whether a layer is a depthwise or separable convolution that should be cut, called on (B, H, W, C).

    Not where a layer without padding makes small maps: a layer before it may have padded them, and some pieces may read
    nothing else. XNNPACK refuses an int8 sum with a part that is zero everywhere.
    """
    if (
        # By its `call`: a subclass may compute something else.
        getattr(type(layer), "call", None) not in (keras.layers.DepthwiseConv2D.call, keras.layers.SeparableConv2D.call)
        or math.prod(layer.kernel_size) <= MAX_TAPS
        or layer.data_format != "channels_last"
        or set(layer.dilation_rate) != {1}
        or None in inputs.shape[1:3]
    ):
        return False
    places = layer.compute_output_shape(inputs.shape)[1:3]
    return layer.padding == "same" or all(n > k // 2 for n, k in zip(places, layer.kernel_size, strict=True))


def cut(sizes: Sequence[int], kernel: np.ndarray, strides: Sequence[int], padding: str, zeros: bool = False) -> Pieces:
    """Cuts a kernel into the fewest pieces of at most 25 taps.

    Taps that only ever meet the padding of small maps are left out.

    Args:
        sizes: Height and width of the maps.
        kernel: (KH, KW, C, M).
        strides: Along the height and the width.
        padding: `"same"`, as TensorFlow pads, or `"valid"`.
        zeros: Keep the pieces that are all zeros.
    """
    sides = [_side(n, k, s, padding) for n, k, s in zip(sizes, kernel.shape[:2], strides, strict=True)]
    counts = _fewest(*(len(side.taps) for side in sides))
    vertical, horizontal = sides
    windows = itertools.product(_split(vertical.taps, counts[0]), _split(horizontal.taps, counts[1]))
    kernels = sorted(windows, key=lambda window: -_distance(window, kernel.shape[:2]))
    kernels = [window for window in kernels if zeros or kernel[window].any()] or kernels[-1:]
    maps = [(vertical.read_by(rows), horizontal.read_by(columns)) for rows, columns in kernels]
    return Pieces((vertical.padding, horizontal.padding), kernels, maps)


class _Side(NamedTuple):
    """One dimension of a convolution.

    Attributes:
        taps: Those that meet the map somewhere.
        padding: What they read before and behind the map.
        origin: The place of the kernel's first tap, at its first position, in the map so padded.
        span: From the kernel's first position to its last.
    """

    taps: range
    padding: tuple[int, int]
    origin: int
    span: int

    def read_by(self, taps: slice) -> slice:
        return slice(self.origin + taps.start, self.origin + taps.stop + self.span)


def _side(size: int, taps: int, stride: int, padding: str) -> _Side:
    same = padding == "same"
    span = (math.ceil(size / stride) - 1 if same else (size - taps) // stride) * stride
    before = max(0, span + taps - size) // 2 if same else 0
    met = [tap for tap in range(taps) if any(0 <= p + tap - before < size for p in range(0, span + 1, stride))]
    used = range(met[0], met[-1] + 1)
    kept = max(0, before - used.start)
    return _Side(used, (kept, max(0, used.stop + span - before - size)), kept - before, span)


def _fewest(height: int, width: int) -> tuple[int, int]:
    """Into how many rows and columns of pieces a kernel goes, so that they are as few as possible."""
    heights = range(1, min(height, MAX_TAPS) + 1)
    counts = ((math.ceil(height / h), math.ceil(width / min(width, MAX_TAPS // h))) for h in heights)
    return min(counts, key=math.prod)


def _split(taps: range, count: int) -> list[slice]:
    """As even as possible, and alike from both ends."""
    edges = [taps.start + round(i * len(taps) / count) for i in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _distance(window: Window, taps: tuple[int, int]) -> float:
    """Of the middle of a piece from that of the kernel, squared."""
    return sum((part.start + part.stop - k) ** 2 for part, k in zip(window, taps, strict=True))
