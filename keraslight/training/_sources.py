"""Loaders of images: scikit-learn's digits, or image files with or without labels."""

import dataclasses
import logging
import multiprocessing.pool
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keraslight._image_files import DECODED, failure
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training._data import ImageData, check_counts, split
from keraslight.training._extras import require
from keraslight.training._folders import find_classes, find_images, unsupported
from keraslight.training._progress import track

StrPath = str | os.PathLike[str]
MEMORY_LIMIT_BYTES = 1 << 30  # for decoded images; if they need more, they are decoded in each epoch

log = logging.getLogger("keraslight.training")


def load_digits(preprocessing: Preprocessing, *, validation_split: float = 0.2, seed: int = 0) -> ImageData:
    """Loads scikit-learn's 1,797 scans of handwritten digits (8x8), white on black, with the labels "0" to "9".

    Args:
        preprocessing: Input of the model. `DIGITS_PREPROCESSING` suits these images.
        validation_split: Share of each class to hold out, in (0, 1).
        seed: Random seed for the split. Published accuracies refer to the default split.

    Returns:
        The images as uint8 in the size of `preprocessing`; `originals` are the held-out ones as uint8 (n, 8, 8).

    Raises:
        MissingDependencyError: scikit-learn isn't installed.
        InvalidArgumentError: `validation_split` isn't in (0, 1).
    """
    digits = require("sklearn.datasets", "scikit-learn").load_digits()
    originals = ((digits.images * 255 + 8) // 16).astype(np.uint8)  # 0..16 -> 0..255, rounded
    # Encoded as PNG and decoded, although the pixels are available: digits read from files later can't look different
    # from those that the model was trained on.
    files = tf.data.Dataset.from_tensor_slices(originals[..., None]).map(tf.io.encode_png)
    decoded = files.map(preprocessing.decode, num_parallel_calls=tf.data.AUTOTUNE).batch(len(originals))
    pixels = decoded.get_single_element().numpy().astype(np.uint8)
    labels = [str(digit) for digit in range(10)]
    data = ImageData.from_arrays(
        pixels, digits.target, labels, preprocessing, validation_split=validation_split, seed=seed
    )
    return dataclasses.replace(data, originals=originals[data.validation_indices])


def load_directory(
    path: StrPath,
    preprocessing: Preprocessing,
    *,
    validation_split: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ImageData:
    """Loads images from one folder per class; the folder names are the labels, in sorted order.

    The class folders may be in a folder train/ (or training/) next to val/ (or valid/, validation/), whose images are
    then those held out; without one of these, test/ (or testing/) is. Images may be in folders within a class folder.

    Images are recognized by their first bytes, whatever their names; `docs/images.md` lists the formats. All are
    decoded once in advance. Images that can't be read are logged and skipped, so that they don't stop the training
    hours later. Other files, hidden ones, and folders such as __MACOSX are logged and ignored. The decoded images stay
    in memory if they need at most 1 GiB; otherwise they are decoded in each epoch.

    Args:
        path: Folder with one subfolder per class that contains JPEG, PNG, BMP, WebP or GIF files (first frame), or with
            train/ and val/ that have such subfolders.
        preprocessing: Input of the model.
        validation_split: Share of each class to hold out, in (0, 1); None is 0.2. Only without val/ or test/.
        seed: Random seed for the split.
        progress: Whether to show a progress bar if stderr is a terminal.

    Raises:
        DataError: The folder doesn't exist, has fewer than two class folders, a class has fewer than two readable
            images (with val/, fewer than one in each part), the parts have different classes, or a folder's name can't
            be a label, for example because it isn't UTF-8.
        InvalidArgumentError: `validation_split` isn't in (0, 1), or is given for a folder with val/ or test/.
        MissingDependencyError: `progress` is set and rich isn't installed.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise DataError(f"The data must be a folder with one folder per class. Received: {root}, not a folder.")
    classes = find_classes(root)
    if classes.names and validation_split is not None:
        raise InvalidArgumentError(
            f"`validation_split` is for a folder without images to hold out. Received: {validation_split} for {root}, "
            f"which has {' and '.join(f'{name}/' for name in classes.names)}."
        )
    files, targets, parts, ignored, broken = [], [], [], list(classes.ignored), []
    for part, members in enumerate(classes.parts):
        for target, found in enumerate(members):
            files += found.files
            targets += [target] * len(found.files)
            parts += [part] * len(found.files)
            ignored += found.ignored
            broken += found.unsupported
    _report_ignored(root, ignored)
    for file, reason in broken:
        log.warning("Skipped %s: %s", file, reason)

    pixels, readable = _decode_all(files, preprocessing, progress)
    skipped, total = len(files) - len(readable) + len(broken), len(files) + len(broken)
    if skipped:
        log.warning("Skipped %d of %d images in %s: they can't be read.", skipped, total, root)
        if pixels is not None:
            pixels = pixels[readable]
    kept, of_part = np.asarray(targets, np.int32)[readable], np.asarray(parts, np.int64)[readable]
    if classes.names:
        train, validation = np.flatnonzero(of_part == 0), np.flatnonzero(of_part == 1)
        for name, indices in zip(classes.names, (train, validation), strict=True):
            check_counts(kept[indices], classes.labels, 1, f"one readable image in {name}/")
        log.info("Holding out the images in %s.", root / classes.names[1])
    else:
        train, validation = split(kept, classes.labels, 0.2 if validation_split is None else validation_split, seed)
    names = tuple(files[index] for index in readable)
    labels = tuple(classes.labels)
    return ImageData(
        labels, preprocessing, kept, train, validation, pixels, names, skipped=skipped, ignored=tuple(ignored)
    )


def _report_ignored(root: pathlib.Path, ignored: list[str]) -> None:
    if ignored:
        count = f"{len(ignored)} {'entry' if len(ignored) == 1 else 'entries'}"
        log.warning("Ignored %s of %s that are no images of a class: %s.", count, root, ", ".join(ignored))


def load_images(
    paths: StrPath | Iterable[StrPath], preprocessing: Preprocessing, *, limit: int | None = None
) -> NDArray[np.uint8]:
    """Loads images without labels, for example to calibrate int8 quantization.

    Args:
        paths: One or several JPEG, PNG, BMP, WebP or GIF files or folders. Folders are searched recursively, except
            for hidden files and folders. What they hold besides images, and images of other formats, is logged.
        preprocessing: Input of the model.
        limit: Largest number of images to read, at least 1, spread evenly over the sorted files; None for all.

    Returns:
        uint8 (N, H, W, C), in the size of `preprocessing` and not normalized.

    Raises:
        DataError: A path doesn't exist, a folder has no image files, or a file can't be decoded.
        InvalidArgumentError: `limit` is below 1, or there are no paths.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise InvalidArgumentError("`paths` must name at least one file or folder. Received: none.")
    if limit is not None and limit < 1:
        raise InvalidArgumentError(f"`limit` must be at least 1, or None. Received: {limit}.")
    files = [file for path in paths for file in _image_files(pathlib.Path(path))]
    if limit is not None and len(files) > limit:
        # Not the first ones: if each class has a folder, these would all belong to one class.
        files = [files[index * len(files) // limit] for index in range(limit)]
    images = []
    for file in files:
        try:
            images.append(preprocessing.decode(tf.io.read_file(os.fsencode(file))).numpy().astype(np.uint8))
        except tf.errors.OpError as error:
            raise DataError(f"An image file must be readable. Received: {file}: {failure(error)}") from error
    return np.stack(images)


def _image_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, whatever its name, or the sorted image files in a folder."""
    if path.is_file():
        if reason := unsupported(path):
            raise DataError(f"An image file must be readable. Received: {path}: {reason}")
        return [path]
    if not path.is_dir():
        raise DataError(f"Images must be in files or folders that exist. Received: {path}.")
    found = find_images(path, path)
    _report_ignored(path, found.ignored)
    for file, reason in found.unsupported:
        log.warning("Skipped %s: %s", file, reason)
    if not found.files:
        kinds = ", ".join(f".{name.lower()}" for name in ("jpg", *DECODED))
        raise DataError(f"A folder of images must hold at least one {kinds} file. Received: {path}.")
    return [pathlib.Path(file) for file in found.files]


def _decode_all(
    files: list[str], preprocessing: Preprocessing, progress: bool
) -> tuple[NDArray[np.uint8] | None, NDArray[np.int64]]:
    """Decodes all files: uint8 (len(files), H, W, C), or None if too large, and the indices of the readable ones."""
    shape = (len(files), *preprocessing.size, preprocessing.channels)
    pixels = np.empty(shape, np.uint8) if np.prod(shape, dtype=np.int64) <= MEMORY_LIMIT_BYTES else None

    read = preprocessing.decode
    if len(files) > 100:  # compiling it takes as long as decoding a hundred images without
        read = tf.function(read, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)

    def decode(index: int) -> str | None:
        """Decodes one image; returns the reason for a failure."""
        try:
            image = read(tf.io.read_file(os.fsencode(files[index])))
        except tf.errors.OpError as error:
            return failure(error)
        if pixels is not None:
            pixels[index] = image.numpy()
        return None

    readable = []
    # Threads, not tf.data, whose `ignore_errors` doesn't tell which images failed; and not concurrent.futures, where
    # Ctrl-C would wait for all images.
    with multiprocessing.pool.ThreadPool() as pool:
        reasons = pool.imap(decode, range(len(files)), chunksize=16)
        for index, reason in enumerate(track(reasons, len(files), "Checking images", progress)):
            if reason is None:
                readable.append(index)
            else:
                log.warning("Skipped %s: %s", files[index], reason)
    return pixels, np.asarray(readable, np.int64)
