"""Configuration files in protobuf's text format, as used by TensorFlow Serving."""

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from keraslight_serving.server.base.errors import StartError

M = TypeVar("M", bound=Message)


def read_text_proto(flag: str, path: str | os.PathLike[str], message: M) -> M:
    """Fills a message from a file, and returns it.

    Args:
        flag: Name of the flag that gave the path, for the error text.
        path: File to read.
        message: Empty message of the file's type.

    Raises:
        StartError: The file can't be read or parsed.
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
