"""What pruning and clustering share: a short training of a model that callbacks change between its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras

from keraslight import _batches as _data, _tasks
from keraslight.compress._batch_norm import settle_batch_norms
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import compilable, keeping_modes, remember_task

if TYPE_CHECKING:
    import tensorflow as tf

    from keraslight.training import Distillation


def check_callback(model: keras.Model, name: str) -> None:
    """Raises unless a callback called `name` can change the weights of a model in training after every step.

    Raises:
        CompressionError: Keras does not run on TensorFlow.
        InvalidArgumentError: The model runs several steps an execution.
    """
    if keras.backend.backend() != "tensorflow":
        raise CompressionError(
            f"{name} needs Keras' TensorFlow backend. Received: backend={keras.backend.backend()!r}."
        )
    if model.steps_per_execution != 1:
        raise InvalidArgumentError(
            f"{name} needs `compile(steps_per_execution=1)`, because it works between the steps. "
            f"Received: steps_per_execution={model.steps_per_execution}."
        )


def check_epochs(epochs: int) -> None:
    """Raises InvalidArgumentError for less than one."""
    if epochs < 1:
        raise InvalidArgumentError(f"`epochs` must be at least 1. Received: {epochs}.")


def check_loss(loss: Any, distillation: Distillation | None) -> None:
    """Raises InvalidArgumentError if both are given."""
    if distillation is not None and loss is not None:
        raise InvalidArgumentError(
            f"`loss` must be None with `distillation`, which determines it. Received: loss={loss}."
        )


def labelled(data: Any, dataset: tf.data.Dataset | None) -> Any:
    """What shows the labels of data: arrays show their values, too, other forms only what their data set says."""
    return data if _data.is_arrays(data) else dataset


def fine_tune(
    model: keras.Model,
    data: Any,
    *,
    epochs: int,
    validation_data: Any,
    learning_rate: float,
    callbacks: Iterable[keras.callbacks.Callback],
    loss: Any,
    batch_size: int,
    seed: int,
    verbose: int | str,
    distillation: Distillation | None = None,
    task: str | None = None,
) -> None:
    """Compiles a model, trains it (AdamW, a cosine-decayed learning rate) and settles its batch norms.

    Args:
        model: A model with its own weights; it is changed.
        data, epochs, validation_data, learning_rate, callbacks, loss, batch_size, seed, verbose, distillation, task: As
            in `prune`. The global seeds are left to the caller: building a model may draw numbers, too.
    """
    train = _data.counted(_data.batches(data, batch_size, seed))
    validation = None
    if validation_data is not None:
        validation = _data.batches(validation_data, batch_size, name="validation_data")
        validation = _data.counted(validation, "validation_data")
    metric: Any = "accuracy"
    _tasks.check_task(task)
    if loss is None:
        head = _tasks.read_head(model, task)
        if distillation is not None and head.task != "softmax":
            raise InvalidArgumentError(
                f"`distillation` is for models of task 'softmax'. Received: {model.name!r} of task {head.task!r}."
            )
        rows = _tasks.check_training(head, model, labelled(data, train), labelled(validation_data, validation))
        loss, metric, task = _tasks.loss(head, rows=rows), _tasks.metric(head), head.task
    remember_task(model, task)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * _data.steps_in(train), alpha=0.01)

    def compile_(trained: keras.Model, loss: Any) -> keras.Model:
        trained.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-4),
            loss=loss,
            metrics=[metric],
            jit_compile=False,  # "auto" means XLA, which makes convolutions several times slower on a CPU
        )
        return trained

    trained = compile_(model, loss)
    if distillation is not None:
        logits = dataclasses.replace(head, activation="softmax")  # which the distiller's outputs are
        trained = compile_(distillation.distiller(model), _tasks.loss(logits, rows=rows))
    elif (keeping := keeping_modes(model)) is not model:
        trained = compile_(keeping, loss)
    with compilable(trained), _tasks.labels_in_range():
        _tasks.make_variables(trained, model.outputs[0], train)
        trained.fit(
            train,
            epochs=epochs,
            validation_data=validation,
            callbacks=list(callbacks),
            shuffle=False,  # a data set shuffles itself; Keras warns otherwise
            verbose=verbose,
        )
    settle_batch_norms(model, train)
