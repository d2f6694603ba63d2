"""Training after a change of the weights, such as channels that were removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras

from keraslight.compress import _fine_tune
from keraslight.graph import check_finite, copy, read, without_auxiliary

if TYPE_CHECKING:
    from keraslight.training import Distillation


def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    epochs: int = 3,
    validation_data: Any = None,
    learning_rate: float = 3e-3,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    loss: Any = None,
    task: str | None = None,
    distillation: Distillation | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> keras.Model:
    """Trains a copy of a model as `prune` does, without zeroing weights: after `shrink`, for example.

    Args:
        model: A functional or sequential image classifier. It is not changed. Auxiliary heads are left out.
        data, epochs, validation_data, learning_rate, callbacks, loss, task, distillation, batch_size, seed, verbose: As
            in `prune`.

    Returns:
        The trained copy, compiled, with the model's layer names.

    Raises:
        InvalidArgumentError: An argument is out of range, the teacher has other classes or another image shape, both
            `distillation` and `loss` are given, the task must be said, or the labels don't fit it.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    _fine_tune.check_epochs(epochs)
    _fine_tune.check_loss(loss, distillation)
    model = without_auxiliary(model)
    keras.utils.set_random_seed(seed)
    check_finite(read(model).layers())
    trained = copy(model)
    _fine_tune.fine_tune(
        trained,
        data,
        epochs=epochs,
        validation_data=validation_data,
        learning_rate=learning_rate,
        callbacks=callbacks,
        loss=loss,
        task=task,
        distillation=distillation,
        batch_size=batch_size,
        seed=seed,
        verbose=verbose,
    )
    return trained
