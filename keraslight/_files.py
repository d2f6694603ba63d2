"""Files that are whole or not there: written under another name and renamed."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from keraslight.errors import InvalidArgumentError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to. If the block ends without an error, that file replaces `path` in one step.

    The path is in the same folder, hidden, and has the suffix of `path`, which Keras, NumPy and matplotlib look at.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        _to_disk(temporary)  # or after a power cut the new name may stand for an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_file(path: Path, content: bytes | str, verify: Callable[[Path], None] | None = None) -> Path:
    """Writes a file in one step, text as UTF-8, and returns its path; its folder is made if necessary.

    `verify` is called with the complete file before it replaces `path`. What it raises prevents that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if verify is not None:
            verify(temporary)
    return path


def check_pattern(path: Path, argument: str) -> None:
    """TensorFlow matches the path of a SavedModel's variables as a pattern, in which `[ab]` is a single letter."""
    if re.search(r"\[.+\]|\\", path.absolute().as_posix()):
        raise InvalidArgumentError(
            f"`{argument}` must hold neither brackets nor backslashes, which TensorFlow takes for a pattern. "
            f"Received: {str(path.absolute())!r}."
        )
