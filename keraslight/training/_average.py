"""A moving average of all weights during training, with the statistics of batch norms."""

from collections.abc import Callable
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
        self.variables = [
            keras.Variable(keras.ops.copy(w.value), dtype=w.dtype, trainable=False) for w in self._weights
        ]
        self._decay = decay
        self._on_jax = keras.backend.backend() == "jax"
        self._update = _jitted(self._moved) if self._on_jax else tf.function(self._move)

    def update(self, updates: int, trained: keras.Model) -> None:
        """Moves the average towards the weights, after so many updates of them, within `trained.fit`."""
        if not self._on_jax:
            self._update(tf.constant(updates, tf.int64))
            return
        # While Keras' JAX trainer runs, the values are in its state, and the variables have none.
        now: dict[int, Any] = {}
        for kind in ("trainable_variables", "non_trainable_variables"):
            now |= zip(map(id, getattr(trained, kind)), trained._jax_state[kind], strict=True)
        values = [now[id(weight)] for weight in self._weights]
        averages = self._update(values, [average.value for average in self.variables], updates)
        for average, value in zip(self.variables, averages, strict=True):
            average.assign(value)

    def exchange(self) -> None:
        """Swaps the weights and their averages, exactly."""
        for weight, average in zip(self._weights, self.variables, strict=True):
            value = keras.ops.copy(weight.value)
            weight.assign(average.value)
            average.assign(value)

    def _move(self, updates: Any) -> None:
        moved = self._moved(
            [weight.value for weight in self._weights], [average.value for average in self.variables], updates
        )
        for average, value in zip(self.variables, moved, strict=True):
            average.assign(value)

    def _moved(self, values: list[Any], averages: list[Any], updates: Any) -> list[Any]:
        count = keras.ops.cast(updates, "float32")
        rest = 1.0 - keras.ops.minimum(self._decay, (1.0 + count) / (10.0 + count))
        return [
            average - (average - keras.ops.convert_to_tensor(value)) * keras.ops.cast(rest, average.dtype)
            for value, average in zip(values, averages, strict=True)
        ]


def _jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    return jax.jit(function)
