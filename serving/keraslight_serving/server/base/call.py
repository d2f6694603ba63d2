"""What comes with a request in addition to its message."""

import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from keraslight_serving.server.base.errors import StatusError


class Call(NamedTuple):
    """Who sent a request, and how long they wait. The default is a call that nobody waits for, such as a warmup."""

    id: str = ""  # identifies the request in the log
    entrypoint: str = ""  # protocol, `GRPC` or `REST`; empty for none
    deadline: float | None = None  # in seconds, by `time.monotonic()`
    is_active: Callable[[], bool] = lambda: True  # whether the caller still waits
    peer: str = ""  # address of the caller, such as `ipv4:10.0.0.7:51234`
    on_run: Callable[[str, float], None] = lambda engine, seconds: None  # called after each run of an engine

    def check(self) -> None:
        """Raises a StatusError if a response would reach nobody, so that no work is wasted on it."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise expired()
        if not self.is_active():
            raise StatusError(grpc.StatusCode.CANCELLED, "The caller is gone")


def expired() -> StatusError:
    """The error of a call whose deadline has passed."""
    return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")
