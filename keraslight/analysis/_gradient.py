"""The gradient of a scalar, on whichever backend Keras runs: Keras has no function for it.

The only file of `keraslight.analysis` that imports a backend, and only the one that is in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keraslight.errors import InvalidArgumentError


def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """The gradient of `function` at `x`: a tensor of x's shape.

    Args:
        function: Takes a tensor like `x` and returns a scalar tensor. It may call layers; their weights gather no
            gradient.
        x: A float tensor of the backend.

    Raises:
        InvalidArgumentError: Keras runs on a backend without gradients.
    """
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        case "jax":
            import jax

            return jax.grad(function)(x)
        case "torch":
            import torch

            leaf = x.detach().requires_grad_(True)
            y = function(leaf)
            return torch.autograd.grad(y, leaf, allow_unused=True, materialize_grads=True)[0]
    raise InvalidArgumentError(
        "Gradients need the TensorFlow, JAX or PyTorch backend of Keras. "
        f"Received: keras.backend.backend() = {keras.backend.backend()!r}."
    )
