"""Resizing to the size of another map, which may only be known when the model runs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, saved

INTERPOLATIONS = ("bilinear", "nearest")


@keras.saving.register_keras_serializable(package="keraslight")
class ResizeLike(keras.layers.Layer):
    """[(B, H, W, C), (B, H', W', ...)] -> (B, H', W', C): resizes the first input to the second's height and width.

    Pixel centers are at half coordinates and nothing is antialiased, as in PyTorch's `interpolate` with
    `align_corners=False`. Where sizes are fixed, `keras.layers.Resizing` does the same. No parameters.

    Args:
        interpolation: `"bilinear"` or `"nearest"`.

    Raises:
        InvalidArgumentError: The interpolation is another one.
    """

    def __init__(self, interpolation: str = "bilinear", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if interpolation not in INTERPOLATIONS:
            raise InvalidArgumentError(
                f"`interpolation` must be one of {INTERPOLATIONS}. Received: interpolation={interpolation!r}."
            )
        self.interpolation = interpolation

    def call(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        x, like = inputs
        return ops.image.resize(x, ops.shape(like)[1:3], interpolation=self.interpolation, data_format="channels_last")

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        x, like = input_shape
        return (x[0], *like[1:3], x[3])

    def compute_output_spec(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **saved(self, "interpolation")}
