"""Users' own twins, by the exact class of the Keras 3 layer; they go before the built-in ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TWINS: dict[type, Callable[[Any, str], Any]] = {}


def register_twin(layer_class: type) -> Callable:
    """Registers how a Keras 3 layer becomes a tf_keras layer. Use it as a decorator.

        @register_twin(MyScale)
        def _(layer, name):
            return MyTFKerasScale(layer.factor, name=name)

    The function takes the Keras 3 layer and the name that its twin must have. The twin must have the same weights
    with the same names in the same order; they are copied afterwards. The class must match exactly: a subclass may
    compute something else. A later registration replaces an earlier one.

    Args:
        layer_class: A subclass of `keras.layers.Layer` (or the class of a bare operation).
    """

    def register(make: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
        TWINS[layer_class] = make
        return make

    return register
