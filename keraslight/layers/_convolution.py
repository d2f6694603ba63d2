"""What the convolutions written here check and work out alike: square kernels, "same" and "valid"."""

from keras import ops

from keraslight.errors import InvalidArgumentError


def check_convolution(padding: str, **numbers: int) -> None:
    """Raises InvalidArgumentError for another padding, or a number (a filter count, a side ...) below 1."""
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:  # no pairs: kernels are square
            raise InvalidArgumentError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}.")
    if padding not in ("same", "valid"):
        raise InvalidArgumentError(f"`padding` must be 'same' or 'valid'. Received: padding={padding!r}.")


def zero_padding(side, reach: int, strides: int, padding: str) -> tuple:
    """Zeros before the first and behind the last pixel, as TensorFlow pads: numbers, or tensors where `side` is one.

    Args:
        side: Pixels of the input.
        reach: Pixels that a dilated kernel spans.
    """
    if padding == "valid":
        return 0, 0
    total = reach - 1 if strides == 1 else (-(-side // strides) - 1) * strides + reach - side
    total = max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)
    return total // 2, total - total // 2


def output_sides(input_shape, reach: int, strides: int, padding: str) -> list[int | None]:
    """Height and width behind a convolution of (B, H, W, C).

    Raises:
        InvalidArgumentError: the input is smaller than what the kernel spans.
    """
    lost = 0 if padding == "same" else reach - 1
    sides = [None if side is None else -(-(side - lost) // strides) for side in input_shape[1:3]]
    if any(side is not None and side < 1 for side in sides):
        raise InvalidArgumentError(
            f"The input must be at least as large as the kernel. Received: a kernel of {reach} pixels, "
            f"input {tuple(input_shape)}."
        )
    return sides
