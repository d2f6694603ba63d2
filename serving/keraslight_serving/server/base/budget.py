"""How much memory the requests in flight may take together."""

import threading

import grpc

from keraslight_serving.server.base.errors import StatusError

# Bytes of a request that are not counted: small requests are served however much the large ones take.
SMALL = 2**16


class Budget:
    """Bytes that large requests of both protocols may have together, as received and decompressed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        return self._held

    def take(self, size: int) -> None:
        """Counts bytes until `give` is called. Raises RESOURCE_EXHAUSTED, and counts none, if they are too many."""
        with self._lock:
            if self._held + size > self.most:
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"The bodies of all requests must have at most {self.most} bytes. Received: more; try again",
                )
            self._held += size

    def give(self, size: int) -> None:
        with self._lock:
            self._held -= size

    def hold(self, size: int) -> "Held":
        """As `take`, until the object is gone."""
        self.take(size)
        return Held(self, size)


class Held:
    """Bytes of a budget that are given back when this object is no longer referred to."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, size

    def __del__(self) -> None:
        self._budget.give(self._size)
