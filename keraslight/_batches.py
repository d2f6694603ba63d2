"""Images, with or without labels, in every form that this package accepts.

One rule for all: data is

- an array of images, (N, H, W, C),
- a pair (images, labels) of arrays, in a tuple or list, or
- a `tf.data.Dataset`, or another iterable, of batches: of images, or of pairs.

Training needs labels, and a data set that can be repeated: `batches`. What only evaluates reads `labelled_batches`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight.errors import InvalidArgumentError


def batches(data: Any, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
    """A data set of (images, labels) batches for training.

    Args:
        data: A `tf.data.Dataset` of batches, which is returned as it is, or a pair of arrays.
        batch_size: Images per batch of arrays, at least 1.
        seed: Seed of the shuffling of arrays; None keeps their order.
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


def image_batches(data: Any, batch_size: int, seed: int | None = None) -> Iterator[tf.Tensor]:
    """The images alone of an array, a pair of arrays, or a data set of batches of images or of (images, labels)."""
    if isinstance(data, np.ndarray):
        data = data, np.zeros(len(data))
    batch = None
    for batch in batches(data, batch_size, seed):
        yield batch[0] if isinstance(batch, tuple) else batch
    if batch is None:
        raise InvalidArgumentError("`data` must hold at least one batch. Received: an empty data set.")


def labelled_batches(data: Any, batch_size: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of images with their labels, or None where the data has none, in order.

    The data has any of the forms above; the labels of a pair may be None. `batch_size` is for arrays: other data keeps
    its batches.
    """
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise InvalidArgumentError(
            "`data` must hold at least one image, as an array of images, a pair of arrays, or a tf.data.Dataset or "
            f"another iterable of batches. Received: {data!r}."
        )
    # A pair rather than a list of two batches: labels are classes, not maps.
    pair = isinstance(data, tuple | list) and len(data) == 2 and np.ndim(data[1]) <= 2
    if not pair and not isinstance(data, np.ndarray):
        yield from map(_images_and_labels, data)
        return
    images, labels = _images_and_labels(data)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        yield images[part], None if labels is None else labels[part]


def _images_and_labels(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    images, *rest = data if isinstance(data, tuple | list) else (data,)
    images = np.asarray(images)
    if not rest or rest[0] is None:
        return images, None
    labels = np.asarray(rest[0])
    if len(labels) != len(images):
        raise InvalidArgumentError(
            f"`data` must hold as many labels as images. Received: {len(images)} images, {len(labels)} labels."
        )
    return images, labels


def check_images(images: Any, model: keras.Model) -> None:
    """Raises unless a batch of images has the shape that a model's first input takes.

    A model that averages its maps runs on images of any size, and its ranges would be those of other images.
    """
    wanted = tuple(model.inputs[0].shape)
    if not fits(images.shape[1:], wanted[1:]):
        raise InvalidArgumentError(
            f"`data` must hold batches of images of the model's shape, {wanted}. Received: {tuple(images.shape)}."
        )


def fits(shape: Iterable[int], wanted: Iterable[int | None]) -> bool:
    """Whether a shape is the wanted one, in which None stands for any size."""
    shape, wanted = tuple(shape), tuple(wanted)
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def steps_in(dataset: tf.data.Dataset) -> int:
    """Number of batches per epoch, at least 1; counts them once if the data set does not know."""
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
