"""Calls that are open but never send their message: grpc has no deadline for them, and each takes a thread."""

import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import grpc

T = TypeVar("T")

LOOK_SECONDS = 0.25  # between two looks at the calls that wait


class Arrivals:
    """Waits for messages, but cancels the calls whose message takes more than so many seconds (None: no limit)."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._waiting: dict[grpc.ServicerContext, float] = {}  # until when; changed by single operations only
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._look, name="arrivals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def first(self, messages: Iterator[T], context: grpc.ServicerContext, most: float | None = None) -> T:
        """Returns the message of a unary call, which is registered as one that sends a stream.

        Otherwise it would be unknown until its message has arrived. `most`: a lower limit for this call.
        """
        limits = [seconds for seconds in (self._seconds, most) if seconds is not None]
        if limits:
            self._waiting[context] = time.monotonic() + min(limits)
        try:
            for message in messages:
                return message
        finally:
            self._waiting.pop(context, None)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "The call requires exactly one request message.")

    def _look(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            now = time.monotonic()
            for context, until in list(self._waiting.items()):
                if now > until:
                    context.cancel()
