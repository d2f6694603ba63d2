"""Labeled images, split into training and validation data, as deterministic tf.data pipelines."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from keraslight._notebook import Report
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.labels import check_labels
from keraslight.preprocessing import Preprocessing
from keraslight.training._augmentation import Augmentation
from keraslight.training._mixing import Mixing
from keraslight.training._report import DataReport

MEMORY_LIMIT_BYTES = 1 << 30  # for decoded images; if they need more, they are decoded in each epoch or cached on disk


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData(Report):
    """Labeled images of one size, made by `load_digits`, `load_directory`, `load_table` or one of the methods below.

    `print(data)` shows what was found: see `report`.

    Attributes:
        labels: Class names, indexed by the targets; or names of the columns of targets that are rows.
        preprocessing: How image files are decoded to the model's raw pixels.
        targets: int32 (N,), the class of each image, in 0..len(labels) - 1; or float32 (N, len(labels)), the numbers of
            each image: of a `multi-label` model zeros and ones, of a `regression` what it is to predict.
        train_indices: int64, the images used for training.
        validation_indices: int64, the held-out images; disjoint from `train_indices`.
        pixels: uint8 (N, H, W, C), in memory or as a read-only `numpy.memmap`; or None if the images don't fit into
            memory, so that they are decoded from `files` each time.
        files: N paths, or empty if the images don't come from files.
        originals: uint8 (validation_count, h, w), the validation images before resizing. Only set by `load_digits`.
        unreadable: Names of the images that were skipped, because they are damaged or of a format that isn't
            supported, each with the reason. Files are relative to the folder.
        ignored: Paths, relative to the folder, of other files and of folders that hold no images; folders end in "/".
        sizes: int32 (N, 2), height and width of each image before resizing; or None if all had the model's size.
        weights: float32 (N,), the weight of each image in the training loss, finite and at least 0; or None.
        source: Where the images come from, as `report` calls it.

    Raises:
        InvalidArgumentError: `weights` breaks its rule.
    """

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    targets: NDArray[Any]
    train_indices: NDArray[np.int64]
    validation_indices: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None = None
    files: tuple[str, ...] = ()
    originals: NDArray[np.uint8] | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    sizes: NDArray[np.int32] | None = None
    weights: NDArray[np.float32] | None = None
    source: str = "arrays"

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", _weights(self.weights, self.targets, self.train_indices))

    def __str__(self) -> str:
        return str(self.report())

    @classmethod
    def from_arrays(
        cls,
        pixels: ArrayLike,
        targets: ArrayLike,
        labels: Sequence[str],
        preprocessing: Preprocessing,
        *,
        validation_split: float = 0.2,
        seed: int = 0,
        weights: ArrayLike | None = None,
    ) -> ImageData:
        """Wraps arrays of images that already have the model's size.

        Args:
            pixels: uint8 (N, H, W, C), with H, W and C of `preprocessing`.
            targets: Integers (N,), in 0..len(labels) - 1; or numbers (N, len(labels)), also (N,) for a single label.
            labels: Class names, at least two; or names of the columns.
            preprocessing: How image files are decoded to such pixels.
            validation_split: Share of each class to hold out, in (0, 1); both parts get at least one image per class.
                Of targets that are rows, the share of all images.
            seed: Random seed for the split.
            weights: Weight of each image in the training loss, (N,), finite and at least 0.

        Raises:
            InvalidArgumentError: The arrays don't fit each other or `preprocessing`.
            DataError: There are fewer than two classes, or a class has fewer than two images.
        """
        pixels = pixels if isinstance(pixels, np.memmap) else np.asarray(pixels)  # which `asarray` would make an array
        targets = _targets(np.asarray(targets), len(labels))
        shape = (len(targets), *preprocessing.size, preprocessing.channels)
        if pixels.dtype != np.uint8 or pixels.shape != shape:
            raise InvalidArgumentError(
                f"`pixels` must be uint8 of shape {shape}. Received: {pixels.dtype} of shape {pixels.shape}."
            )
        labels = check_labels(labels)
        train, validation = split(targets, labels, validation_split, seed)
        # `__post_init__` makes them float32.
        return cls(tuple(labels), preprocessing, targets, train, validation, pixels, weights=weights)  # type: ignore[arg-type]

    @classmethod
    def from_dataset(
        cls,
        source: Any,
        preprocessing: Preprocessing,
        *,
        labels: Sequence[str] | None = None,
        validation: Any = None,
        validation_split: float | None = None,
        seed: int = 0,
        image: str | None = None,
        label: str | None = None,
        value_range: tuple[float, float] | None = None,
        progress: bool = True,
    ) -> ImageData:
        """Reads images with labels from the data sets of other libraries into memory, once.

        Images may have any size. Those that don't have the model's size are resized and cropped by `preprocessing`.
        They may be arrays or tensors (h, w), (h, w, C) or, as in PyTorch, (C, h, w); Pillow images; or the content of
        image files. Colors are converted to the channels of `preprocessing` as `docs/images.md` describes.

        Args:
            source: One of

                - a `tf.data.Dataset` of (image, label), of dicts, or of batches of these;
                - a pair (images, labels) of arrays or lists;
                - a PyTorch `Dataset` or `DataLoader`, or another iterable or sequence of (image, label) or of batches;
                - a data set of Hugging Face's `datasets`;
                - the path of a TFRecord file of `tf.train.Example`, or a list of paths;
                - a dict of these, such as a `DatasetDict`, with the keys `"train"` and `"validation"` or `"test"`.
            preprocessing: Input of the model.
            labels: Class names, indexed by the labels, or names of the columns of labels that are rows of numbers.
                Default: those that the source has (`features`, `classes`); otherwise the labels found, sorted.
            validation: Images to hold out, of any of these kinds. Not with a dict.
            validation_split: Share of each class to hold out, in (0, 1); None is 0.2. Not with `validation` or a dict.
            seed: Random seed for the split.
            image: Key of the images in dicts and TFRecords. Default: `"image"` or `"img"`; `"image/encoded"` in
                TFRecords.
            label: Key of the labels. Default: `"label"` or `"labels"`, or the only column of class labels;
                `"image/class/label"` in TFRecords, with names in `"image/class/text"`.
            value_range: Values of black and white. Default: 0 and 255 of integers (of uint16, the high 8 bits), 0
                and 1 of floats and booleans.
            progress: Whether to show a progress bar if stderr is a terminal.

        Raises:
            InvalidArgumentError: The source is of another kind, has other keys, or repeats forever; an image or a
                label has another shape or range; or `validation_split` comes with images to hold out.
            DataError: There are fewer than two classes, a class is in one part only or has too few images, or a
                TFRecord file can't be read.
            MissingDependencyError: `progress` is set and rich isn't installed.
        """
        from keraslight.training import _readers

        parts = _readers.parts(source, validation, validation_split)
        options = _readers.Options(preprocessing, image, label, value_range)
        found = _readers.read(parts, options, labels, progress)
        if len(parts) == 2:
            train, held_out = divided(found.targets, found.labels, found.of_part, _readers.PARTS)
        else:
            share = 0.2 if validation_split is None else validation_split
            train, held_out = split(found.targets, found.labels, share, seed)
        return cls(
            found.labels,
            preprocessing,
            found.targets,
            train,
            held_out,
            found.pixels,
            unreadable=found.unreadable,
            sizes=found.sizes,
            source=found.source,
        )

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return len(self.train_indices)

    @property
    def validation_count(self) -> int:
        """Number of held-out images."""
        return len(self.validation_indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of each image."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    @property
    def skipped(self) -> int:
        """Number of images that can't be read: see `unreadable`."""
        return len(self.unreadable)

    def report(self) -> DataReport:
        """What was found: classes with counts, image sizes, and what was skipped or ignored, as text or JSON."""
        return DataReport.of(self)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of batches that `train` yields per epoch."""
        return self.train_count // self._train_batch(batch_size)

    def train(
        self,
        batch_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        first_epoch: int = 0,
        epochs: int = 1,
        size: tuple[int, int] | None = None,
        mixing: Mixing | None = None,
        columns: int | None = None,
        class_weights: NDArray[np.float32] | None = None,
        most_steps: int | None = None,
    ) -> tf.data.Dataset:
        """The training images, shuffled and augmented.

        Order and augmentation only depend on `seed`, the epoch and the step. An epoch is the same whether or not the
        previous ones were read, as required to resume a run exactly.

        Args:
            batch_size: Images per batch, at least 1; limited to the number of training images. The remainder of an
                epoch is dropped (different images each time), because a batch of one or two images would harm batch
                normalization.
            augmentation: Random changes, or None.
            seed: Random seed for shuffling and augmentation.
            first_epoch: Number of the first epoch, from 0.
            epochs: Number of epochs to yield.
            size: Height and width to reduce or enlarge the images to, before they are augmented; None for their own.
            mixing: Mixtures of the augmented images, or None.
            columns: Width of the rows that targets become where images are mixed; None for the number of labels.
            class_weights: Weight of each class, (classes,), or None; it multiplies `weights`.
            most_steps: Batches of each epoch to yield, the first ones, at least 1; None for all.

        Returns:
            Batches of (float32 (B, H, W, C) raw pixels 0..255, int32 (B,) targets); mixed, the targets are float32
            (B, columns). With weights, they have a third part, float32 (B,).
        """
        batch = self._train_batch(batch_size)
        steps = self.train_count // batch
        indices = tf.constant(self.train_indices)
        kept = steps if most_steps is None else min(steps, most_steps)

        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(indices, seed=tf.stack([seed, epoch]))
            batches = tf.reshape(order[: steps * batch], [steps, batch])
            numbers = epoch * steps + tf.range(steps, dtype=tf.int64)
            return tf.data.Dataset.from_tensor_slices((batches[:kept], numbers[:kept]))

        read = self._reader()
        image_weights = self.weights
        if class_weights is not None:
            image_weights = class_weights[self.targets] * (1.0 if image_weights is None else image_weights)
        given = None if image_weights is None else tf.constant(image_weights, tf.float32)

        def load(chosen: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            images, targets = read(chosen)
            draws = tf.stack([tf.constant(seed, tf.int64), step])
            if size is not None and size != self.preprocessing.size:
                images = tf.image.resize(images, size, antialias=True)
            if augmentation is not None:
                images = augmentation(images, draws)
            weights = None if given is None else tf.gather(given, chosen)
            if mixing is not None and mixing.active:
                images, targets, weights = _mix(images, targets, weights, mixing, draws, columns or len(self.labels))
            if size is not None:  # one traced training step serves all sizes
                images = tf.raw_ops.PlaceholderWithDefault(input=images, shape=(batch, None, None, images.shape[-1]))
            return (images, targets) if weights is None else (images, targets, weights)

        numbers = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        known = tf.data.experimental.assert_cardinality(kept * epochs)  # flat_map loses the number of batches
        return _parallel(numbers.flat_map(one_epoch), load).apply(known)

    def validation(self, batch_size: int) -> tf.data.Dataset:
        """The held-out images, always in the same order, without augmentation.

        Returns:
            Batches of (float32 (B, H, W, C) raw pixels 0..255, int32 (B,) targets); the last one may be smaller.
        """
        _check_batch(batch_size)
        return _parallel(tf.data.Dataset.from_tensor_slices(self.validation_indices).batch(batch_size), self._reader())

    def validation_arrays(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """The held-out images as in `validation`: uint8 (N, H, W, C) raw pixels, and the targets as in `targets`."""
        targets = self.targets[self.validation_indices]
        if self.pixels is not None:
            return self.pixels[self.validation_indices], targets
        return np.concatenate([images.numpy().astype(np.uint8) for images, _ in self.validation(64)]), targets

    def resplit(self, validation_split: float = 0.2, seed: int = 0) -> ImageData:
        """The training images alone, of which a part is held out: to make choices by, before the held-out images of
        this data set judge what was chosen. Those take no part.

        Args:
            validation_split: Share of each class to hold out, in (0, 1). Of targets that are rows, of all images.
            seed: Random seed for the split.

        Raises:
            InvalidArgumentError: `validation_split` is out of range.
            DataError: A class has fewer than two training images.
        """
        own = self.train_indices
        train, validation = split(self.targets[own], self.labels, validation_split, seed)
        return dataclasses.replace(self, train_indices=own[train], validation_indices=own[validation], originals=None)

    def fingerprint(self) -> dict[str, Any]:
        """A JSON-serializable dict that differs if labels, preprocessing, images or split differ."""
        digest = hashlib.sha256()
        for array in (self.targets, self.train_indices, self.validation_indices):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.weights is not None:
            digest.update(b"weights" + np.ascontiguousarray(self.weights).tobytes())
        by_name = self._is_mapped and self.files and self.pixels is not None and self.pixels.nbytes > MEMORY_LIMIT_BYTES
        if self.pixels is not None and not by_name:
            digest.update(np.ascontiguousarray(self.pixels).data)
        else:  # reading all files again would take as long as an epoch
            digest.update(b"\n".join(map(os.fsencode, self.files)))
        return {
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.to_dict(),
            "train_images": self.train_count,
            "validation_images": self.validation_count,
            "sha256": digest.hexdigest(),
        }

    def _train_batch(self, batch_size: int) -> int:
        _check_batch(batch_size)
        return min(batch_size, self.train_count)

    def _reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """A graph function: int64 (B,) indices -> float32 (B, H, W, C) pixels and int32 (B,) targets."""
        targets = tf.constant(self.targets)
        if self._is_mapped:
            return lambda chosen: (self._from_disk(chosen), tf.gather(targets, chosen))
        if self.pixels is not None:
            pixels = self._pixels_on_host
            return lambda chosen: (tf.cast(tf.gather(pixels, chosen), tf.float32), tf.gather(targets, chosen))
        files = tf.constant([os.fsencode(file) for file in self.files])  # names may not be valid UTF-8

        def read(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.map_fn(
                lambda file: self.preprocessing.decode(tf.io.read_file(file)),
                tf.gather(files, chosen),
                fn_output_signature=tf.TensorSpec(self.image_shape, tf.float32),
            )
            return images, tf.gather(targets, chosen)

        return read

    @property
    def _is_mapped(self) -> bool:
        return isinstance(self.pixels, np.memmap)

    def _from_disk(self, chosen: tf.Tensor) -> tf.Tensor:
        """float32 (B, H, W, C) pixels of a `numpy.memmap`, of which only these are read."""
        images = tf.numpy_function(lambda indices: np.asarray(self.pixels)[indices], [chosen], tf.uint8)
        return tf.cast(tf.ensure_shape(images, (*chosen.shape, *self.image_shape)), tf.float32)

    @functools.cached_property
    def _pixels_on_host(self) -> tf.Tensor:
        # One copy for all pipelines, outside the accelerator's memory, which the model needs.
        with tf.device("CPU:0"):
            return tf.constant(self.pixels)


def _mix(
    images: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None, mixing: Mixing, seed: tf.Tensor, columns: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Mixes images, their targets as rows (B, columns), and their weights."""
    if targets.shape.rank == 1:
        rows = tf.cast(targets, tf.float32)[:, None] if columns == 1 else tf.one_hot(targets, columns)
    else:
        rows = targets
    if weights is None:
        return (*mixing(images, rows, seed), None)
    images, mixed = mixing(images, tf.concat([rows, weights[:, None]], axis=1), seed)
    return images, mixed[:, :-1], mixed[:, -1]


def split(
    targets: NDArray[Any], labels: Sequence[str], validation_split: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Holds out the same share of each class: the sorted indices of the training and of the validation images.

    Targets (N, K) have no classes: of those, a share of all images is held out.
    """
    if not 0 < validation_split < 1:
        raise InvalidArgumentError(
            f"`validation_split` must be in (0, 1). Received: validation_split={validation_split}."
        )
    # RandomState, not default_rng: NumPy guarantees that its stream never changes, and results quote this split.
    random = np.random.RandomState(seed)
    if targets.ndim == 2:
        if len(targets) < 2:
            raise DataError(f"There must be at least two images, one for each part. Received: {len(targets)}.")
        held = min(max(round(len(targets) * validation_split), 1), len(targets) - 1)
        validation = np.sort(random.permutation(len(targets))[:held])
        return np.setdiff1d(np.arange(len(targets)), validation), validation
    if len(labels) < 2:
        raise DataError(f"A classifier needs at least two classes. Received: {len(labels)}, {list(labels)}.")
    if len(targets) and not 0 <= targets.min() <= targets.max() < len(labels):
        raise InvalidArgumentError(
            f"`targets` must be in 0..{len(labels) - 1}. Received: {targets.min()}..{targets.max()}."
        )
    check_counts(targets, labels, 2, "two readable images, one for each part")
    held_out = []
    for label in range(len(labels)):
        members = random.permutation(np.flatnonzero(targets == label))
        held_out.append(members[: min(max(round(len(members) * validation_split), 1), len(members) - 1)])
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(targets)), validation), validation


def divided(
    targets: NDArray[Any], labels: Sequence[str], of_part: NDArray[np.int64], names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the training and of the validation images, of which each image says in which part it is.

    Raises:
        DataError: A class has no image in one of the parts.
    """
    parts = np.flatnonzero(of_part == 0), np.flatnonzero(of_part == 1)
    for name, indices in zip(names, parts, strict=True):
        if not len(indices):
            raise DataError(f"Both parts must have readable images. Received: none in {name}.")
        if targets.ndim == 1:
            check_counts(targets[indices], labels, 1, f"one readable image in {name}")
    if targets.ndim == 1 and len(labels) < 2:
        raise DataError(f"A classifier needs at least two classes. Received: {len(labels)}, {list(labels)}.")
    return parts


def _weights(given: ArrayLike, targets: NDArray[Any], train: NDArray[np.int64]) -> NDArray[np.float32]:
    weights = np.asarray(given)
    rule = f"`weights` must be finite numbers, at least 0, of shape {(len(targets),)}, not all of them 0 in training."
    if weights.dtype.kind not in "biuf" or weights.shape != (len(targets),):
        raise InvalidArgumentError(f"{rule} Received: {weights.dtype} of shape {weights.shape}.")
    weights = weights.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise InvalidArgumentError(f"{rule} Received: {weights[bad[0]]} for image {bad[0]}.")
    if not weights[train].any():
        raise InvalidArgumentError(f"{rule} Received: zeros for all {len(train)} training images.")
    return weights


def _targets(given: NDArray[Any], columns: int) -> NDArray[Any]:
    """int32 (N,), or float32 (N, columns)."""
    if given.ndim == 1 and columns != 1:
        classes = given.astype(np.int32)
        if given.dtype.kind not in "biuf" or not (classes == given).all():
            raise InvalidArgumentError(
                f"`targets` of one dimension must be integers with several labels. Received: {given.dtype} of shape "
                f"{given.shape}."
            )
        return classes
    rows = given[:, None] if given.ndim == 1 else given
    if rows.dtype.kind not in "biuf" or rows.shape[1:] != (columns,) or not np.isfinite(rows).all():
        raise InvalidArgumentError(
            f"`targets` must be integers (N,), or finite numbers (N, {columns}), one column per label. "
            f"Received: {given.dtype} of shape {given.shape}."
        )
    return rows.astype(np.float32)


def check_counts(targets: NDArray[np.int32], labels: Sequence[str], least: int, what: str) -> None:
    """Raises DataError, which names the classes, unless each has at least that many images."""
    counts = np.bincount(targets, minlength=len(labels))
    if counts.min() < least:
        small = ", ".join(f"{label!r} has {n}" for label, n in zip(labels, counts, strict=True) if n < least)
        raise DataError(f"Every class needs at least {what}. Received: {small}.")


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")


def _parallel(indices: tf.data.Dataset, load: Callable[..., Any]) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    loaded = indices.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return loaded.prefetch(tf.data.AUTOTUNE).with_options(options)
