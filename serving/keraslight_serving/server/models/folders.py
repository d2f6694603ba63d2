"""Reads what is in a model's base path."""

import contextlib
import logging
import os
import re
from pathlib import Path

logger = logging.getLogger("keraslight_serving.server")

# For each file and folder in a folder: that folder, its path there, size in bytes, and time of the last change in
# nanoseconds.
Files = frozenset[tuple[str, str, int, int]]


def find_versions(base_path: Path) -> dict[int, Path]:
    """The version folders of a base path, by number: those named with a whole number below 2**63.

    The names may have leading zeros. Of several folders with the same number, the last by name is used.
    """
    found: dict[int, Path] = {}
    for folder in sorted(base_path.iterdir()):
        if not re.fullmatch("[0-9]{1,1000}", folder.name) or int(folder.name) >= 2**63:
            continue
        try:
            if not folder.is_dir():
                continue
        except OSError as error:  # of this one: it must not hide the others
            logger.warning("Can't look into %s, leaving it out: %s", folder, error)
            continue
        number = int(folder.name)
        if number in found:
            logger.warning("Two folders of version %d: using %s, not %s", number, folder, found[number])
        found[number] = folder
    return found


def names_in(files: Files) -> frozenset[str]:
    """The names of files and folders, relative to their version's folder."""
    return frozenset(name for _, name, _, _ in files)


def files_of(folder: Path) -> Files:
    """Names, sizes and times of all files and folders in a folder, to detect changes."""
    found = set()
    # Not rglob, which fails if a folder disappears meanwhile.
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                found.add((os.fspath(folder), os.path.relpath(path, folder), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
