"""Files of annotated images: what detection and segmentation read alike."""

from pathlib import Path

import numpy as np

from keraslight.errors import DataError, InvalidArgumentError


def read_image(file: Path) -> np.ndarray:
    """Reads an image file as uint8 (H, W, 3), rotated according to its EXIF orientation.

    Raises:
        DataError: The file is not an image.
    """
    import tensorflow as tf

    from keraslight._image_files import decode

    try:
        return np.asarray(decode(tf.constant(file.read_bytes()), 3)).astype(np.uint8)
    except (tf.errors.OpError, OSError) as error:
        raise DataError(f"{file} can't be read as an image: {error}") from error


def read_mask(file: Path) -> np.ndarray:
    """Reads a mask, uint8 (H, W): the values of a gray image, or the indices of one with a palette.

    Raises:
        DataError: The file is not an image, or has colors.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "P", "1"):
                raise DataError(f"A mask must be gray or have a palette. Received: {file} of mode {image.mode}.")
            return np.asarray(image).astype(np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{file} can't be read as a mask: {error}") from error


def existing_file(path: str | Path, name: str) -> Path:
    """Returns the path of a file, or raises InvalidArgumentError that names the argument."""
    if not Path(path).is_file():
        raise InvalidArgumentError(f"`{name}` must be a file. Received: {str(path)!r}, which is not a file.")
    return Path(path)


def existing_folder(path: str | Path, name: str) -> Path:
    """Returns the path of a folder, or raises InvalidArgumentError that names the argument."""
    if not Path(path).is_dir():
        raise InvalidArgumentError(f"`{name}` must be a folder. Received: {str(path)!r}, which is not a folder.")
    return Path(path)
