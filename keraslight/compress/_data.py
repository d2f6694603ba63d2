"""Training data in the two forms that `prune` and `train_quantized` take."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keraslight.errors import InvalidArgumentError


def batches(data, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """A data set of batches from one, or from arrays (images, labels); arrays are shuffled if a seed is given.

    Raises:
        InvalidArgumentError: `data` is neither, the arrays differ in length, or they are empty.
    """
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


def gives_probabilities(graph) -> bool:
    """Whether a model's (only) output comes from a softmax, so that the loss must not apply another one."""
    import keras

    outputs = keras.tree.flatten(graph.outputs)
    last = next((call.layer for call in graph.calls if outputs[-1] in call.outputs), None)
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
