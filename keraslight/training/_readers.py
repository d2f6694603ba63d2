"""Images with labels from the data sets of other libraries, which are recognized by what they offer, not imported.

One reader per kind yields items: single (image, label) pairs, images as arrays, Pillow images, or contents of files.
`read` makes them images of the model's size, and the labels indices.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keraslight._batches import check_ends
from keraslight._image_files import decode, failure
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.labels import check_labels
from keraslight.preprocessing import Preprocessing
from keraslight.training._folders import TEST, TRAIN, VALIDATION
from keraslight.training._progress import track

PARTS = ("the training part", "the validation part")
"""Of sources with images to hold out, as errors call them."""

_IMAGE_KEYS, _LABEL_KEYS = ("image", "img"), ("label", "labels")
_RECORD_IMAGE, _RECORD_LABEL, _RECORD_TEXT = "image/encoded", "image/class/label", "image/class/text"
_CHANNELS = (1, 3, 4)
_KINDS = (
    "a tf.data.Dataset, a pair (images, labels), an iterable or sequence of (image, label) such as a PyTorch Dataset "
    "or DataLoader, a Hugging Face data set, TFRecord files, or a dict of these with the keys 'train' and 'validation'"
)


class Item(NamedTuple):
    """One image with its label, and the label's name where an item has both."""

    image: Any
    label: Any
    name: str | None = None


class Options(NamedTuple):
    """The arguments of `ImageData.from_dataset` that all readers need."""

    preprocessing: Preprocessing
    image: str | None
    label: str | None
    value_range: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Read:
    """All that was read; fields as in `ImageData`. `of_part` is 0 for images of the first source and 1 for others."""

    labels: tuple[str, ...]
    targets: NDArray[Any]
    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    of_part: NDArray[np.int64]
    unreadable: tuple[tuple[str, str], ...]
    source: str


def parts(source: Any, validation: Any, validation_split: float | None) -> list[Any]:
    """The sources of training images and, if there are any, of those to hold out."""
    if isinstance(source, Mapping) and not _has_features(source):
        if validation is not None:
            raise InvalidArgumentError("`validation` is for a source that isn't a dict. Received: both.")
        names = {str(name).lower(): name for name in source}
        keys = [next((names[name] for name in known if name in names), None) for known in (TRAIN, VALIDATION, TEST)]
        if keys[0] is None:
            raise InvalidArgumentError(f"`source` must have the key 'train' if it is a dict. Received: {list(source)}.")
        held_out = keys[1] if keys[1] is not None else keys[2]
        source, validation = source[keys[0]], None if held_out is None else source[held_out]
    if validation is not None and validation_split is not None:
        raise InvalidArgumentError(
            f"`validation_split` is for a source without images to hold out. Received: {validation_split} and such "
            "images."
        )
    if validation is source and source is not None:
        raise DataError(
            "The training and the validation part must not have images in common. Received: the same source."
        )
    return [source] if validation is None else [source, validation]


def read(sources: Sequence[Any], options: Options, labels: Sequence[str] | None, progress: bool) -> Read:
    """Reads all sources into memory, the images in the model's size.

    Raises:
        InvalidArgumentError, DataError: See `ImageData.from_dataset`.
    """
    spec = options.preprocessing
    fit = _Fit(spec, options.value_range)
    # Grows in place: the number of images isn't known in advance, and two copies might not fit into memory.
    buffer, sizes, of_part, found, unreadable = bytearray(), [], [], [], []
    own: Sequence[str] | None = None
    for part, source in enumerate(sources):
        reader = _reader(source, options)
        if own is not None and reader.labels is not None and list(own) != list(reader.labels):
            raise DataError(
                "The training and the validation part must have the same classes. "
                f"Received: {list(own)} and {list(reader.labels)}."
            )
        own = own if own is not None else reader.labels
        items: Iterable[Item] = reader.items
        if reader.total is not None:
            items = track(items, reader.total, "Reading images", progress)
        for number, item in enumerate(items):
            name = f"{'validation ' if part else ''}image {number}"
            try:
                image, size = fit(item.image, name)
            except tf.errors.OpError as error:
                unreadable.append((name, failure(error)))
                continue
            buffer += image.data
            sizes.append(size)
            of_part.append(part)
            found.append(item._replace(image=None))
    if not found:
        raise DataError(
            f"`source` must have at least one readable image. Received: none, and {len(unreadable)} others."
        )
    given = labels if labels is not None else own
    names, targets = _targets(found, given)
    return Read(
        names,
        targets,
        np.frombuffer(buffer, np.uint8).reshape(len(found), *spec.size, spec.channels),
        np.asarray(sizes, np.int32),
        np.asarray(of_part, np.int64),
        tuple(unreadable),
        _reader_name(sources[0]),
    )


class _Reader(NamedTuple):
    items: Iterator[Item]
    labels: Sequence[str] | None = None
    total: int | None = None  # for the progress bar: of items that aren't batches


def _reader(source: Any, options: Options) -> _Reader:
    if isinstance(source, tf.data.Dataset):
        check_ends(source, "source")
        return _Reader(_unbatched(source.as_numpy_iterator(), options))
    if isinstance(source, str | os.PathLike):
        return _records([source], options)
    if isinstance(source, tuple) and len(source) == 2:
        return _pair(*source)
    if isinstance(source, list) and source and all(isinstance(path, str | os.PathLike) for path in source):
        return _records(source, options)
    if _has_features(source):
        return _hugging_face(source, options)
    if hasattr(source, "__getitem__") or isinstance(source, Iterable):
        inner = getattr(source, "dataset", source)  # of a DataLoader
        names = getattr(inner, "classes", None)
        known = [str(name) for name in names] if isinstance(names, tuple | list) else None
        return _Reader(_unbatched(_sequence(source), options), known)
    raise InvalidArgumentError(f"`source` must be {_KINDS}. Received: {type(source).__name__}.")


def _reader_name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "arrays" if isinstance(source, tuple) else type(source).__name__


def _sequence(source: Any) -> Iterator[Any]:
    """One pass over an iterable, or over a sequence that has only indices, as PyTorch's data sets."""
    if hasattr(source, "__iter__"):
        yield from source
        return
    try:
        count = len(source)
    except TypeError as error:
        raise InvalidArgumentError(f"`source` must be {_KINDS}. Received: {type(source).__name__}.") from error
    for index in range(count):
        yield source[index]


def _pair(images: Any, labels: Any) -> _Reader:
    if len(images) != len(labels):
        raise InvalidArgumentError(
            f"`source` must have as many labels as images. Received: {len(images)} images, {len(labels)} labels."
        )
    return _Reader((Item(*item) for item in zip(images, labels, strict=True)), None, len(images))


def _unbatched(items: Iterable[Any], options: Options) -> Iterator[Item]:
    """Single items of what gives (image, label) or dicts, or batches of them."""
    for item in items:
        image, label = _two(item, options)
        if _is_single(image):
            yield Item(image, _label(label))
            continue
        apart = isinstance(image, tuple | list) and len(image) > 0 and _is_single(image[0])
        images, labels = image if apart else _array(image, "image"), _label(label)
        if not apart and not _is_batch(images, labels):
            yield Item(images, labels)
            continue
        if np.ndim(labels) == 0 or len(labels) != len(images):
            raise InvalidArgumentError(
                f"`source` must have as many labels as images. Received: a batch of {len(images)} images and labels of "
                f"shape {np.shape(labels)}."
            )
        for part, value in zip(images, labels, strict=True):
            yield Item(part, _label(value))


def _is_single(image: Any) -> bool:
    """Whether this is a file's content or path, a Pillow image, or a dict with a file's content."""
    return isinstance(image, str | bytes | Mapping) or _is_pillow(image)


def _two(item: Any, options: Options) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        keys = [
            given if given is not None else next((key for key in known if key in item), None)
            for given, known in ((options.image, _IMAGE_KEYS), (options.label, _LABEL_KEYS))
        ]
        for argument, key in zip(("image", "label"), keys, strict=True):
            if key not in item:
                raise InvalidArgumentError(
                    f"`{argument}` must be a key of the source's items. Received: {key!r}, and items with {list(item)}."
                )
        return item[keys[0]], item[keys[1]]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    received = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
    raise InvalidArgumentError(f"`source` must give pairs (image, label), or dicts. Received: {received}.")


def _is_batch(image: NDArray[Any], label: Any) -> bool:
    """Whether an item is a batch, of images or of file contents."""
    if image.ndim in (0, 2):
        return False
    if image.ndim == 3:  # an image with channels, or gray images without
        return np.ndim(label) > 0 and image.shape[-1] not in _CHANNELS and image.shape[0] not in _CHANNELS
    return True


def _label(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else _array(value, "label")


def _array(value: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # the last one of PyTorch's tensors on a GPU
        raise InvalidArgumentError(f"Each {what} of `source` must be an array. Received: {error}.") from error


def _has_features(source: Any) -> bool:
    return isinstance(getattr(source, "features", None), Mapping) and hasattr(source, "__iter__")


def _hugging_face(source: Any, options: Options) -> _Reader:
    """A `datasets.Dataset` or `IterableDataset`: rows are dicts, and `features` describes the columns."""
    features = source.features

    def named(key: str) -> Sequence[str] | None:
        feature = features[key]
        inner = getattr(feature, "feature", None)  # of a list of class labels
        return getattr(feature, "names", None) or getattr(inner, "names", None)

    def column(argument: str, given: str | None, known: Sequence[str], fitting: list[str]) -> str:
        key = given if given is not None else next((key for key in known if key in features), None)
        if key is None and len(fitting) == 1:
            key = fitting[0]
        if key is None or key not in features:
            raise InvalidArgumentError(
                f"`{argument}` must be a column of the data set. Received: {given!r}, and the columns {list(features)}."
            )
        return key

    images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    image = column("image", options.image, _IMAGE_KEYS, images)
    label = column("label", options.label, _LABEL_KEYS, [key for key in features if named(key)])
    names = named(label)
    several = names is not None and not getattr(features[label], "names", None)

    def items() -> Iterator[Item]:
        for row in source:
            value = row[label]
            if several and names is not None:  # indices, any number of them
                value = np.isin(np.arange(len(names)), value).astype(np.float32)
            yield Item(row[image], _label(value))

    return _Reader(items(), names, len(source) if hasattr(source, "__len__") else None)


def _records(paths: Sequence[str | os.PathLike[str]], options: Options) -> _Reader:
    """TFRecord files of `tf.train.Example`."""
    places = [pathlib.Path(path) for path in paths]
    for place in places:
        if not place.is_file():
            what = "a folder: use load_directory" if place.is_dir() else "which doesn't exist"
            raise DataError(f"`source` must be a TFRecord file if it is a path. Received: {place}, {what}.")
        if place.suffix.lower() in (".csv", ".tsv", ".parquet"):
            raise DataError(f"`source` must be a TFRecord file if it is a path. Received: {place}: use load_table.")
    image, label = options.image or _RECORD_IMAGE, options.label or _RECORD_LABEL

    def items() -> Iterator[Item]:
        for place in places:
            records = tf.data.TFRecordDataset(str(place), "GZIP" if place.suffix == ".gz" else "")
            number = 0
            try:
                for number, record in enumerate(records.as_numpy_iterator()):  # for the error
                    yield _example(record, image, label, f"record {number} of {place}")
            except tf.errors.OpError as error:
                raise DataError(
                    f"A TFRecord file must be complete. Received: {place}, after {number} records: {failure(error)}"
                ) from error

    return _Reader(items())


def _example(record: bytes, image: str, label: str, name: str) -> Item:
    example = tf.train.Example()
    try:
        example.ParseFromString(record)
    except Exception as error:  # protobuf's DecodeError; its module differs between versions
        raise DataError(f"Records must be tf.train.Example. Received: {name}: {error}") from error
    features = example.features.feature
    for key in (image, label):
        if key not in features:
            raise DataError(f"Records must have the feature {key!r}. Received: {name} with {sorted(features)}.")
    images, values = _values(features[image]), _values(features[label])
    if len(images) != 1 or not isinstance(images[0], bytes):
        raise DataError(f"The feature {image!r} must be the content of one image file. Received: {name}.")
    if not values:
        raise DataError(f"The feature {label!r} must have a value. Received: {name}.")
    text = _values(features[_RECORD_TEXT]) if label == _RECORD_LABEL and _RECORD_TEXT in features else []
    known = _label(text[0]) if len(text) == 1 else None
    return Item(images[0], _label(values[0] if len(values) == 1 else values), known)


def _values(feature: tf.train.Feature) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


class _Fit:
    """Makes images of any kind uint8 (H, W, C) of the model's size."""

    def __init__(self, spec: Preprocessing, value_range: tuple[float, float] | None) -> None:
        self._spec, self._range = spec, value_range
        if value_range is not None and not value_range[0] < value_range[1]:
            raise InvalidArgumentError(f"`value_range` must be (black, white), ascending. Received: {value_range}.")
        read = 4 if spec.channels == 4 else 3
        pixels = [tf.TensorSpec((None, None, read), tf.uint8)]
        self._fit: Callable[..., tf.Tensor] = tf.function(self._fitted, input_signature=pixels, autograph=False)
        content = [tf.TensorSpec((), tf.string)]
        self._decode: Callable[..., tf.Tensor] = tf.function(self._decoded, input_signature=content, autograph=False)

    def _fitted(self, image: tf.Tensor) -> tf.Tensor:
        if self._spec.channels == 1:
            luma = tf.reduce_sum(tf.cast(image, tf.float32) * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
            image = tf.cast(tf.round(luma), tf.uint8)
        same = tf.reduce_all(tf.shape(image)[:2] == self._spec.size)
        fitted = tf.cond(same, lambda: tf.cast(image, tf.float32), lambda: self._spec.fit(image))
        return tf.cast(fitted, tf.uint8)

    def _decoded(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode(content, self._spec.channels)
        return tf.cast(self._spec.fit(image), tf.uint8), tf.shape(image)[:2]

    def __call__(self, image: Any, name: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """The image and its height and width before.

        Raises:
            tf.errors.OpError: The content of a file isn't an image.
            InvalidArgumentError: An array isn't one.
        """
        if isinstance(image, Mapping):  # as Hugging Face stores undecoded images
            content, path = image.get("bytes"), image.get("path")
            image = content if content is not None else path
        if isinstance(image, str):
            image = tf.io.read_file(image).numpy()
        if isinstance(image, bytes):
            pixels, (height, width) = (part.numpy() for part in self._decode(image))
            return pixels, (int(height), int(width))
        array = _from_pillow(image, name) if _is_pillow(image) else self._from_array(_array(image, "image"), name)
        rgba = self._spec.channels == 4
        if array.shape[-1] == 1:
            array = np.repeat(array, 3, axis=-1)
        if array.shape[-1] == 3 and rgba:
            array = np.pad(array, [(0, 0), (0, 0), (0, 1)], constant_values=255)
        return self._fit(array[..., : 4 if rgba else 3]).numpy(), (array.shape[0], array.shape[1])

    def _from_array(self, image: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Channels last, 0..255."""
        shape = image.shape
        if image.ndim == 2:
            image = image[..., None]
        elif image.ndim == 3 and shape[-1] not in _CHANNELS and shape[0] in _CHANNELS:
            image = np.moveaxis(image, 0, -1)
        if image.ndim != 3 or image.shape[-1] not in _CHANNELS or 0 in image.shape:
            raise InvalidArgumentError(
                "Each image of `source` must be (h, w), (h, w, C) or (C, h, w), with 1, 3 or 4 channels. "
                f"Received: {name} of shape {shape}."
            )
        kind = image.dtype
        if self._range is None and kind == np.uint8:
            return image
        if self._range is None and kind == np.uint16:
            return (image >> 8).astype(np.uint8)  # as of PNG files
        if kind.kind not in "biuf":
            raise InvalidArgumentError(f"Each image of `source` must hold numbers. Received: {name} of {kind}.")
        low, high = self._range or ((0, 255) if kind.kind in "iu" else (0, 1))
        least, most = float(image.min()), float(image.max())
        if not low <= least <= most <= high:
            raise InvalidArgumentError(
                f"Each image of `source` must hold {low}..{high}, or `value_range` must be given. "
                f"Received: {least:g}..{most:g} in {name}, {kind}."
            )
        return np.round((image.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)


def _is_pillow(image: Any) -> bool:
    return hasattr(image, "mode") and hasattr(image, "convert") and hasattr(image, "getexif")


def _from_pillow(image: Any, name: str) -> NDArray[np.uint8]:
    """Upright pixels (h, w, 3 or 4) of a Pillow image."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[..., None]
    if image.mode in ("I", "F"):
        raise InvalidArgumentError(f"Pillow images must have 8 or 16 bits. Received: {name} of mode {image.mode!r}.")
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _targets(found: Sequence[Item], labels: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    """The class names, and the labels as `ImageData.targets`."""
    values = [item.label for item in found]
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        raise InvalidArgumentError(f"All labels of `source` must have one shape. Received: {sorted(shapes)}.")
    (shape,) = shapes
    if len(shape) == 1 and shape != (1,):
        rows = np.asarray(values)
        if rows.dtype.kind not in "biuf" or not np.isfinite(rows).all():
            raise InvalidArgumentError(f"Labels that are rows must be finite numbers. Received: {rows.dtype}.")
        names = list(labels) if labels is not None else [str(column) for column in range(shape[0])]
        if len(names) != shape[0]:
            raise InvalidArgumentError(
                f"`labels` must name the {shape[0]} columns of the labels. Received: {len(names)}, {names}."
            )
        return _checked(names), rows.astype(np.float32)
    if len(shape) > 1:
        raise InvalidArgumentError(f"A label must be a number, a name or a row of numbers. Received: shape {shape}.")
    if all(isinstance(value, str) for value in values):
        return _from_names(values, labels)
    numbers = np.asarray(values).reshape(-1)
    if numbers.dtype.kind not in "biuf" or not (numbers == np.floor(numbers)).all():
        raise InvalidArgumentError(f"Labels must be integers, names, or rows of numbers. Received: {numbers.dtype}.")
    whole = numbers.astype(np.int64)
    if labels is not None:
        bad = np.flatnonzero((whole < 0) | (whole >= len(labels)))
        if len(bad):
            raise InvalidArgumentError(
                f"Labels must be in 0..{len(labels) - 1}, indices of the class names. Received: {whole[bad[0]]} for "
                f"image {bad[0]}."
            )
        return _checked(list(labels)), whole.astype(np.int32)
    known, targets = np.unique(whole, return_inverse=True)
    texts: dict[int, set[str | None]] = {}
    for number, item in zip(whole, found, strict=True):
        texts.setdefault(int(number), set()).add(item.name)
    named = {number: text for number, names in texts.items() if len(names) == 1 and (text := next(iter(names)))}
    if len(named) == len(known) == len(set(named.values())):
        return _checked([named[int(number)] for number in known]), targets.astype(np.int32)
    return _checked([str(number) for number in known]), targets.astype(np.int32)


def _from_names(values: list[Any], labels: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[Any]]:
    names = list(labels) if labels is not None else sorted(set(values))
    indices = {name: index for index, name in enumerate(names)}
    unknown = sorted({value for value in values if value not in indices})
    if unknown:
        raise InvalidArgumentError(f"`labels` must name all classes. Received: {names} without {unknown}.")
    return _checked(names), np.asarray([indices[value] for value in values], np.int32)


def _checked(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(check_labels(labels))
