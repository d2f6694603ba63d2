"""Threads that work off a queue together with the thread that fills it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any


class Crew:
    """Does work in the order of its giving, and hands out the results in that order.

    Unlike an executor's, the calling thread does not sleep until the others are done and wake up for each result: it
    takes part. That saves two changes of threads a request.

    Args:
        work: what to do with a thing that is given.
        helpers: threads besides the calling one, at least 0. Started when there is work for them.
    """

    def __init__(self, work: Callable[[Any], Any], helpers: int) -> None:
        self._work, self._helpers = work, helpers
        self._todo: queue.SimpleQueue[tuple[Any, Future] | None] = queue.SimpleQueue()
        self._results: deque[Future] = deque()
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        """Results that were not taken yet."""
        return len(self._results)

    def give(self, thing: Any) -> None:
        """Puts a thing at the end of the queue."""
        result: Future = Future()
        self._results.append(result)
        self._todo.put((thing, result))
        if len(self._threads) < min(self._helpers, len(self._results)):
            thread = threading.Thread(target=self._help, name="keraslight-client", daemon=True)
            self._threads.append(thread)
            thread.start()

    def take(self) -> Any:
        """The result of the oldest thing, or its error. Works on what nobody has begun until it is there."""
        while not self._results[0].done():
            try:
                self._do(*self._todo.get_nowait())
            except queue.Empty:
                break
        return self._results.popleft().result()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drops what nobody has begun, and waits for the rest."""
        try:
            while True:
                self._todo.get_nowait()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _help(self) -> None:
        while (item := self._todo.get()) is not None:
            self._do(*item)

    def _do(self, thing: Any, result: Future) -> None:
        # An interrupt of the calling thread is no result: it ends the whole work at once.
        try:
            result.set_result(self._work(thing))
        except Exception as error:
            result.set_exception(error)
