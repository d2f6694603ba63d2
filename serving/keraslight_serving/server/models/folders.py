"""What lies in a model's base path."""

import contextlib
import logging
import os
import re
from pathlib import Path

logger = logging.getLogger("keraslight_serving.server")


def find_versions(base_path: Path) -> dict[int, Path]:
    """The folder of each version, by number."""
    found: dict[int, Path] = {}
    for folder in sorted(base_path.iterdir()):
        if not re.fullmatch("[0-9]+", folder.name) or int(folder.name) >= 2**63 or not folder.is_dir():
            continue
        number = int(folder.name)
        if number in found:
            logger.warning("Two folders of version %d: %s is used, not %s", number, folder, found[number])
        found[number] = folder
    return found


def files_of(folder: Path) -> frozenset:
    """Names, sizes and times of all files, to see whether anything changed."""
    found = set()
    # Not rglob, which fails where a folder was just moved away.
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                found.add((path, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
