"""Images of all kinds -> what goes to the model: encoded files as its graph decodes them, or arrays of pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from keraslight_serving.client.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    ImageLike = str | os.PathLike | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray

_KINDS = "a path, the bytes of an image file, a file object, a PIL image or a numpy array"

# How the files start that a TensorFlow graph decodes. A look at these costs nothing; the server has the last word.
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",  # BMP
    b"\xff\x0a",  # JPEG XL, bare
    b"\x00\x00\x00\x0cJXL ",  # JPEG XL in a container
)
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".webp")

_ONE = (bytes, str, os.PathLike, bytearray, memoryview, Image.Image)

# PIL modes that PNG keeps as they are. Others become RGB or RGBA.
_PNG_MODES = {"1", "L", "RGB", "RGBA", "I;16"}


class Prepared(NamedTuple):
    """An image that is ready to be sent, or why it can't be.

    Attributes:
        source: what to call it: its path, or `images[3]`.
        data: the file's bytes, or an array (H, W) or (H, W, C) of uint8.
        error: why there is no `data`.
    """

    source: str
    data: bytes | np.ndarray | None
    error: InvalidInput | None = None


def prepare(images: ImageLike | Iterable[ImageLike]) -> Iterator[Prepared]:
    """The images in order, read when their turn comes. A directory stands for the image files in it, sorted by path.

    Raises:
        InvalidInput: `images` is neither an image nor an iterable.
    """
    for index, item in enumerate(_files(_each(images))):
        source = which = f"images[{index}]"
        try:
            if isinstance(item, bytes):  # first, since it is asked of each of thousands of images
                yield Prepared(source, _checked(item, which))
                continue
            if isinstance(item, str | os.PathLike):
                source = str(os.fspath(item))
                which += f" ({source!r})"
            yield Prepared(source, _data(item, which))
        except InvalidInput as error:
            yield Prepared(source, None, error)


def to_file(data: bytes | np.ndarray) -> bytes:
    """A file as it is; pixels as PNG, which loses nothing."""
    if isinstance(data, bytes):
        return data
    from keraslight_serving.client import _arrays

    return _png(_arrays.to_image(data))


def _each(images: Any) -> Iterator[Any]:
    if _is_one(images):
        return iter((images,))
    if hasattr(images, "__array__"):
        return iter(images) if getattr(images, "ndim", 4) == 4 else iter((images,))
    try:
        return iter(images)
    except TypeError:
        raise InvalidInput(
            f"Images must be {_KINDS}, or an iterable of these. Received: {type(images).__name__}"
        ) from None


def _files(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if _is_directory(item):
            yield from sorted(p for p in Path(item).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        else:
            yield item


def _is_directory(item: Any) -> bool:
    if isinstance(item, bytes) or not isinstance(item, str | os.PathLike):
        return False
    return "\0" not in os.fspath(item) and os.path.isdir(item)


def _is_one(item: Any) -> bool:
    return isinstance(item, _ONE) or hasattr(item, "read")


def _data(item: Any, which: str) -> bytes | np.ndarray:
    if isinstance(item, Image.Image):
        return _from_pil(item, which)
    if isinstance(item, str | os.PathLike):
        try:
            with open(item, "rb") as file:
                return _checked(file.read(), which)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            if isinstance(error, InvalidInput):
                raise
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{which} must be a file that can be read. Received: {reason}") from error
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
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not is_webp and not data.startswith(_SIGNATURES):
        start = f"{len(data)} bytes that start with {data[:8]!r}" if data else "no bytes"
        raise InvalidInput(f"{which} must be a JPEG, PNG, GIF, BMP, WebP or JPEG XL file. Received: {start}")
    return data


def _pixels(array: Any, which: str) -> np.ndarray:
    from keraslight_serving.client import _arrays  # whoever has an array has numpy

    return _arrays.pixels(array, which)


def _from_pil(image: Image.Image, which: str) -> bytes | np.ndarray:
    if image.mode in ("I", "F"):  # 32 bits: converting would clip
        return _pixels(image, which)
    try:  # an image that was opened from a file is read here
        if image.mode not in _PNG_MODES:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        return _png(image)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{which} must be an image that can be read. Received: {error}") from error


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # three times quicker than the default, a tenth larger
    return buffer.getvalue()
