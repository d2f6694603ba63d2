"""Gradients on Keras' current backend, for which `keras.ops` has no function."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError


def gradient(function: Callable[[Any], Any], x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a function's value at `x` (integers become floats), and d sum(value) / dx, zeros if it has no effect.

    Weight the value inside the function to get the gradient of one of its entries, or of any mix of them. Call models
    with `training=False`, since JAX can't update a model's state here.
    """
    x = keras.ops.convert_to_tensor(x, dtype=keras.config.floatx())
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                value = function(x)
            slope = tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        case "jax":
            import jax

            value, pull = jax.vjp(function, x)
            (slope,) = pull(keras.ops.ones_like(value))
        case "torch":
            import torch

            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = function(x)
                # PyTorch has no graph for a value that depends on nothing.
                slope = torch.zeros_like(x)
                if value.requires_grad:
                    (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True, materialize_grads=True)
        case backend:
            raise InvalidArgumentError(
                f"Gradients need Keras' TensorFlow, JAX or PyTorch backend. Received: {backend!r}."
            )
    return keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(slope)
