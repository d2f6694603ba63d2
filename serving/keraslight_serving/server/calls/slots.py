"""How many requests are worked on at once."""

import contextlib
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError

LOOK_SECONDS = 0.5  # between two looks whether the caller of a waiting request is still there


@dataclass
class _Queue:
    """Requests with one key."""

    running: int = 0
    waiting: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


class Slots:
    """`count` requests of each key are worked on at once; others wait until their deadline, and expired ones never run.

    At most `waiting` requests wait. Each waits in a thread, so those of one key may only take as many places as they
    leave free: however many requests one model or engine gets, the others have threads.
    """

    def __init__(self, count: int, waiting: int) -> None:
        self._count, self._most_waiting = count, waiting
        self._lock = threading.Lock()  # guards all below, and the numbers of the queues
        self._queues: dict[Hashable, _Queue] = {}
        self._waiting = 0

    @contextlib.contextmanager
    def take(self, key: Hashable, call: Call) -> Iterator[None]:
        """Holds a slot inside the `with`.

        Raises:
            StatusError: RESOURCE_EXHAUSTED, too many are waiting; DEADLINE_EXCEEDED or CANCELLED, meanwhile.
        """
        with self._lock:
            queue = self._queues.setdefault(key, _Queue(changed=threading.Condition(self._lock)))
            if queue.running >= self._count:
                self._wait(queue, call)
            queue.running += 1
        try:
            yield
        finally:
            with self._lock:
                queue.running -= 1
                if queue.waiting:
                    queue.changed.notify()
                elif not queue.running:
                    self._queues.pop(key, None)

    def _wait(self, queue: _Queue, call: Call) -> None:
        if queue.waiting >= self._most_waiting - self._waiting:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Too many requests wait for this model: {queue.waiting}; try again",
            )
        queue.waiting += 1
        self._waiting += 1
        try:
            while queue.running >= self._count:
                seconds = LOOK_SECONDS if call.deadline is None else call.deadline - time.monotonic()
                queue.changed.wait(max(0.0, min(seconds, LOOK_SECONDS)))
                call.check()
        except StatusError:
            queue.changed.notify()  # in case it was this one that was notified
            raise
        finally:
            queue.waiting -= 1
            self._waiting -= 1
