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

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.labels import check_labels
from keraslight.preprocessing import Preprocessing
from keraslight.training._augmentation import Augmentation
from keraslight.training._mixing import Mixing


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Labeled images of one size. Created by `load_digits`, `load_directory` or `ImageData.from_arrays`.

    Attributes:
        labels: Class names, indexed by the targets; or names of the columns of targets that are rows.
        preprocessing: How image files are decoded to the model's raw pixels.
        targets: int32 (N,), the class of each image, in 0..len(labels) - 1; or float32 (N, len(labels)), the numbers of
            each image: of a `multi-label` model zeros and ones, of a `regression` what it is to predict.
        train_indices: int64, the images used for training.
        validation_indices: int64, the held-out images; disjoint from `train_indices`.
        pixels: uint8 (N, H, W, C), or None if the images don't fit into memory; they are then decoded from `files`
            each time.
        files: N paths, or empty if the images don't come from files.
        originals: uint8 (validation_count, h, w), the validation images before resizing. Only set by `load_digits`.
        skipped: Number of image files that can't be read: damaged, or of a format that isn't supported.
        ignored: Paths, relative to the folder, of other files and of folders that hold no images; folders end in "/".
    """

    labels: tuple[str, ...]
    preprocessing: Preprocessing
    targets: NDArray[Any]
    train_indices: NDArray[np.int64]
    validation_indices: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None = None
    files: tuple[str, ...] = ()
    originals: NDArray[np.uint8] | None = None
    skipped: int = 0
    ignored: tuple[str, ...] = ()

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

        Raises:
            InvalidArgumentError: The arrays don't fit each other or `preprocessing`.
            DataError: There are fewer than two classes, or a class has fewer than two images.
        """
        pixels, targets = np.asarray(pixels), _targets(np.asarray(targets), len(labels))
        shape = (len(targets), *preprocessing.size, preprocessing.channels)
        if pixels.dtype != np.uint8 or pixels.shape != shape:
            raise InvalidArgumentError(
                f"`pixels` must be uint8 of shape {shape}. Received: {pixels.dtype} of shape {pixels.shape}."
            )
        labels = check_labels(labels)
        train, validation = split(targets, labels, validation_split, seed)
        return cls(tuple(labels), preprocessing, targets, train, validation, pixels)

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
            class_weights: Weight of each class, (classes,), or None.

        Returns:
            Batches of (float32 (B, H, W, C) raw pixels 0..255, int32 (B,) targets); mixed, the targets are float32
            (B, columns). With weights, they have a third part, float32 (B,).
        """
        batch = self._train_batch(batch_size)
        steps = self.train_count // batch
        indices = tf.constant(self.train_indices)

        def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(indices, seed=tf.stack([seed, epoch]))
            batches = tf.reshape(order[: steps * batch], [steps, batch])
            return tf.data.Dataset.from_tensor_slices((batches, epoch * steps + tf.range(steps, dtype=tf.int64)))

        read = self._reader()

        def load(chosen: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
            images, targets = read(chosen)
            draws = tf.stack([tf.constant(seed, tf.int64), step])
            if size is not None and size != self.preprocessing.size:
                images = tf.image.resize(images, size, antialias=True)
            if augmentation is not None:
                images = augmentation(images, draws)
            weights = None if class_weights is None else tf.gather(tf.constant(class_weights), targets)
            if mixing is not None and mixing.active:
                images, targets, weights = _mix(images, targets, weights, mixing, draws, columns or len(self.labels))
            return (images, targets) if weights is None else (images, targets, weights)

        numbers = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        known = tf.data.experimental.assert_cardinality(steps * epochs)  # flat_map loses the number of batches
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

    def fingerprint(self) -> dict[str, Any]:
        """A JSON-serializable dict that differs if labels, preprocessing, images or split differ."""
        digest = hashlib.sha256()
        for array in (self.targets, self.train_indices, self.validation_indices):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.pixels is not None:
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
