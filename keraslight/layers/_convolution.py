"""Checks and shapes shared by the layers: square kernels, "same" and "valid" padding."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError

Shape = tuple[int | None, ...]
"""Shape of a tensor. None stands for a side that is only known when the model runs."""


def known_channels(shape: Shape) -> int:
    """Returns the size of the last axis, or raises InvalidArgumentError if it is unknown."""
    if shape[-1] is None:
        raise InvalidArgumentError(f"The number of channels must be known. Received: shape {shape}.")
    return shape[-1]


def check_convolution(padding: str, **numbers: int) -> None:
    """Raises InvalidArgumentError if `padding` is unknown or a number (of filters, of pixels ...) is below 1."""
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:  # no pairs: kernels are square
            raise InvalidArgumentError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}.")
    if padding not in ("same", "valid"):
        raise InvalidArgumentError(f"`padding` must be 'same' or 'valid'. Received: padding={padding!r}.")


def saved(layer: keras.layers.Layer, *names: str) -> dict[str, Any]:
    """Returns arguments of a layer for its config: initializers and regularizers serialized, the others as they are."""
    return {name: keras.saving.serialize_keras_object(getattr(layer, name)) for name in names}


def zero_padding(
    side: int | KerasTensor, reach: int, strides: int, padding: str
) -> tuple[int | KerasTensor, int | KerasTensor]:
    """Returns the zeros before the first and after the last pixel, as TensorFlow pads: tensors if `side` is one.

    `side` is that of the input, `reach` that of the dilated kernel, in pixels.
    """
    if padding == "valid":
        return 0, 0
    total = reach - 1 if strides == 1 else (-(-side // strides) - 1) * strides + reach - side
    total = max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)
    return total // 2, total - total // 2


def output_sides(input_shape: Sequence[int | None], reach: int, strides: int, padding: str) -> list[int | None]:
    """Returns the height and width of a convolution's output for an input of (B, H, W, C), `reach` being the kernel's.

    An input that is smaller than the kernel raises InvalidArgumentError.
    """
    lost = 0 if padding == "same" else reach - 1
    sides = [None if side is None else -(-(side - lost) // strides) for side in input_shape[1:3]]
    if any(side is not None and side < 1 for side in sides):
        raise InvalidArgumentError(
            f"The input must be at least as large as the kernel. Received: a kernel of {reach} pixels, "
            f"input {tuple(input_shape)}."
        )
    return sides
