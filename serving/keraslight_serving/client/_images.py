"""Images of all kinds -> what is sent to the model: encoded files, which its graph decodes, or arrays of pixels."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from keraslight_serving.client._pixels import decoded
from keraslight_serving.client.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any]
    Images = ImageLike | Iterable[ImageLike]

_KINDS = "a path, the bytes of an image file, a file object, a PIL image or a numpy array"

# The first bytes of the formats that servables decode, as in keraslight: JPEG, PNG, GIF and BMP; for WebP,
# see `_is_decoded`. Checking them is free; the server has the final say.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")
_SUFFIXES = frozenset({
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".psd", ".ico", ".dds", ".exr", ".svg", ".tga"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".pcx", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
})  # fmt: skip
_NOT_DATA = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"})

log = logging.getLogger("keraslight_serving.client")


class Prepared(NamedTuple):
    """An image that is ready to be sent, or the reason why it can't be."""

    source: str  # its path, or `images[3]`
    data: bytes | NDArray[np.uint8]  # a file, or pixels (H, W) or (H, W, C); empty if there is an error
    error: InvalidInput | None = None


def prepare(images: Images) -> Iterator[Prepared]:
    """The images in order, each read when it is needed. Raises InvalidInput if `images` is not an image or iterable."""
    for index, item in enumerate(_files(_each(images))):
        source = which = f"images[{index}]"
        try:
            if isinstance(item, bytes):  # first, as there may be thousands
                yield Prepared(source, _checked(item, which))
                continue
            if isinstance(item, str | os.PathLike):
                source = str(os.fspath(item))
                which += f" ({source!r})"
            yield Prepared(source, _data(item, which))
        except InvalidInput as error:
            yield Prepared(source, b"", error)


def to_file(data: bytes | NDArray[np.uint8]) -> bytes:
    """Returns files unchanged, and pixels as PNG, which is lossless."""
    if isinstance(data, bytes):
        return data
    from keraslight_serving.client import _arrays

    return _png(_arrays.to_image(data))


def _each(images: Any) -> Iterator[Any]:
    is_one = isinstance(images, bytes | str | os.PathLike | bytearray | memoryview | Image.Image)
    is_one = is_one or hasattr(images, "read") or (hasattr(images, "__array__") and getattr(images, "ndim", 4) != 4)
    try:
        return iter((images,) if is_one else images)
    except TypeError:
        text = f"Images must be {_KINDS}, or an iterable of these. Received: {type(images).__name__}"
        raise InvalidInput(text) from None


def _files(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        is_path = not isinstance(item, bytes) and isinstance(item, str | os.PathLike)  # `bytes` first: it is faster
        if is_path and "\0" not in os.fspath(item) and os.path.isdir(item):
            yield from _in_folder(Path(item))
        else:
            yield item


def _in_folder(folder: Path) -> list[Path]:
    """The images in a folder and in those within it, sorted; also those that can't be decoded, which raise later."""
    images: list[Path] = []
    ignored: list[str] = []
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        skipped = {name for name in folders if name.startswith(".") or name.lower() in _NOT_DATA}
        folders[:] = [name for name in folders if name not in skipped]
        ignored += [f"{here / name}/" for name in skipped]
        for name in files:
            if not name.startswith(".") and _may_be_image(here / name):
                images.append(here / name)
            else:
                ignored.append(str(here / name))
    if ignored:
        names = ", ".join(sorted(ignored))
        log.warning("Ignored %d files and folders in %s that are no images: %s.", len(ignored), folder, names)
    return sorted(images)


def _may_be_image(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return _is_decoded(file.read(16))
    except OSError:
        return False


def _is_decoded(data: bytes) -> bool:
    return data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _data(item: Any, which: str) -> bytes | NDArray[np.uint8]:
    if isinstance(item, Image.Image):
        return _from_pil(item, which)
    if isinstance(item, str | os.PathLike):
        try:
            with open(item, "rb") as file:
                data = file.read()
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{which} must be a file that can be read. Received: {reason}") from error
        return _checked(data, which)
    if hasattr(item, "read"):
        return _checked(item.read(), which)
    if isinstance(item, bytearray | memoryview):
        return _checked(bytes(item), which)
    if hasattr(item, "__array__"):
        return _pixels(item, which)
    raise InvalidInput(f"{which} must be {_KINDS}. Received: {item!r:.80}")


def _checked(data: Any, which: str) -> bytes:
    if not isinstance(data, bytes):
        raise InvalidInput(f"{which} must give bytes (open files with 'rb'). Received: {type(data).__name__}")
    if not _is_decoded(data):
        start = f"{len(data)} bytes that start with {data[:8]!r}" if data else "no bytes"
        raise InvalidInput(f"{which} must be a JPEG, PNG, GIF, BMP or WebP file. Received: {start}")
    return data


def _pixels(array: Any, which: str) -> NDArray[np.uint8]:
    from keraslight_serving.client import _arrays  # arrays exist only where numpy is installed

    return _arrays.pixels(array, which)


def _from_pil(image: Image.Image, which: str) -> bytes | NDArray[np.uint8]:
    if image.mode in ("I", "F"):  # 32 bits: converting would clip
        return _pixels(image, which)
    try:  # PIL reads opened files only now
        return _png(decoded(image))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{which} must be an image that can be read. Received: {error}") from error


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # three times faster than the default, a tenth larger
    return buffer.getvalue()
