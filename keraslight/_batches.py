"""Data in the forms that this package takes: tf.data.Datasets of batches, or arrays."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keraslight.errors import InvalidArgumentError


def batches(data, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """A data set of batches from one, or from arrays (images, labels); arrays are shuffled if a seed is given.

    Raises:
        InvalidArgumentError: `data` is neither, the arrays differ in length, or they are empty, or `batch_size` is less
            than 1.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: {batch_size}.")
    if isinstance(data, tf.data.Dataset):
        return data
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise InvalidArgumentError(
            "`data` must be a tf.data.Dataset of (images, labels) batches or a pair of arrays. "
            f"Received: {type(data).__name__}."
        )
    images, labels = (np.asarray(part) for part in data)
    if len(images) != len(labels) or not len(images):
        raise InvalidArgumentError(
            "`data` must hold as many labels as images, at least one. "
            f"Received: {len(images)} images, {len(labels)} labels."
        )
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        dataset = dataset.shuffle(len(images), seed=seed)
    return dataset.batch(batch_size).prefetch(2)


def image_batches(data, batch_size: int, seed: int | None = None) -> Iterator[tf.Tensor]:
    """The images alone: of an array, a pair of arrays, or a data set of batches of images or of (images, labels).

    Raises:
        InvalidArgumentError: As `batches`; or the data set is empty, where the first batch is asked for.
    """
    if isinstance(data, np.ndarray):
        data = data, np.zeros(len(data))
    empty = True
    for batch in batches(data, batch_size, seed):
        empty = False
        yield batch[0] if isinstance(batch, tuple) else batch
    if empty:
        raise InvalidArgumentError("`data` must hold at least one batch. Received: an empty data set.")


def check_images(images, model: keras.Model) -> None:
    """Raises InvalidArgumentError unless a batch of images has the shape that a model's first input takes.

    A model that averages its maps runs on images of any size, and its ranges would be those of other images.
    """
    wanted = tuple(model.inputs[0].shape)
    if len(images.shape) != len(wanted) or any(
        one not in (None, other) for one, other in zip(wanted[1:], images.shape[1:], strict=True)
    ):
        raise InvalidArgumentError(
            f"`data` must hold batches of images of the model's shape, {wanted}. Received: {tuple(images.shape)}."
        )


def steps_in(dataset: tf.data.Dataset) -> int:
    """Batches in an epoch; counts them once where the data set does not know."""
    steps = int(dataset.cardinality())
    if steps == tf.data.INFINITE_CARDINALITY:
        raise InvalidArgumentError(
            "`data` must end; use `data.take(steps)`. Received: a data set that repeats forever."
        )
    if steps < 0:
        steps = sum(1 for _ in dataset)
    if not steps:
        raise InvalidArgumentError("`data` must hold at least one batch. Received: an empty data set.")
    return steps
