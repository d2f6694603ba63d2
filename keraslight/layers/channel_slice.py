"""A range of channels, as a layer that serializes and has a twin for quantization."""

import keras

from keraslight.errors import InvalidArgumentError


@keras.saving.register_keras_serializable(package="keraslight")
class ChannelSlice(keras.layers.Layer):
    """(..., C) -> (..., ceil((stop - start) / step)): the channels `start`, `start + step`, ... before `stop`.

    Args:
        start: First channel, at least 0.
        stop: End of the range (exclusive), above `start`; None is the last channel.
        step: Distance between channels, at least 1; 2 takes every other one.

    Raises:
        InvalidArgumentError: the range is empty or an argument out of its range.
    """

    def __init__(self, start: int = 0, stop: int | None = None, step: int = 1, **kwargs):
        super().__init__(**kwargs)
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise InvalidArgumentError(
                "`start` must be at least 0, `stop` above it and `step` at least 1. "
                f"Received: start={start}, stop={stop}, step={step}."
            )
        self.start, self.stop, self.step = start, stop, step

    def call(self, inputs):
        return inputs[..., self.start : self.stop : self.step]

    def compute_output_shape(self, input_shape):
        channels = len(range(*slice(self.start, self.stop, self.step).indices(input_shape[-1])))
        if not channels:
            raise InvalidArgumentError(
                "`start` must be below the number of channels. "
                f"Received: start={self.start}, {input_shape[-1]} channels."
            )
        return (*input_shape[:-1], channels)

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop, "step": self.step}
