"""Images, with or without labels, in every form that this package accepts.

One rule for all: data is

- an array of images, (N, H, W, C), or a list of images or of batches of them;
- a pair (images, labels) of arrays, in a tuple or list;
- a `tf.data.Dataset`, a `keras.utils.PyDataset`, a PyTorch `DataLoader`, or another iterable or generator, of images,
  of batches, or of pairs of these with labels; or
- a function without arguments that returns such an iterable, as TFLite's converter takes.

Its length need not be known, but what is read as a whole has to end. An iterator, which can be read only once, is kept
in memory where it is read more often. Arrays are those of NumPy, TensorFlow or PyTorch, or others for `np.asarray`.

Training needs labels: `batches`. What only evaluates reads `labelled_batches`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight.errors import InvalidArgumentError

_FORMS = (
    "must hold at least one image, as an array or list of images, a tf.data.Dataset or another iterable of batches, or "
    "a pair of arrays"
)
_RANK = 4  # of a batch of images

Batch = tuple[np.ndarray, ...]
"""Images, and what comes with them: labels, and perhaps weights."""


def batches(data: Any, batch_size: int, seed: int | None = None, *, name: str = "data") -> tf.data.Dataset:
    """A data set of (images, labels) batches for training, which can be read again and again.

    Args:
        data: Any form with labels. A `tf.data.Dataset` of batches is returned as it is.
        batch_size: Images per batch of arrays, and of what gives single images, at least 1.
        seed: Seed of the shuffling of arrays; None keeps their order. Other data keeps its order.
        name: The argument that errors speak of.
    """
    _check_batch_size(batch_size)
    if isinstance(data, tf.data.Dataset):
        return _dataset(data, batch_size, name)
    arrays = _arrays(data, name)
    if arrays is None:
        return _generated(data, batch_size, name)
    images, labels = arrays
    if labels is None:
        raise _no_labels(name, f"images of shape {images.shape} alone")
    if not len(images):
        raise InvalidArgumentError(f"`{name}` must hold at least one image. Received: none.")
    return _gathered((images, labels), batch_size, seed)


def image_batches(
    data: Any, batch_size: int, seed: int | None = None, *, rank: int = _RANK, name: str = "data"
) -> Iterator[np.ndarray]:
    """The images alone, in batches, of data in any form; `rank` is that of a batch.

    Raises:
        InvalidArgumentError: There is none.
    """
    _check_batch_size(batch_size)
    arrays = _arrays(data, name)
    if arrays is None:
        found = (images for images, *_ in _batches_of(data, rank, name))
    else:
        order = np.arange(len(arrays[0]))
        if seed is not None and len(order):  # as `batches` shuffles
            indices = tf.data.Dataset.range(len(order)).shuffle(len(order), seed=seed).batch(len(order))
            order = indices.get_single_element().numpy()
        parts = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        found = (arrays[0][part] for part in parts)
    batch = None
    for batch in found:
        yield batch
    if batch is None:
        raise InvalidArgumentError(f"`{name}` must hold at least one batch. Received: an empty data set.")


def labelled_batches(
    data: Any, batch_size: int = 32, *, whole: bool = True, rank: int = _RANK, name: str = "data"
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of images with their labels, or None where the data has none, in order.

    Args:
        data: Any form; the labels of a pair may be None.
        batch_size: Images per batch of arrays: other data keeps its batches.
        whole: Whether all of it is read, so that it must not repeat forever.
        rank: Rank of a batch of images.
        name: The argument that errors speak of.
    """
    if whole:
        check_ends(data, name)
    arrays = _arrays(data, name)
    if arrays is None:
        for images, *rest in _batches_of(data, rank, name):
            yield images, (rest[0] if rest else None)
        return
    images, labels = arrays
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        yield images[part], None if labels is None else labels[part]


def is_arrays(data: Any) -> bool:
    """Whether data is arrays, which can be read as a whole, rather than a data set or an iterable."""
    return _arrays(data, "data") is not None


def check_images(images: Any, model: keras.Model, name: str = "data") -> None:
    """Raises unless a batch of images has the shape that a model's first input takes.

    A model that averages its maps runs on images of any size, and its ranges would be those of other images.
    """
    wanted = tuple(model.inputs[0].shape)
    if not fits(images.shape[1:], wanted[1:]):
        raise InvalidArgumentError(
            f"`{name}` must hold batches of images of the model's shape, {wanted}. Received: {tuple(images.shape)}"
            f"{channels_first(tuple(images.shape)[1:], wanted[1:])}."
        )


def fits(shape: Iterable[int], wanted: Iterable[int | None]) -> bool:
    """Whether a shape is the wanted one, in which None stands for any size."""
    shape, wanted = tuple(shape), tuple(wanted)
    return len(shape) == len(wanted) and all(b in (None, a) for a, b in zip(shape, wanted, strict=True))


def channels_first(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    """What to add to an error about images of a wrong shape that would fit with their channels last."""
    if len(shape) == 3 and fits((*shape[1:], shape[0]), wanted):
        return ", with the channels first as in PyTorch: transpose each batch by (0, 2, 3, 1)"
    return ""


def steps_in(dataset: tf.data.Dataset, name: str = "data") -> int:
    """Number of batches per epoch, at least 1; counts them once if the data set does not know."""
    check_ends(dataset, name)
    steps = int(dataset.cardinality())
    if steps < 0:
        steps = sum(1 for _ in dataset)
    if not steps:
        raise InvalidArgumentError(f"`{name}` must hold at least one batch. Received: an empty data set.")
    return steps


def counted(dataset: tf.data.Dataset, name: str = "data") -> tf.data.Dataset:
    """A data set that knows its length: as many batches in every pass as the given one had when they were counted.

    Keras warns of others, and callbacks can't plan with them. A filter may pass another number each time.
    """
    steps = steps_in(dataset, name)
    return dataset if int(dataset.cardinality()) >= 0 else dataset.repeat().take(steps)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: {batch_size}.")


def check_ends(data: Any, name: str = "data") -> None:
    """Raises for a data set that repeats forever."""
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InvalidArgumentError(
            f"`{name}` must end; use `{name}.take(steps)`. Received: a data set that repeats forever."
        )


def _no_labels(name: str, received: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"`{name}` must hold labels: a pair of arrays (images, labels), or a tf.data.Dataset or another iterable of "
        f"such batches. Received: {received}."
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, keras.KerasTensor)


def _are_labels(value: Any) -> bool:
    """Whether the second of two is labels, one number or a row of numbers for each image, rather than images."""
    if isinstance(value, tuple | list):
        return all(_are_labels(part) and np.ndim(part) <= 1 for part in value)
    return value is None or (not isinstance(value, dict | str) and np.ndim(value) <= 2)


def _arrays(data: Any, name: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The images and labels of data that is arrays, or None for other forms."""
    if _is_array(data):
        return _array(data, name), None
    if not isinstance(data, tuple | list):
        return None
    if len(data) == 2 and _are_labels(data[1]):
        return _pair(data[0], data[1], name)
    if data and all(map(_is_array, data)) and not any(map(_are_labels, data)):
        return _stacked(data, name), None  # images, or batches of them
    if data and all(isinstance(part, tuple | list) and len(part) == 1 for part in data):
        return _stacked([part[0] for part in data], name), None  # as TFLite's converter reads them
    return None


def _stacked(parts: Any, name: str) -> np.ndarray:
    """One array of images, or of batches of images, that are apart."""
    arrays = [_array(part, name) for part in parts]
    single = arrays[0].ndim == _RANK - 1
    shapes = sorted({array.shape if single else array.shape[1:] for array in arrays})
    if len(shapes) > 1:
        raise InvalidArgumentError(f"`{name}` must hold images of one shape. Received: shapes {shapes}.")
    return np.stack(arrays) if single else np.concatenate(arrays)


def _pair(images: Any, labels: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    apart = isinstance(images, tuple | list) and len(images) and np.ndim(images[0]) >= _RANK - 1
    images = _stacked(images, name) if apart else _array(images, name)
    if labels is None:
        return images, None
    labels = _array(labels, name)
    count = len(labels) if labels.ndim else 0
    if count != len(images):
        raise InvalidArgumentError(
            f"`{name}` must hold as many labels as images. Received: {len(images)} images, {count} labels."
        )
    return images, labels


def _array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # the last one of PyTorch's tensors on a GPU or with a gradient
        raise InvalidArgumentError(f"`{name}` must hold arrays of numbers. Received: {error}.") from error
    if array.dtype.kind not in "biuf" and array.dtype != tf.bfloat16.as_numpy_dtype:
        raise InvalidArgumentError(f"`{name}` must hold numbers. Received: an array of {array.dtype}.")
    return array


def _items(data: Any, name: str) -> Iterator[Any]:
    """One pass over data that is no arrays."""
    if isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        if count is None:
            raise InvalidArgumentError(f"`{name}` must end. Received: a PyDataset without a number of batches.")
        data.on_epoch_begin()
        for index in range(count):
            item = data[index]
            if index == count - 1:
                data.on_epoch_end()  # not after the last item, which may be where the reader stops
            yield item
        return
    if not isinstance(data, Iterable) and callable(data):
        data = data()
    if isinstance(data, str | bytes | dict) or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        received = (
            type(data).__name__ if isinstance(data, dict) or type(data).__repr__ is object.__repr__ else repr(data)
        )
        raise InvalidArgumentError(f"`{name}` {_FORMS}. Received: {received}.")
    yield from data


def _batches_of(data: Any, rank: int, name: str) -> Iterator[Batch]:
    """One pass over data that is no arrays: batches of images, alone or with what comes with them."""
    for item in _items(data, name):
        yield _batched(_parts(item, name), rank, name)


def _parts(item: Any, name: str) -> list[np.ndarray]:
    """The images of an item, and what comes with them."""
    if isinstance(item, dict):
        raise InvalidArgumentError(
            f"`{name}` must give (images, labels) pairs; map them, such as by `lambda item: (item['image'], "
            f"item['label'])`. Received: a dictionary with {sorted(map(str, item))}."
        )
    parts = item if isinstance(item, tuple | list) else (item,)
    arrays = [_array(part, name) for part in parts if part is not None]
    if not arrays:
        raise InvalidArgumentError(f"`{name}` must give images or (images, labels) pairs. Received: {item!r}.")
    return arrays


def _batched(parts: list[np.ndarray], rank: int, name: str) -> Batch:
    if parts[0].ndim == rank - 1:  # a single image
        parts = [part[None] for part in parts]
    if any(part.ndim == 0 or len(part) != len(parts[0]) for part in parts):
        raise InvalidArgumentError(
            f"`{name}` must hold as many labels as images. "
            f"Received: a batch of shapes {[part.shape for part in parts]}."
        )
    return tuple(parts)


def _dataset(data: tf.data.Dataset, batch_size: int, name: str) -> tf.data.Dataset:
    """A data set of batches, which it may be already."""
    spec = data.element_spec
    if isinstance(spec, dict):
        _parts(spec, name)  # raises
    if not isinstance(spec, tuple | list) or len(spec) < 2:
        raise _no_labels(name, f"a data set of {spec}")
    single = getattr(spec[0], "shape", None) is not None and spec[0].shape.rank == _RANK - 1
    return data.batch(batch_size) if single else data


def _generated(data: Any, batch_size: int, name: str) -> tf.data.Dataset:
    """A data set of what an iterable gives."""
    if isinstance(data, Iterator):
        data = list(data)
    item = next(_items(data, name), None)
    if item is None:
        raise InvalidArgumentError(f"`{name}` must hold at least one batch. Received: an empty data set.")
    parts = _parts(item, name)
    single, first = parts[0].ndim == _RANK - 1, _batched(parts, _RANK, name)
    if len(first) < 2:
        raise _no_labels(name, f"batches of images of shape {first[0].shape} alone")
    kinds = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first)

    def checked() -> Iterator[Batch]:
        for parts in _batches_of(data, _RANK, name):
            found, wanted = ([part.shape[1:] for part in batch] for batch in (parts, first))
            if found != wanted:
                raise InvalidArgumentError(
                    f"`{name}` must give batches of one shape. Received: {found} after {wanted}."
                )
            yield tuple(part.astype(start.dtype) for part, start in zip(parts, first, strict=True))

    dataset = tf.data.Dataset.from_generator(checked, output_signature=kinds)
    if single:
        dataset = dataset.unbatch().batch(batch_size)
    elif hasattr(data, "__len__"):
        dataset = dataset.repeat().take(len(data))
    return dataset.prefetch(2)


def _gathered(arrays: Batch, batch_size: int, seed: int | None) -> tf.data.Dataset:
    """Batches of arrays, which stay where they are: only their indices are shuffled.

    As a constant of the pipeline and in its shuffle buffer they would be in memory three times.
    """
    indices = tf.data.Dataset.range(len(arrays[0]))
    if seed is not None:
        indices = indices.shuffle(len(arrays[0]), seed=seed)

    def rows(array: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
        def gather(chosen: tf.Tensor) -> tf.Tensor:
            found = tf.numpy_function(lambda places: array[places], [chosen], array.dtype, stateful=False)
            return tf.ensure_shape(found, (None, *array.shape[1:]))

        return gather

    gathers = [rows(array) for array in arrays]
    return indices.batch(batch_size).map(lambda chosen: tuple(gather(chosen) for gather in gathers)).prefetch(2)
