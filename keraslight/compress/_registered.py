"""Users' own twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tf_keras

    Make = Callable[[Any, str], tf_keras.layers.Layer]

TWINS: dict[type, Make] = {}
"""By the exact class of the Keras 3 layer; they take precedence over the built-in ones."""


def register_twin(layer_class: type) -> Callable[[Make], Make]:
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

    def register(make: Make) -> Make:
        TWINS[layer_class] = make
        return make

    return register
