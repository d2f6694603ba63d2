"""Version directories: written atomically, listed, removed."""

import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from keraslight.errors import ExportError, InvalidArgumentError

try:
    import fcntl
except ModuleNotFoundError:  # on Windows, which locks files but not directories
    fcntl = None  # type: ignore[assignment] # mypy checks for Linux

INFO = Path("assets.extra", "keraslight.json")
_WRITING, _REPLACED, _LOCK = ".writing-", ".replaced-", ".lock"  # no server takes these for a number


def list_versions(path: str | Path) -> list[int]:
    """Lists the version numbers in a servable's directory, lowest first; none if there is no directory."""
    children = Path(path).iterdir() if Path(path).is_dir() else ()
    return sorted(int(child.name) for child in children if child.name.isdecimal() and child.is_dir())


@dataclasses.dataclass(frozen=True)
class Version:
    """One version of a servable.

    Attributes:
        number: Version number.
        path: Directory.
        size: Size of all files, in bytes.
        created: Time at which it was written.
        info: Content of `assets.extra/keraslight.json`; empty for a version that was not written by keraslight.
    """

    number: int
    path: Path
    size: int
    created: datetime.datetime
    info: dict[str, Any]


def read_versions(path: str | Path) -> list[Version]:
    """Describes every version of a servable, lowest number first."""
    versions = []
    for number in list_versions(path):
        folder = _folder(Path(path), number)
        info = json.loads((folder / INFO).read_text(encoding="utf-8")) if (folder / INFO).is_file() else {}
        files = [file.stat() for file in folder.rglob("*") if file.is_file()]
        created = datetime.datetime.fromtimestamp(folder.stat().st_mtime).astimezone()
        versions.append(Version(number, folder, sum(file.st_size for file in files), created, info))
    return versions


def _folder(path: Path, number: int) -> Path:
    """A version's directory; servers also accept leading zeros."""
    return next(child for child in path.iterdir() if child.name.isdecimal() and int(child.name) == number)


def remove_version(path: Path, number: int) -> None:
    """Removes a version atomically: it is renamed to a hidden name first, so that no server sees half of it."""
    with _owned(path, _WRITING) as hidden:
        _folder(path, number).rename(hidden / "removed")


@contextlib.contextmanager
def atomic_version(path: Path, number: int, *, overwrite: bool) -> Iterator[Path]:
    """A hidden directory that becomes the version if the block ends without an error, and is removed otherwise.

    A killed process leaves a hidden directory, which the next writer removes. ExportError if the version exists and
    `overwrite` is false, or can't be written.
    """
    final = path / str(number)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked(path):
            _clear(path)
        if final.exists() and not overwrite:
            raise ExportError(
                f"A version is never overwritten unless `overwrite=True`. Received: {final}, which exists."
            )
        with _owned(path, f"{_WRITING}{number}-") as hidden:
            version = hidden / "version"
            version.mkdir(mode=0o755)
            yield version
            for directory, _, files in os.walk(version):
                for name in [*files, "."]:
                    _fsync(Path(directory, name))
            with locked(path):
                # A rename can't replace a directory that isn't empty. The old one gets a hidden name first, so that a
                # reader sees the old version, none, or the new one, but never a mixture.
                old = path / f"{_REPLACED}{number}"
                if final.exists() and overwrite:
                    final.rename(old)
                version.rename(final)
                _fsync(path)
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"The version {final} can't be written: {error}.") from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits until no other process is in a block for the same directory. A process that dies releases it."""
    with _lock(directory, wait=True):
        yield


@contextlib.contextmanager
def _lock(directory: Path, *, wait: bool) -> Iterator[None]:
    """Holds a directory's lock. OSError if another process holds it and `wait` is false."""
    if fcntl is None:
        with filelock.FileLock(directory / _LOCK).acquire(blocking=wait):  # filelock.Timeout is an OSError
            yield
        return
    with _opened(directory) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _owned(path: Path, prefix: str) -> Iterator[Path]:
    """A hidden directory that is locked while this process needs it, and removed at the end."""
    with contextlib.ExitStack() as stack:
        with locked(path):  # else `_clear` could find it before it is locked
            hidden = Path(tempfile.mkdtemp(prefix=prefix, dir=path))
            stack.callback(shutil.rmtree, hidden, ignore_errors=True)
            stack.enter_context(locked(hidden))
        hidden.chmod(0o755)  # mkdtemp gives 0700; a server often runs as another user
        yield hidden


def _clear(path: Path) -> None:
    """Removes what killed processes left, and restores a version that one was about to replace."""
    for old in path.glob(f"{_REPLACED}*"):
        final = path / old.name.removeprefix(_REPLACED)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(final)
    for left in path.glob(f"{_WRITING}*"):
        with contextlib.suppress(OSError):
            with _lock(left, wait=False):  # else its process is alive
                pass
            shutil.rmtree(left)


def _fsync(path: Path) -> None:
    if os.name == "posix":  # elsewhere directories can't be opened, and files only for writing
        with _opened(path) as descriptor:
            os.fsync(descriptor)


def check_number(number: int) -> int:
    """Returns a version number if it is in 1..2**63 - 1, the range that servers can read."""
    if not 1 <= number < 2**63:
        raise InvalidArgumentError(f"`version` must be at least 1 and less than 2**63. Received: version={number}.")
    return number
