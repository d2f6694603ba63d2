"""Configuration files in protobuf's text format, as used by TensorFlow Serving."""

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from keraslight_serving.server.base.errors import StartError

M = TypeVar("M", bound=Message)


def read_text_proto(flag: str, path: str | os.PathLike[str], message: M) -> M:
    """Fills an empty message from the file that a flag names, and returns it. Raises StartError if that fails."""
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"`{flag}` must be a readable text file. Received: {path}, {error}") from error
    except text_format.ParseError as error:
        raise StartError(
            f"Error: INVALID_ARGUMENT: Invalid protobuf file: '{path}'\n"
            f"Error parsing text-format tensorflow.serving.{message.DESCRIPTOR.name}: {error}"
        ) from error
