"""Reads what is in a model's base path."""

import contextlib
import logging
import os
import re
from pathlib import Path

logger = logging.getLogger("keraslight_serving.server")

# Path, size in bytes, and time of the last change in nanoseconds, for each file and folder.
Files = frozenset[tuple[str, int, int]]


def find_versions(base_path: Path) -> dict[int, Path]:
    """The version folders of a base path, by number: those named with a whole number below 2**63.

    The names may have leading zeros. Of several folders with the same number, the last by name is used.
    """
    found: dict[int, Path] = {}
    for folder in sorted(base_path.iterdir()):
        if not re.fullmatch("[0-9]+", folder.name) or int(folder.name) >= 2**63 or not folder.is_dir():
            continue
        number = int(folder.name)
        if number in found:
            logger.warning("Two folders of version %d: using %s, not %s", number, folder, found[number])
        found[number] = folder
    return found


def files_of(folder: Path) -> Files:
    """Names, sizes and times of all files and folders in a folder, to detect changes."""
    found = set()
    # Not rglob, which fails if a folder disappears meanwhile.
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                found.add((path, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
