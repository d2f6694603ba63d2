"""Loaders of images: scikit-learn's digits, or image files, with labels from folders or a table, or without."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keraslight._image_files import DECODED, failure
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training._data import MEMORY_LIMIT_BYTES, ImageData, divided, split
from keraslight.training._decoded import decode_in_memory, decode_to_disk
from keraslight.training._extras import require
from keraslight.training._folders import find_classes, find_images, unsupported
from keraslight.training._tables import read_table, some

StrPath = str | os.PathLike[str]

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
    # What a PNG of them decodes to, at a tenth of the time: digits read from files later must not look different from
    # those that the model was trained on.
    images = np.repeat(originals[..., None], preprocessing.channels, axis=-1)
    images[..., 3:] = 255  # opaque
    fitted = tf.data.Dataset.from_tensor_slices(images).map(preprocessing.fit).batch(len(images))
    pixels = fitted.get_single_element().numpy().astype(np.uint8)
    labels = [str(digit) for digit in range(10)]
    data = ImageData.from_arrays(
        pixels, digits.target, labels, preprocessing, validation_split=validation_split, seed=seed
    )
    return dataclasses.replace(data, originals=originals[data.validation_indices], source="digits")


def load_directory(
    path: StrPath,
    preprocessing: Preprocessing,
    *,
    validation_split: float | None = None,
    validation: StrPath | Iterable[StrPath] | None = None,
    seed: int = 0,
    cache: StrPath | None = None,
    progress: bool = True,
) -> ImageData:
    """Loads images from one folder per class; the folder names are the labels, in sorted order.

    The class folders may be in a folder train/ (or training/) next to val/ (or valid/, validation/), whose images are
    then those held out; without one of these, test/ (or testing/) is. Images may be in folders within a class folder.

    Images are recognized by their first bytes, whatever their names; `docs/images.md` lists the formats. All are
    decoded once in advance. Images that can't be read are logged and skipped, so that they don't stop the training
    hours later. Other files, hidden ones, and folders such as __MACOSX are logged and ignored. The decoded images stay
    in memory if they need at most 1 GiB; otherwise they are read from `cache`, or decoded in each epoch.

    Args:
        path: Folder with one subfolder per class that contains JPEG, PNG, BMP, WebP or GIF files (first frame), or with
            train/ and val/ that have such subfolders.
        preprocessing: Input of the model.
        validation_split: Share of each class to hold out, in (0, 1); None is 0.2. Only without val/, test/ and
            `validation`.
        validation: Images to hold out: another folder with the same class folders; or those of `path` that are in a
            list, or in a text file with one path per line. Paths in lists are relative to `path`, or absolute. Only
            without val/ and test/.
        seed: Random seed for the split.
        cache: Folder for the decoded images, which is created if necessary. Later calls read them from it, unless a
            file's path, size or time, or how images are resized, is different.
        progress: Whether to show a progress bar if stderr is a terminal.

    Raises:
        DataError: The folder doesn't exist, has fewer than two class folders, a class has fewer than two readable
            images (with images to hold out, fewer than one in each part), the parts have different classes or an image
            in common, or a folder's name can't be a label, for example because it isn't UTF-8.
        InvalidArgumentError: `validation_split` isn't in (0, 1), or is given together with images to hold out;
            `validation` is given for a folder with val/ or test/; or `cache` is where it would be taken for a class.
        MissingDependencyError: `progress` is set and rich isn't installed.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise DataError(f"The data must be a folder with one folder per class. Received: {root}, not a folder.")
    if cache is not None:
        _check_cache(pathlib.Path(cache), root)
    folder, listed = _held_out(root, validation)
    classes = find_classes(root, folder)
    if classes.folders and listed is not None:
        raise InvalidArgumentError(
            f"`validation` is for a folder without images to hold out. Received: a list for {root}, which has "
            f"{' and '.join(classes.folders)}."
        )
    _check_split(
        validation_split, "folder", root, classes.folders or (["a list of them"] if listed is not None else [])
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
    of_part, names = None, classes.folders
    if names:
        of_part = np.asarray(parts, np.int64)
        _check_overlap(files, of_part, names)
        log.info("Holding out the images in %s.", folder or root / names[1])
    elif listed is not None:
        names = ["the training part", "`validation`"]
        of_part = _listed(files, listed, root, {name for name, _ in broken})
    labels = tuple(classes.labels)
    return _load(
        root,
        _Files(files, labels, np.asarray(targets, np.int32), of_part, names, broken, tuple(ignored)),
        preprocessing,
        validation_split=validation_split,
        seed=seed,
        cache=cache,
        progress=progress,
    )


def load_table(
    path: StrPath,
    preprocessing: Preprocessing,
    *,
    file: str | None = None,
    label: str | Sequence[str] | None = None,
    separators: str = ";|,",
    validation_split: float | None = None,
    seed: int = 0,
    cache: StrPath | None = None,
    progress: bool = True,
) -> ImageData:
    """Loads the images that a CSV or Parquet file lists, one per row, with their labels.

    The columns `split` and `weight` are optional. `split` says for each image whether it is for training (`"train"` or
    `"training"`) or held out (`"val"`, `"valid"` or `"validation"`; if there are none, `"test"` or `"testing"`).
    `weight` becomes `ImageData.weights`.

    CSV files are UTF-8 and start with a header. Cells are separated by commas, semicolons or tabs, as in the header.

    Args:
        path: File of the table. A name that ends in `.parquet` is read by pyarrow, any other as CSV.
        preprocessing: Input of the model.
        file: Column of the image files; relative paths start from the table's folder. Default: the first of
            `"file"`, `"filename"`, `"file_name"`, `"path"` and `"image"` that the table has.
        label: Column of one class name per image; or a list of columns with a number per label, zeros and ones of a
            `multi-label` model, any number of a `regression`. `"labels"` and a column of lists may have any number of
            names per image, which become zeros and ones. Default: `"label"` or else `"labels"`; without them, all
            other columns, which must hold zeros and ones.
        separators: Characters that separate the names in `"labels"`.
        validation_split: Share of each class to hold out, in (0, 1); None is 0.2. Only without a column `split`.
        seed: Random seed for the split.
        cache: Folder for the decoded images, as in `load_directory`.
        progress: Whether to show a progress bar if stderr is a terminal.

    Raises:
        DataError: The table can't be read, is empty, or lacks a column; a cell breaks its column's rule; a file
            doesn't exist or is in two rows; or a class has too few readable images, as in `load_directory`.
        InvalidArgumentError: `file` or `label` isn't a column; `validation_split` isn't in (0, 1), or is given for a
            table with a column `split`.
        MissingDependencyError: pyarrow isn't installed and the table is a Parquet file; or `progress` is set and rich
            isn't installed.
    """
    place = pathlib.Path(path)
    table = read_table(place, file=file, label=label, separators=separators)
    names = ["split 'train'", "the split of held-out images"] if table.of_part is not None else []
    _check_split(validation_split, "table", place, ["a column 'split'"] if names else [])
    if table.of_part is not None:
        _check_overlap(table.files, table.of_part, names)
    if table.unused:
        log.info("Left %d test images of %s for `load_test`.", table.unused, place)
    found = _Files(table.files, table.labels, table.targets, table.of_part, names, [], (), table.weights)
    return _load(
        place, found, preprocessing, validation_split=validation_split, seed=seed, cache=cache, progress=progress
    )


def load_test(
    path: StrPath, preprocessing: Preprocessing, *, cache: StrPath | None = None, progress: bool = True
) -> ImageData | None:
    """Loads the test images of a folder or a table: those that neither train a model nor choose its best epoch.

    Args:
        path: Folder with train/, val/ and test/ as `load_directory` reads it, or a table whose column `split` has all
            three. Without a part for validation, the test part takes its place, and there is none left to test on.
        preprocessing: Input of the model.
        cache, progress: As in `load_directory`.

    Returns:
        The images, all of them held out; None without a test part.

    Raises:
        DataError: The test part has other classes, has no readable image, or shares one with the training part.
    """
    place = pathlib.Path(path)
    if not place.is_dir():
        table = read_table(place, file=None, label=None, separators=";|,", test=True)
        found = _Files(table.files, table.labels, table.targets, None, [], [], ())
        if not table.files:
            return None
        what = f"the split 'test' of {place}"
    else:
        if cache is not None:
            _check_cache(pathlib.Path(cache), place)
        classes = find_classes(place, test=True)
        if not classes.folders:
            return None
        parts = [[file for each in part for file in each.files] for part in classes.parts]
        of_part = np.repeat([0, 1], [len(part) for part in parts])
        _check_overlap([*parts[0], *parts[1]], of_part, classes.folders)
        tested = classes.parts[1]
        counts = [len(each.files) for each in tested]
        ignored = [name for each in tested for name in each.ignored]
        broken = [pair for each in tested for pair in each.unsupported]
        targets = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        found = _Files(parts[1], tuple(classes.labels), targets, None, [], broken, tuple(ignored))
        what = str(place / classes.folders[1])
    images = _decoded(place, found, preprocessing, cache=cache, progress=progress).images
    if not len(images.targets):
        raise DataError(f"The test part must have readable images. Received: none in {what}.")
    return dataclasses.replace(images, validation_indices=np.arange(len(images.targets)), source=what)


@dataclasses.dataclass(frozen=True)
class _Files:
    """Image files with what is known about them before they are decoded; `names` are those of the parts."""

    files: list[str]
    labels: tuple[str, ...]
    targets: NDArray[Any]
    of_part: NDArray[np.int64] | None
    names: list[str]
    broken: list[tuple[str, str]]
    ignored: tuple[str, ...]
    weights: NDArray[np.float32] | None = None


def _load(
    source: pathlib.Path,
    found: _Files,
    preprocessing: Preprocessing,
    *,
    validation_split: float | None,
    seed: int,
    cache: StrPath | None,
    progress: bool,
) -> ImageData:
    """Decodes the files and splits them."""

    def parted(kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if found.of_part is not None:
            return divided(found.targets[kept], found.labels, found.of_part[kept], found.names)
        share = 0.2 if validation_split is None else validation_split
        return split(found.targets[kept], found.labels, share, seed)

    parted(np.arange(len(found.files)))  # raises for what decoding all files wouldn't change
    data = _decoded(source, found, preprocessing, cache=cache, progress=progress)
    train, validation = parted(data.kept)
    weights = None if found.weights is None else found.weights[data.kept]
    return dataclasses.replace(data.images, train_indices=train, validation_indices=validation, weights=weights)


class _Decoded(NamedTuple):
    """Images that aren't split yet, and which of the files they are."""

    images: ImageData
    kept: NDArray[np.int64]


def _decoded(
    source: pathlib.Path, found: _Files, preprocessing: Preprocessing, *, cache: StrPath | None, progress: bool
) -> _Decoded:
    """Decodes the files; reports and leaves out what can't be read."""
    if cache is None:
        decoded = decode_in_memory(found.files, preprocessing, MEMORY_LIMIT_BYTES, progress=progress)
    else:
        decoded = decode_to_disk(found.files, preprocessing, pathlib.Path(cache), progress=progress)
    failed = [(found.files[i], reason) for i, reason in zip(decoded.failed, decoded.reasons, strict=True)]
    broken = sorted(found.broken + failed)
    for file, reason in broken:
        log.warning("Skipped %s: %s", file, reason)
    if broken:
        total = len(found.files) + len(found.broken)
        log.warning("Skipped %d of %d images in %s: they can't be read.", len(broken), total, source)
    readable = decoded.readable
    folder = source if source.is_dir() else source.parent
    none = np.empty(0, np.int64)
    images = ImageData(
        found.labels,
        preprocessing,
        found.targets[readable],
        none,
        none,
        decoded.pixels,
        tuple(found.files[index] for index in readable),
        unreadable=tuple((_relative(file, folder), reason) for file, reason in broken),
        ignored=found.ignored,
        sizes=decoded.sizes,
        source=str(source),
    )
    return _Decoded(images, readable)


def _relative(file: str, folder: pathlib.Path) -> str:
    path = pathlib.Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else file


def _check_split(validation_split: float | None, kind: str, source: pathlib.Path, held_out: list[str]) -> None:
    if held_out and validation_split is not None:
        raise InvalidArgumentError(
            f"`validation_split` is for a {kind} without images to hold out. Received: {validation_split} for "
            f"{source}, which has {' and '.join(held_out)}."
        )


def _check_cache(cache: pathlib.Path, root: pathlib.Path) -> None:
    inner, outer = cache.resolve(), root.resolve()
    if inner.is_relative_to(outer) and not any(part.startswith(".") for part in inner.relative_to(outer).parts):
        raise InvalidArgumentError(
            "`cache` must be outside of the folder of images, or hidden, so that it isn't taken for a class. "
            f"Received: {cache} in {root}."
        )


def _held_out(
    root: pathlib.Path, validation: StrPath | Iterable[StrPath] | None
) -> tuple[pathlib.Path | None, list[str] | None]:
    """The folder of images to hold out, or their paths."""
    if validation is None:
        return None, None
    if not isinstance(validation, str | os.PathLike):
        listed = [os.fspath(path) for path in validation]
    else:
        place = pathlib.Path(validation)
        if place.is_dir():
            return place, None
        if not place.is_file():
            raise DataError(
                "`validation` must be a folder with one folder per class, a text file with one path per line, or a "
                f"list of paths. Received: {place}, which doesn't exist."
            )
        lines = place.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
        listed = [line.removesuffix("\r") for line in lines if line.strip()]
    if not listed:
        raise InvalidArgumentError("`validation` must name at least one image. Received: none.")
    return None, [str(root / path) for path in listed]


def _listed(files: list[str], listed: list[str], root: pathlib.Path, broken: set[str]) -> NDArray[np.int64]:
    """The part of each file, of which some are listed as held out; those that can't be read may be as well."""
    by_path = {os.path.realpath(file): index for index, file in enumerate(files)}
    of_part = np.zeros(len(files), np.int64)
    unknown, skipped = [], {os.path.realpath(file) for file in broken}
    for name in listed:
        path = os.path.realpath(name)
        if path in by_path:
            of_part[by_path[path]] = 1
        elif path not in skipped:
            unknown.append(name)
    if unknown:
        raise DataError(
            f"`validation` must list images in the class folders of {root}. Received: {len(unknown)} others: "
            f"{some(unknown)}."
        )
    return of_part


def _check_overlap(files: list[str], of_part: NDArray[np.int64], names: list[str]) -> None:
    """Raises if a file is in both parts, under whatever name."""
    identities: list[set[tuple[int, int]]] = [set(), set()]
    both = []
    for file, part in zip(files, of_part, strict=True):
        status = os.stat(file)
        identity = status.st_dev, status.st_ino
        identities[part].add(identity)
        if identity in identities[1 - part]:
            both.append(file)
    if both:
        raise DataError(
            f"{names[0]} and {names[1]} must not have images in common. Received: {len(both)} in both: {some(both)}."
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
    if limit is not None and limit < 1:
        raise InvalidArgumentError(f"`limit` must be at least 1, or None. Received: {limit}.")
    files = image_files(paths)
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


def image_files(paths: StrPath | Iterable[StrPath]) -> list[pathlib.Path]:
    """The image files that `load_images` reads: files as they are, and those in folders, sorted.

    Raises:
        DataError: A path doesn't exist, a file is not an image of a supported format, or a folder has none.
        InvalidArgumentError: There are no paths.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise InvalidArgumentError("`paths` must name at least one file or folder. Received: none.")
    return [file for path in given for file in _image_files(pathlib.Path(path))]


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
