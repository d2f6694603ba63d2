"""Reads and runs .tflite files, with one set of errors for missing, foreign and truncated files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keraslight_serving.startup import quiet

from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a .tflite file.

    Raises:
        InvalidArgumentError: The file does not exist or is not readable.
        ExportError: It isn't a .tflite file.
    """
    return _checked(path).read_bytes()


def _checked(path: str | os.PathLike[str]) -> Path:
    """A path whose file begins as a .tflite file does; LiteRT maps the rest, which may be large, itself."""
    path = Path(path)
    if not path.is_file():
        raise InvalidArgumentError(f"`path` must be a .tflite file. Received: {str(path)!r}, which is not a file.")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InvalidArgumentError(f"`path` must be a readable file. Received: {str(path)!r}: {error}.") from error
    if head[4:] != b"TFL3":
        raise ExportError(f"A LiteRT file must have the identifier TFL3. Received: {path}.")
    return path


def interpreter(path: str | os.PathLike[str], num_threads: int) -> Any:
    """LiteRT's interpreter of a file, with XNNPACK and with memory for its tensors.

    Raises:
        InvalidArgumentError: The file does not exist or is not readable, or `num_threads` is below 1.
        ExportError: It isn't a .tflite file, is cut off, or LiteRT can't run it.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    return _interpreter(lambda: {"model_path": str(_checked(path))}, str(path), num_threads)


def content_interpreter(content: bytes, name: str, num_threads: int) -> Any:
    """As `interpreter`, of a file that is only in memory; `name` is its name in errors."""
    return _interpreter(lambda: {"model_content": content}, name, num_threads)


def _interpreter(model: Callable[[], dict[str, Any]], name: str, num_threads: int) -> Any:
    if num_threads < 1:
        raise InvalidArgumentError(f"`num_threads` must be at least 1. Received: {num_threads}.")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError(
            f"Running a .tflite file needs ai-edge-litert: pip install 'keraslight[export]'. Received: {error}."
        ) from error
    try:
        made = Interpreter(**model(), num_threads=num_threads)
        with quiet("litert"):
            made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise ExportError(f"LiteRT must be able to run the file. Received: {name}; it said: {error}") from error
    return made
