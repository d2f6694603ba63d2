"""Pruning with the library's own wrappers, in tf_keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from keraslight.compress.pruning import settings as _settings
from keraslight.compress.pruning.sparsity import targets
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import check_finite, copy as copy_model, graph_name, read

if TYPE_CHECKING:
    import tf_keras


def wrap_pruning(
    model: keras.Model,
    final_sparsity: float | Mapping[str, float] = 0.7,
    schedule: Any = "polynomial",
    *,
    begin_step: int = 1,
    end_step: int,
    frequency: int | None = None,
    layers: str | Sequence[str] | None = None,
    policy: str = "default",
    block_size: tuple[int, int] | None = None,
    m_by_n: tuple[int, int] | None = None,
) -> tf_keras.Model:
    """Makes a tf_keras model that prunes itself with the library's own `prune_low_magnitude` wrappers.

    An alternative to `Pruning` for training loops that are written for tf_keras. The same arguments give the same
    masks. Compile the model with a tf_keras optimizer, fit it with `callbacks=[pruning_step_callback()]`, and pass it
    to `strip_pruning`.

    Args:
        model: A functional or sequential Keras 3 model. It is not changed.
        end_step: Last training step that updates the masks.
        final_sparsity, schedule, begin_step, frequency, layers, policy, m_by_n: As in `Pruning`.
        block_size: As in `Pruning`, but the wrappers have blocks for Dense kernels only, and center those that don't
            divide a side; None is (1, 1).

    Returns:
        The tf_keras model, not compiled. A pruned layer is called `prune_low_magnitude_<name>`.

    Raises:
        InvalidArgumentError, CompressionError, MissingDependencyError: As `Pruning`.
        UnmappableLayerError: A layer has no tf_keras twin.
    """
    _settings.check(final_sparsity, schedule, policy, block_size, m_by_n)
    _settings.check_steps(begin_step, end_step, frequency)
    graph = read(model)
    check_finite(graph.layers())
    chosen = targets(model, final_sparsity, layers, policy)
    blocks = (1, 1) if block_size is None else (block_size[0], block_size[1])
    _settings.check_blocks(chosen, blocks, convolutions=False)
    depthwise = [name for name, (layer, _) in chosen.items() if isinstance(layer, keras.layers.DepthwiseConv2D)]
    if depthwise:
        raise InvalidArgumentError(
            "`layers` must match no depthwise convolution: the library's wrapper ignores them, the callback `Pruning` "
            f"prunes them. Received: {depthwise}."
        )
    chosen_schedules = _settings.schedules(chosen, schedule, begin_step, end_step, frequency, blocks)
    from keraslight.compress._tfmot import pruning

    return pruning.wrap(graph, model.name, chosen_schedules, blocks, m_by_n)


def pruning_step_callback() -> tf_keras.callbacks.Callback:
    """Returns the callback that `fit` needs for a `wrap_pruning` model: it counts steps and masks weights after epochs.

    Raises:
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """
    from keraslight.compress._tfmot import pruning

    return pruning.step_callback()


def strip_pruning(wrapped: tf_keras.Model, model: keras.Model) -> keras.Model:
    """Removes the pruning wrappers and copies the sparse weights back into Keras 3.

    Args:
        wrapped: Trained model that `wrap_pruning` returned.
        model: The Keras 3 model that it was made from. It is not changed.

    Returns:
        A copy of `model` with the trained weights, not compiled.

    Raises:
        InvalidArgumentError: `wrapped` is a Keras 3 model.
        CompressionError: The two models do not belong together.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """
    if isinstance(wrapped, keras.Model):
        raise InvalidArgumentError(
            f"`wrapped` must be a tf_keras model that `wrap_pruning` gave. Received: {wrapped!r} of Keras 3."
        )
    from keraslight.compress._tfmot import pruning

    trained = pruning.strip(wrapped)
    copy = copy_model(model)
    for name, layer in read(copy).layers().items():
        if isinstance(layer, keras.layers.Normalization) or not getattr(layer, "weights", ()):
            continue  # the twin of a Normalization has constants
        values = trained.get(graph_name(name), [])
        if [value.shape for value in values] != [tuple(weight.shape) for weight in layer.weights]:
            raise CompressionError(
                "The wrapped model must have been made from this Keras model. "
                f"Received: layer {name!r}, whose weights have no match."
            )
        layer.set_weights(values)
    return copy
