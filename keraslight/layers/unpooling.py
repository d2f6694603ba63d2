"""Max pooling that remembers the position of each maximum, and its inverse, as used by SegNet's decoder.

Source: Badrinarayanan et al., "SegNet", https://arxiv.org/abs/1511.00561, figure 3; the conventions are those of
`torch.nn.functional.max_pool2d(return_indices=True)` and `max_unpool2d`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, saved


def _windows(pool_size: int, strides: int | None, padding: int) -> tuple[int, int, int]:
    strides = pool_size if strides is None else strides
    if pool_size < 1 or strides < 1 or not 0 <= padding <= pool_size // 2:
        raise InvalidArgumentError(
            "`pool_size` and `strides` must be at least 1 and `padding` in 0..pool_size // 2. "
            f"Received: pool_size={pool_size}, strides={strides}, padding={padding}."
        )
    return pool_size, strides, padding


@keras.saving.register_keras_serializable(package="keraslight")
class MaxPoolWithIndices2D(keras.layers.Layer):
    """(B, H, W, C) -> [(B, H', W', C) maxima, (B, H', W', C) int32 indices], H' = (H + 2 * padding - pool_size) //
    strides + 1. No parameters.

    An index is `row * W + column` of the maximum in its own channel's map. Of equal values the first one wins, and only
    that one receives the gradient.

    Args:
        pool_size: Side of the window in pixels, at least 1.
        strides: Step of the window in pixels, at least 1. None uses `pool_size`.
        padding: Number of pixels of minus infinity on each side, at most half the window.

    Raises:
        InvalidArgumentError: An argument is out of range.
    """

    def __init__(self, pool_size: int = 2, strides: int | None = None, padding: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size, self.strides, self.padding = _windows(pool_size, strides, padding)

    def call(self, inputs: KerasTensor) -> list[KerasTensor]:
        height, width = ops.shape(inputs)[1:3]
        rows, columns = self._outputs(height), self._outputs(width)
        side = [self.padding, self.padding]
        x = ops.pad(inputs, [[0, 0], side, side, [0, 0]], constant_values=float("-inf")) if self.padding else inputs
        best = where = None
        # One shift of the window at a time: patches would need pool_size ** 2 times the memory, and an argmax over them
        # has no gradient.
        for i in range(self.pool_size):
            row = self._sources(i, rows, height)
            for j in range(self.pool_size):
                column = self._sources(j, columns, width)
                value = x[
                    :,
                    i : i + (rows - 1) * self.strides + 1 : self.strides,
                    j : j + (columns - 1) * self.strides + 1 : self.strides,
                ]
                index = ops.reshape(row * width, (1, -1, 1, 1)) + ops.reshape(column, (1, 1, -1, 1))
                if best is None:
                    best, where = value, index + ops.zeros_like(value, dtype="int32")
                else:
                    better = value > best
                    best, where = ops.where(better, value, best), ops.where(better, index, where)
        return [best, where]

    def _outputs(self, side: int) -> int:
        return (side + 2 * self.padding - self.pool_size) // self.strides + 1

    def _sources(self, shift: int, outputs: int, side: int) -> KerasTensor:
        """Returns the row or column that each window has at `shift`.

        A padded one becomes the nearest one on the map, so that even a window of minus infinities has a valid index.
        """
        return ops.clip(ops.arange(outputs, dtype="int32") * self.strides + shift - self.padding, 0, side - 1)

    def compute_output_shape(self, input_shape: Shape) -> list[Shape]:
        batch, height, width, channels = input_shape
        rows, columns = (None if side is None else self._outputs(side) for side in (height, width))
        if (rows is not None and rows < 1) or (columns is not None and columns < 1):
            raise InvalidArgumentError(
                f"The map must hold a window. Received: {height}x{width}, pool_size={self.pool_size}, "
                f"padding={self.padding}."
            )
        return [(batch, rows, columns, channels)] * 2

    def compute_output_spec(self, inputs: KerasTensor) -> list[KerasTensor]:
        values, indices = self.compute_output_shape(inputs.shape)
        return [keras.KerasTensor(values, self.compute_dtype), keras.KerasTensor(indices, "int32")]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **saved(self, "pool_size", "strides", "padding")}


@keras.saving.register_keras_serializable(package="keraslight")
class MaxUnpool2D(keras.layers.Layer):
    """[(B, H', W', C) values, (B, H', W', C) int32 indices] -> (B, H, W, C): each value at its index, zeros elsewhere.

    Without an `output_size`, H = (H' - 1) * strides - 2 * padding + pool_size. If windows overlap and two values have
    the same index, one of them is kept (they aren't added up), as in PyTorch. LiteRT's only scatter operator adds them
    up, so windows must not overlap there. No parameters. The output has fewer than 2 ** 31 values.

    Args:
        pool_size, strides, padding: Those of the pooling.
        output_size: (H, W) of the map before the pooling, which rounding may hide. None computes it.

    Raises:
        InvalidArgumentError: An argument is out of range, or values and indices differ in shape.
    """

    def __init__(
        self,
        pool_size: int = 2,
        strides: int | None = None,
        padding: int = 0,
        output_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size, self.strides, self.padding = _windows(pool_size, strides, padding)
        if output_size is not None and (len(output_size) != 2 or min(output_size) < 1):
            raise InvalidArgumentError(
                f"`output_size` must be None or a height and a width of at least 1. Received: {output_size}."
            )
        self.output_size = output_size and (output_size[0], output_size[1])

    def call(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        values, indices = inputs
        batch, rows, columns, channels = ops.shape(values)
        height, width = self.output_size or (self._output(rows), self._output(columns))
        area = height * width
        # One flat vector: image, then pixel, then channel.
        image = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1, 1))
        places = (image * area + ops.cast(indices, "int32")) * channels + ops.arange(channels, dtype="int32")
        empty = ops.zeros((batch * area * channels,), dtype=values.dtype)
        filled = ops.scatter_update(empty, ops.reshape(places, (-1, 1)), ops.reshape(values, (-1,)))
        return ops.reshape(filled, (batch, height, width, channels))

    def _output(self, side: int) -> int:
        return (side - 1) * self.strides - 2 * self.padding + self.pool_size

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        values, indices = (tuple(shape) for shape in input_shape)
        if values[1:] != indices[1:]:
            raise InvalidArgumentError(f"Values and indices must have one shape. Received: {values} and {indices}.")
        sides: Shape = self.output_size or tuple(None if side is None else self._output(side) for side in values[1:3])
        return (values[0], *sides, values[3])

    def get_config(self) -> dict[str, Any]:
        config = saved(self, "pool_size", "strides", "padding")
        return {**super().get_config(), **config, "output_size": self.output_size}
