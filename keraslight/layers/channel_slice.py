"""A range of channels, as a layer that serializes and has a twin for quantization-aware training."""

from typing import Any

import keras
from keras import KerasTensor

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, known_channels


@keras.saving.register_keras_serializable(package="keraslight")
class ChannelSlice(keras.layers.Layer):
    """(..., C) -> (..., ceil((stop - start) / step)): the channels `start`, `start + step`, ... before `stop`.

    Args:
        start: First channel, at least 0.
        stop: End of the range (exclusive), above `start`. None takes all channels to the last.
        step: Distance between channels, at least 1. 2 takes every other one.

    Raises:
        InvalidArgumentError: The range is empty, or an argument is out of range.
    """

    def __init__(self, start: int = 0, stop: int | None = None, step: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise InvalidArgumentError(
                "`start` must be at least 0, `stop` above it and `step` at least 1. "
                f"Received: start={start}, stop={stop}, step={step}."
            )
        self.start, self.stop, self.step = start, stop, step

    def call(self, inputs: KerasTensor) -> KerasTensor:
        return inputs[..., self.start : self.stop : self.step]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = len(range(*slice(self.start, self.stop, self.step).indices(known_channels(input_shape))))
        if not channels:
            raise InvalidArgumentError(
                "`start` must be below the number of channels. "
                f"Received: start={self.start}, {input_shape[-1]} channels."
            )
        return (*input_shape[:-1], channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop, "step": self.step}
