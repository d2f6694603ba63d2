"""A moving average of all weights during training, with the statistics of batch norms."""

from typing import Any

import keras
import tensorflow as tf


class Average:
    """An exponential moving average of a model's weights, which can change places with them.

    Keras' own averages trainable weights only, so that batch norms would keep the statistics of other weights. Source
    of the ramp: TensorFlow's `ExponentialMovingAverage(num_updates=...)`, as EfficientNet's authors use it.

    Args:
        model: The model whose weights are averaged.
        decay: Share of the average that stays in an update, in [0, 1); at most (1 + t) / (10 + t) in update t.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        self._weights = [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]
        self.variables = [tf.Variable(weight.value, trainable=False) for weight in self._weights]
        self._decay = decay
        self._update = tf.function(self._move)

    def update(self, updates: Any) -> None:
        """Moves the average towards the weights, after so many updates of them, a tensor."""
        self._update(updates)

    def exchange(self) -> None:
        """Swaps the weights and their averages, exactly."""
        for weight, average in zip(self._weights, self.variables, strict=True):
            value = tf.identity(weight.value)
            weight.assign(average.value())
            average.assign(value)

    def _move(self, updates: Any) -> None:
        count = tf.cast(updates, tf.float32)
        rest = 1.0 - tf.minimum(self._decay, (1.0 + count) / (10.0 + count))
        for weight, average in zip(self._weights, self.variables, strict=True):
            average.assign_sub((average - tf.convert_to_tensor(weight.value)) * tf.cast(rest, average.dtype))
