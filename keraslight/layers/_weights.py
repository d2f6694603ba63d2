"""Weights of a copy: what Keras' own `set_weights` leaves to be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras
import numpy as np


def set_weights(target: keras.Layer, values: Iterable[np.ndarray]) -> None:
    """`target.set_weights(values)`, after which an adapted `Normalization` normalizes by them.

    Keras makes the two constants that it computes with when the layer is built, adapted or loaded from a file, and not
    when its weights are set: a copy of an adapted layer would go on with mean 0 and variance 1.

    Args:
        target: A layer or a model, whose nested layers are looked at, too.
        values: As of `get_weights`.
    """
    target.set_weights(list(values))
    for layer in _flat(target):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _flat(layer: keras.Layer) -> Iterator[keras.Layer]:
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _flat(inner)
