"""What comes with a request beside its message."""

import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from keraslight_serving.server.base.errors import StatusError


class Call(NamedTuple):
    """Who asks, and until when an answer is of use.

    The default is a call that nobody waits for, such as a warmup record.

    Attributes:
        id: tells this request from others in the log.
        entrypoint: the way in, `GRPC` or `REST`; empty for none.
        deadline: by `time.monotonic()`, in seconds; None: there is none.
        is_active: whether the caller still waits.
        peer: where the caller is, such as `ipv4:10.0.0.7:51234`.
        on_run: told the name of the engine, and the seconds that it took, whenever one has run for this call.
    """

    id: str = ""
    entrypoint: str = ""
    deadline: float | None = None
    is_active: Callable[[], bool] = lambda: True
    peer: str = ""
    on_run: Callable[[str, float], None] = lambda engine, seconds: None

    def check(self) -> None:
        """Raises a StatusError if an answer would reach nobody: so that no work is done for it."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise expired()
        if not self.is_active():
            raise StatusError(grpc.StatusCode.CANCELLED, "The caller is gone")


def expired() -> StatusError:
    """The answer to a call whose deadline has passed."""
    return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")
