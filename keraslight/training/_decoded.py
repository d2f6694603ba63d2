"""Decoding all image files of a data set once: into memory, into a folder on the disk, or only to find broken ones."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import logging
import multiprocessing.pool
import os
import pathlib
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keraslight._image_files import decode, failure
from keraslight.preprocessing import Preprocessing
from keraslight.training._folders import unsupported
from keraslight.training._progress import track

_AT_ONCE = 1024  # images that may wait to be written, if the disk is slower than the decoder
_ABANDONED_SECONDS = 3600  # without a write to an unfinished cache

log = logging.getLogger("keraslight.training")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The readable files of a list.

    Attributes:
        pixels: uint8 (n, H, W, C), in memory or a read-only `numpy.memmap`; None if they weren't kept.
        readable: int64 (n,), the files' indices, ascending.
        sizes: int32 (n, 2), height and width before resizing.
        failed: The indices of the other files.
        reasons: Why each of these can't be read.
    """

    pixels: NDArray[np.uint8] | None
    readable: NDArray[np.int64]
    sizes: NDArray[np.int32]
    failed: NDArray[np.int64]
    reasons: tuple[str, ...]


def decode_in_memory(files: Sequence[str], preprocessing: Preprocessing, limit: int, *, progress: bool) -> Decoded:
    """Decodes files. The pixels are kept if those of all files need at most `limit` bytes."""
    shape = _shape(len(files), preprocessing)
    pixels = np.empty(shape, np.uint8) if np.prod(shape, dtype=np.int64) <= limit else None
    rows = _Rows()
    for image in rows.filled(_decode(files, preprocessing, progress)):
        if pixels is not None:
            pixels[len(rows.readable) - 1] = image
    return rows.decoded(None if pixels is None else pixels[: len(rows.readable)])


def decode_to_disk(
    files: Sequence[str], preprocessing: Preprocessing, folder: pathlib.Path, *, progress: bool
) -> Decoded:
    """Decodes files into a new folder within `folder`, or reads what was decoded there before.

    The new folder's name depends on the files' paths, sizes and times, on the preprocessing, and on the versions of
    the decoders. It gets that name when it is complete.
    """
    key = _key(files, preprocessing)
    place, unfinished = folder / key, folder / f".{os.getpid()}.{key}"
    found = _read(place, preprocessing)
    if found is not None:
        log.info("Reading the decoded images in %s.", place)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    shutil.rmtree(unfinished, ignore_errors=True)  # of an earlier process with this number
    unfinished.mkdir()
    try:
        rows = _Rows()
        with (unfinished / "pixels.bin").open("wb") as stream:
            for image in rows.filled(_decode(files, preprocessing, progress)):
                stream.write(image.data)
            _to_disk(stream)
        with (unfinished / "index.npz").open("wb") as stream:
            np.savez(stream, allow_pickle=False, **rows.arrays())
            _to_disk(stream)
        _rename(unfinished, place, preprocessing)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    written = _read(place, preprocessing)
    if written is None:
        raise OSError(f"The decoded images could not be read back from {place}.")
    return written


class _Rows:
    """Which files could be read, collected while they are decoded."""

    def __init__(self) -> None:
        self.readable: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._failed: list[int] = []
        self._reasons: list[str] = []

    def filled(self, results: Iterator[_Image | str]) -> Iterator[NDArray[np.uint8]]:
        """The images of those that could be read."""
        for index, result in enumerate(results):
            if isinstance(result, str):
                self._failed.append(index)
                self._reasons.append(result)
            else:
                self.readable.append(index)
                self._sizes.append(result.size)
                yield result.pixels

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The fields of `Decoded` without the pixels, as arrays."""
        return {
            "readable": np.asarray(self.readable, np.int64),
            "sizes": np.asarray(self._sizes, np.int32).reshape(-1, 2),
            "failed": np.asarray(self._failed, np.int64),
            "reasons": np.asarray(json.dumps(self._reasons)),
        }

    def decoded(self, pixels: NDArray[np.uint8] | None) -> Decoded:
        """The whole with its pixels."""
        return _decoded(pixels, self.arrays())


@dataclasses.dataclass(frozen=True)
class _Image:
    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def _decoded(pixels: NDArray[np.uint8] | None, arrays: dict[str, NDArray[np.generic]]) -> Decoded:
    rest = {name: arrays[name] for name in ("readable", "sizes", "failed")}
    return Decoded(pixels, **rest, reasons=tuple(json.loads(str(arrays["reasons"]))))  # type: ignore[arg-type] # by name


def _decode(files: Sequence[str], preprocessing: Preprocessing, progress: bool) -> Iterator[_Image | str]:
    """For each file, in order, its image or why it can't be read."""

    def read(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode(content, preprocessing.channels)
        return tf.cast(preprocessing.fit(image), tf.uint8), tf.shape(image)[:2]

    if len(files) > 100:  # compiling it takes as long as decoding a hundred images without
        read = tf.function(read, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)

    def one(file: str) -> _Image | str:
        try:
            pixels, (height, width) = (part.numpy() for part in read(tf.io.read_file(os.fsencode(file))))
        except tf.errors.OpError as error:
            return unsupported(pathlib.Path(file)) or failure(error)
        return _Image(pixels, (int(height), int(width)))

    # Threads, not tf.data, whose `ignore_errors` doesn't tell which images failed; and not concurrent.futures, where
    # Ctrl-C would wait for all images.
    with multiprocessing.pool.ThreadPool() as pool:
        parts = (files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE))
        results = (result for part in parts for result in pool.imap(one, part, chunksize=16))
        yield from track(results, len(files), "Checking images", progress)


def _shape(count: int, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    return (count, *preprocessing.size, preprocessing.channels)


def _key(files: Sequence[str], preprocessing: Preprocessing) -> str:
    """A name that differs wherever the decoded images might."""
    geometry = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
    versions = [importlib.metadata.version(name) for name in ("keraslight", "tensorflow")]
    digest = hashlib.sha256(json.dumps([versions, geometry, preprocessing.channels], sort_keys=True).encode())
    for file in files:
        digest.update(b"\0" + os.fsencode(os.path.abspath(file)))
        with contextlib.suppress(OSError):  # of a file that is gone by now, and will be among the unreadable ones
            status = os.stat(file)
            digest.update(f"\0{status.st_size} {status.st_mtime_ns} {status.st_mode}".encode())
    return digest.hexdigest()


def _read(place: pathlib.Path, preprocessing: Preprocessing) -> Decoded | None:
    """What was decoded before, or None if there is nothing, or nothing complete."""
    if not place.is_dir():
        return None
    try:
        # Opened here, because NumPy leaves damaged files open.
        with (place / "index.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        shape = _shape(len(arrays["readable"]), preprocessing)
        content, size = place / "pixels.bin", int(np.prod(shape, dtype=np.int64))
        if content.stat().st_size != size:
            raise ValueError(f"{content} has {content.stat().st_size} bytes instead of {size}")
        pixels = np.memmap(content, np.uint8, "r", shape=shape) if size else np.empty(shape, np.uint8)
        return _decoded(pixels, arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("Decoding the images again: the ones in %s are damaged: %s.", place, error)
        return None


def _rename(unfinished: pathlib.Path, place: pathlib.Path, preprocessing: Preprocessing) -> None:
    if place.exists() and _read(place, preprocessing) is None:
        shutil.rmtree(place)
    try:
        unfinished.rename(place)
    except OSError:
        if not place.exists():  # otherwise another process was faster
            raise


def _remove_abandoned(folder: pathlib.Path) -> None:
    """Removes what killed processes left unfinished."""
    for pixels in folder.glob(".*/pixels.bin"):
        with contextlib.suppress(OSError):
            if len(pixels.parent.name) > 64 and time.time() - pixels.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(pixels.parent)


def _to_disk(stream: io.BufferedWriter) -> None:
    """Waits until a file is on the disk: after a power cut, its folder might be complete and the file not."""
    stream.flush()
    os.fsync(stream.fileno())
