"""Connections: how many there may be, how long they may be idle, and what happens when the process can't open more."""

import asyncio
import logging
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger("keraslight_serving.server")

QUIET_SECONDS = 10.0  # between two lines of the log about connections that can't be accepted


def most_connections() -> int:
    """Half of the files that the process may open: the other half is for gRPC's connections and for models."""
    try:
        import resource
    except ImportError:  # Windows, where there is no such limit
        return 10_000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if soft == resource.RLIM_INFINITY else max(1, min(10_000, soft // 2))


class Connections:
    """The open connections of a server, of which there are at most `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: dict[H11Protocol, float] = {}  # when each began to wait for a request, the longest first
        self.busy: set[H11Protocol] = set()

    def add(self, connection: H11Protocol) -> None:
        """Closes the one that has been idle for longest if there are too many, else the new one."""
        self.open[connection] = time.monotonic()
        if len(self.open) + len(self.busy) > self.most:
            oldest = next(iter(self.open))
            oldest.transport.abort()
            self.remove(oldest)

    def remove(self, connection: H11Protocol) -> None:
        self.open.pop(connection, None)
        self.busy.discard(connection)


def protocol(connections: Connections, idle_seconds: float) -> type[H11Protocol]:
    """Uvicorn's protocol, which closes idle connections only after their first request, with limits from the start."""

    class Limited(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()
            connections.add(self)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._work()
            connections.remove(self)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._work()
                if connections.open.pop(self, None) is not None:
                    connections.busy.add(self)

        def on_response_complete(self) -> None:
            super().on_response_complete()  # which may begin with the next request
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self._wait()
                connections.busy.discard(self)
                connections.open[self] = time.monotonic()

        def _wait(self) -> None:
            """Closes the connection unless the headers of a request are complete in time."""
            self._work()
            self._timer = self.loop.call_later(idle_seconds, self.transport.close)

        def _work(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited


class ErrorsOfTheLoop:
    """Logs what goes wrong in the event loop.

    asyncio tries to accept again and again when the process has too many files open, and reports each failure:
    thousands per second. Of these, one is logged now and then.
    """

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != "socket.accept() out of system resource":
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            logger.error("Can't accept connections to the REST API: %s", context.get("exception"))
