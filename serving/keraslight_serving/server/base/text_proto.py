"""Configuration files in protobuf's text format, as TensorFlow Serving has them."""

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from keraslight_serving.server.base.errors import StartError

M = TypeVar("M", bound=Message)


def read_text_proto(flag: str, path: str | os.PathLike, message: M) -> M:
    """Fills a message from a file.

    Args:
        flag: that gave the path, for the error's text.

    Raises:
        StartError: the file can't be read, or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"`{flag}` must be a readable text file. Received: {path}, {error}") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise StartError(
            f"Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'\n"
            f"Error parsing text-format tensorflow.serving.{message.DESCRIPTOR.name}: {error}"
        ) from error
