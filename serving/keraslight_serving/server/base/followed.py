"""Files that operators replace while the server runs: certificates and tokens."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from keraslight_serving.server.base.errors import StartError

T = TypeVar("T")

LOOK_SECONDS = 1.0  # between two looks whether a file has changed

logger = logging.getLogger("keraslight_serving.server")


class Followed(Generic[T]):
    """What a file says, which `read` returns, now and whenever the file has changed.

    A file that can't be used when it changes is logged, and what it said before stays. `read` raises StartError then,
    as it does here for the first content. Threads may share an object.
    """

    def __init__(self, path: str | os.PathLike[str], read: Callable[[], T]) -> None:
        self._path, self._read = Path(path), read
        self._state = self._look()
        self._value = read()
        self._looking = threading.Lock()
        self._look_at = time.monotonic() + LOOK_SECONDS

    @property
    def value(self) -> T:
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + LOOK_SECONDS
                state = self._look()
                if state != self._state:
                    self._state = state
                    self._value = self._read()
                    logger.info("Read %s again", self._path)
            except StartError as error:
                logger.error("Can't use %s any more, keeping what it said before: %s", self._path, error)
            finally:
                self._looking.release()
        return self._value

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino
