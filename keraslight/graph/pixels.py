"""Whether a model takes raw pixels."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keraslight.graph.calls import Call, Graph, Tensor
from keraslight.graph.kinds import affine, exact_kind, operation_name
from keraslight.layers import ImageNormalization, ImageViews
from keraslight.preprocessing import LAYER_NAME

_CHANNELS = (1, 3, 4)
_WIDTHS = (0.1, 8.0)  # of normalized images: 1 and 2 are usual, ImageNet's deviations make about 4.5
_CENTERS = (16.0, 240.0)  # pixels that become 0


def takes_pixels(graph: Graph, samples: Iterable[Any] = ()) -> bool:
    """Whether a graph's input are raw pixels 0..255, which it normalizes itself.

    That is known of uint8 inputs and of keraslight's own preprocessing. Stock `Rescaling` and `Normalization` layers,
    and sums and products with constants, take pixels if they make a usual range of 0..255 or subtract a mean of pixels;
    not where the samples lie elsewhere.

    Args:
        graph: The graph.
        samples: Batches of its first input, or nothing.
    """
    tensor = graph.input_calls[0].outputs[0]
    readers = graph.readers()
    calls = [call for call in readers[tensor] if call is not None]
    if tensor.dtype == "uint8" or any(
        call.name == LAYER_NAME or issubclass(call.node.kind, ImageNormalization) for call in graph.calls
    ):
        return True
    if len(tensor.shape) != 4 or tensor.shape[-1] not in _CHANNELS or not calls or None in readers[tensor]:
        return False
    return all(_normalizes(readers, call) for call in calls) and _are_pixels(samples)


def _are_pixels(samples: Iterable[Any]) -> bool:
    ends = [(float(np.min(batch)), float(np.max(batch))) for batch in map(np.asarray, samples)]
    if not ends:
        return True
    return min(low for low, _ in ends) >= 0 and 1 < max(high for _, high in ends) <= 255


def _normalizes(readers: dict[Tensor, list[Call | None]], call: Call) -> bool:
    """Whether a call, or calls behind it that move values, make normalized images of pixels."""
    scale, shift, found = np.ones(()), np.zeros(()), False
    while True:
        step = _affine(call)
        if step is not None:
            scale, shift, found = scale * step[0], shift * step[0] + step[1], True
        elif not exact_kind(call.node.kind).training_only and not _moves(call):
            break
        behind = readers[call.outputs[0]]
        if len(behind) != 1 or behind[0] is None:
            break
        call = behind[0]
    if not found or not np.all(scale):
        return False
    width, center = 255 * float(np.abs(scale).max()), float(np.mean(-shift / scale))
    return _WIDTHS[0] <= width <= _WIDTHS[1] or _CENTERS[0] <= center <= _CENTERS[1]


def _moves(call: Call) -> bool:
    row, resizes = exact_kind(call.node.kind), (keras.layers.Resizing, keras.layers.CenterCrop, ImageViews)
    return row.augmentation or row.field == "margin" or call.node.kind in resizes


def _affine(call: Call) -> tuple[Any, Any] | None:
    """Scale and shift of a layer, or of a sum or product with a constant."""
    if call.node.kind in (keras.layers.Rescaling, keras.layers.Normalization):
        return affine(call.layer)
    arguments = [*call.args, *call.kwargs.values()]
    numbers = [np.asarray(a, np.float64) for a in arguments if isinstance(a, int | float | np.ndarray)]
    if len(arguments) != 2 or len(numbers) != 1 or numbers[0].ndim > 1:
        return None
    name, number, first = operation_name(call.layer), numbers[0], isinstance(arguments[0], Tensor)
    if name == "ops.Multiply":
        return number, np.zeros(())
    if name in ("ops.Divide", "ops.TrueDivide") and first:
        return 1 / number, np.zeros(())
    if name == "ops.Add":
        return np.ones(()), number
    if name == "ops.Subtract":
        return (np.ones(()), -number) if first else (-np.ones(()), number)
    return None
