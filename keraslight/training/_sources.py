"""Loaders of images: scikit-learn's digits, or image files with or without labels."""

import dataclasses
import logging
import multiprocessing.pool
import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training._data import ImageData, split
from keraslight.training._extras import require
from keraslight.training._progress import track

StrPath = str | os.PathLike[str]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")
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
    path: StrPath, preprocessing: Preprocessing, *, validation_split: float = 0.2, seed: int = 0, progress: bool = True
) -> ImageData:
    """Loads images from one folder per class; the folder names are the labels, in sorted order.

    All images are decoded once in advance. Unreadable ones are logged and skipped, so that they don't stop the
    training hours later. The decoded images stay in memory if they need at most 1 GiB; otherwise they are decoded in
    each epoch. Hidden files, other file types and folders within a class folder are ignored.

    Args:
        path: Folder with one subfolder per class that contains JPEG, PNG, BMP, WebP or GIF files (first frame).
        preprocessing: Input of the model.
        validation_split: Share of each class to hold out, in (0, 1).
        seed: Random seed for the split.
        progress: Whether to show a progress bar if stderr is a terminal.

    Raises:
        DataError: The folder doesn't exist, has fewer than two class folders, or a class has fewer than two readable
            images.
        InvalidArgumentError: `validation_split` isn't in (0, 1).
        MissingDependencyError: `progress` is set and rich isn't installed.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise DataError(f"The data must be a folder with one folder per class. Received: {root}, not a folder.")
    labels = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(labels) < 2:
        raise DataError(
            f"The data must be a folder with at least two class folders. Received: {root} with {len(labels)}, {labels}."
        )
    files, targets = [], []
    for target, label in enumerate(labels):
        members = sorted(str(file) for file in (root / label).iterdir() if _is_image(file, root / label))
        files += members
        targets += [target] * len(members)

    pixels, readable = _decode_all(files, preprocessing, progress)
    skipped = len(files) - len(readable)
    if skipped:
        log.warning("Skipped %d of %d images in %s: they can't be read.", skipped, len(files), root)
        if pixels is not None:
            pixels = pixels[readable]
    kept = np.asarray(targets, np.int32)[readable]
    train, validation = split(kept, labels, validation_split, seed)
    names = tuple(files[index] for index in readable)
    return ImageData(tuple(labels), preprocessing, kept, train, validation, pixels, names, skipped=skipped)


def load_images(
    paths: StrPath | Iterable[StrPath], preprocessing: Preprocessing, *, limit: int | None = None
) -> NDArray[np.uint8]:
    """Loads images without labels, for example to calibrate int8 quantization.

    Args:
        paths: One or several JPEG, PNG, BMP, WebP or GIF files or folders. Folders are searched recursively, except
            for hidden files and folders.
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
            raise DataError(f"An image file must be readable. Received: {file}: {_reason(error)}") from error
    return np.stack(images)


def _image_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, whatever its name, or the sorted image files in a folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"Images must be in files or folders that exist. Received: {path}.")
    files = sorted(file for file in path.rglob("*") if _is_image(file, path))
    if not files:
        raise DataError(f"A folder of images must hold at least one {', '.join(SUFFIXES)} file. Received: {path}.")
    return files


def _is_image(file: pathlib.Path, folder: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()


def _decode_all(
    files: list[str], preprocessing: Preprocessing, progress: bool
) -> tuple[NDArray[np.uint8] | None, NDArray[np.int64]]:
    """Decodes all files: uint8 (len(files), H, W, C), or None if too large, and the indices of the readable ones."""
    shape = (len(files), *preprocessing.size, preprocessing.channels)
    pixels = np.empty(shape, np.uint8) if np.prod(shape, dtype=np.int64) <= MEMORY_LIMIT_BYTES else None

    def decode(index: int) -> str | None:
        """Decodes one image; returns the reason for a failure."""
        try:
            image = preprocessing.decode(tf.io.read_file(os.fsencode(files[index])))
        except tf.errors.OpError as error:
            return _reason(error)
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


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without node names."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", error.message).strip()
