"""Weights of copies: filling them, and saying of a layer that can't be copied what a copy needs."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keraslight.errors import CompressionError, KeraslightError

MOST_VALUES = 256
"""A clustered kernel has no more distinct values: int8 has no use for more."""


def set_weights(target: keras.Layer, values: Iterable[np.ndarray]) -> None:
    """Does what `target.set_weights(values)` does, after which an adapted `Normalization` normalizes by them.

    Keras computes the two constants of that layer when it is built, adapted or loaded from a file, but not when its
    weights are set: a copy of an adapted layer would keep mean 0 and variance 1.

    Args:
        target: A layer, or a model with nested layers.
        values: Weights as `get_weights` returns them.
    """
    target.set_weights(list(values))
    for layer in flat_layers(target):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def fill_weights(layer: keras.Layer, name: str, values: list[np.ndarray]) -> None:
    """Gives the copy of the model's layer `name` its weights.

    Raises:
        CompressionError: They don't fit.
    """
    with copying(type(layer), name):
        set_weights(layer, values)


def copy_frozen(source: keras.Layer, copy: keras.Layer) -> None:
    """Freezes the weights of a copy whose originals are frozen one by one: configurations only have whole layers."""
    for ours, theirs in zip(source.weights, copy.weights, strict=True):
        if theirs.trainable and not ours.trainable:
            theirs.trainable = False


def check_finite(layers: Mapping[str, Any]) -> None:
    """Raises CompressionError for NaN or infinity in a weight of layers by their names.

    Such values spread through everything that compression computes, and end the converters' process.
    """
    bad = [
        name
        for name, layer in layers.items()
        if isinstance(layer, keras.Layer)
        and not all(np.isfinite(np.asarray(w, np.float64)).all() for w in layer.get_weights())
    ]
    if bad:
        raise CompressionError(f"Every weight must be finite. Received: NaN or infinity in the layers {bad[:5]}.")


def flat_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """A layer or model and all layers inside it, including those that layers hold as attributes."""
    yield from layer._flatten_layers()


def owned_weights(model: keras.Model) -> list[tuple[keras.Layer, list[keras.Variable]]]:
    """The layers with trainable weights of their own, outside layers inside them, from the input to the output."""
    found = []
    for layer in flat_layers(model):
        others = {id(v) for inner in flat_layers(layer) if inner is not layer for v in inner.trainable_variables}
        own = [variable for variable in layer.trainable_variables if id(variable) not in others]
        if own:
            found.append((layer, own))
    return found


def learned_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Weights of a layer or model without statistics of the data. Keras leaves out the state of random generators.

    Statistics are batch norms' moving mean and variance, what `Normalization` adapts, and the vector of a
    `SpectralNormalization`: no gradient reaches them.
    """
    statistics = {
        id(getattr(part, name, None))
        for part in flat_layers(layer)
        for kind, names in _STATISTICS.items()
        if isinstance(part, kind)
        for name in names
    }
    return [weight for weight in layer.weights if id(weight) not in statistics]


_STATISTICS: dict[type[keras.Layer], tuple[str, ...]] = {
    keras.layers.BatchNormalization: ("moving_mean", "moving_variance"),
    keras.layers.Normalization: ("adapt_mean", "adapt_variance", "count"),
    keras.layers.SpectralNormalization: ("vector_u",),
}


def is_frozen(layer: Any) -> bool:
    """Whether training leaves a layer's kernel alone: `trainable=False` of the layer, or of the kernel's variable."""
    kernels = (getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel"))
    flags = [kernel.trainable for kernel in kernels if isinstance(kernel, keras.Variable)]
    return not getattr(layer, "trainable", True) or (bool(flags) and not any(flags))


def is_clustered(kernel: np.ndarray) -> bool:
    """Whether a kernel has few distinct values: at most 256, each used at least twice on average, zeros aside.

    Zeros don't count because a pruned kernel has many, all alike. Hardly any two random numbers are the same.
    """
    weights = kernel[kernel != 0]
    return 0 < (distinct := np.unique(weights).size) <= MOST_VALUES and 2 * distinct <= weights.size


@contextlib.contextmanager
def copying(kind: Any, name: str) -> Iterator[None]:
    """Says of a layer or model whose copy fails what a copy needs: people forget arguments in `get_config`.

    Args:
        kind: Its class, or the layer itself.
        name: Its name.

    Raises:
        CompressionError: In place of what Keras raises.
    """
    try:
        yield
    except KeraslightError:
        raise
    except (NotImplementedError, TypeError, ValueError) as error:
        kind = kind if isinstance(kind, type) else type(kind)
        raise CompressionError(
            "Every layer must be made again by `from_config(layer.get_config())`, with the same shapes; functions and "
            "classes of your own in it must be registered by `@keras.saving.register_keras_serializable()`. "
            f"Received: {name!r} of class {kind.__module__}.{kind.__qualname__}, of which Keras says: {error}"
        ) from error
