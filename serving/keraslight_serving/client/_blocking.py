"""Carries out the steps of blocking calls, of one or of several at the same time, in the calling thread.

With gRPC's futures, one thread is enough. With one per call, competing for the GIL, 500 images took a fifth longer.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Generic, cast

import grpc

from keraslight_serving.client._retry import Attempt, Ended, Steps, T
from keraslight_serving.client._transport import Pending


class _Run(Generic[T]):
    """One call: its steps, its attempts in flight, and when it resumes even if none of them ends.

    `alone`: nothing else is to happen at the same time, so a lone attempt may block the thread.
    """

    def __init__(self, steps: Steps[T], events: Events[T], alone: bool) -> None:
        self._steps, self._events, self._alone = steps, events, alone
        self._flying: dict[Attempt, Pending] = {}
        self._value: T | None = None
        self._error: Exception | None = None
        self.wakes: float | None = None
        self.done = False

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def landed(self, attempt: Attempt) -> None:
        """Resumes after an attempt, unless it has been cancelled."""
        if attempt in self._flying:
            self.resume(_ended(attempt, self._flying.pop(attempt).result))

    def resume(self, ended: Ended | None) -> None:
        """Sends what ended into the steps, and starts the attempts that they wait for next."""
        self.wakes = None
        try:
            while True:
                attempts, seconds = self._steps.send(ended)
                if self._flying:
                    self._cancel_all_but(attempts)
                if not self._alone or self._flying or seconds is not None:
                    break
                (attempt,) = attempts  # blocking saves waking the thread up
                ended = _ended(attempt, partial(attempt.send, attempt.endpoint.call(attempt.method)))
            for attempt in attempts:
                if attempt not in self._flying:
                    self._start(attempt)
            self.wakes = None if seconds is None else time.monotonic() + seconds
            return
        except StopIteration as end:
            self._value = end.value
        except Exception as error:
            self._error = error
        self.done = True
        self.close()

    def close(self) -> None:
        """Gives up what has not ended."""
        self._steps.close()
        self._cancel_all_but(())

    def _start(self, attempt: Attempt) -> None:
        future: Pending = attempt.send(attempt.endpoint.call(attempt.method).future)
        self._flying[attempt] = future
        future.add_done_callback(lambda _: self._events.put((self, attempt)))

    def _cancel_all_but(self, attempts: Sequence[Attempt]) -> None:
        for attempt in [attempt for attempt in self._flying if attempt not in attempts]:
            self._flying.pop(attempt).cancel()


Events = queue.SimpleQueue[tuple[_Run[T], Attempt]]


def run(steps: Steps[T]) -> T:
    """Carries out one call."""
    events: Events[T] = queue.SimpleQueue()
    run = _Run(steps, events, alone=True)
    try:
        run.resume(None)
        while not run.done:
            _wait((run,), events)
        return run.result()
    finally:
        run.close()


def run_in_order(calls: Iterable[Steps[T]], window: int) -> Generator[T, None, None]:
    """Carries out calls, up to `window` at a time, and yields their results in the order of the calls."""
    events: Events[T] = queue.SimpleQueue()
    runs: deque[_Run[T]] = deque()  # whose results have not been yielded yet
    try:
        for steps in calls:
            while sum(not run.done for run in runs) >= window:
                _wait(runs, events)
            runs.append(_Run(steps, events, alone=False))
            runs[-1].resume(None)
            while runs and runs[0].done:
                yield runs.popleft().result()
        while runs:
            while not runs[0].done:
                _wait(runs, events)
            yield runs.popleft().result()
    finally:
        for run in runs:
            run.close()


def _wait(runs: Iterable[_Run[T]], events: Events[T]) -> None:
    """Resumes the first of the unfinished calls whose attempt or pause ends."""
    alarms = [run.wakes for run in runs if run.wakes is not None]
    try:
        run, attempt = events.get(timeout=max(min(alarms) - time.monotonic(), 0.0) if alarms else None)
    except queue.Empty:
        now = time.monotonic()
        for run in [run for run in runs if run.wakes is not None and run.wakes <= now]:
            run.resume(None)
    else:
        run.landed(attempt)


def _ended(attempt: Attempt, response: Callable[[], Any]) -> Ended:
    try:
        return Ended(attempt, response(), None)
    except grpc.RpcError as error:
        return Ended(attempt, None, error)
