"""Carries out the steps of blocking calls, of one or of several at the same time, in the calling thread."""

from __future__ import annotations

import itertools
import queue
import time
from collections import deque
from types import TracebackType
from typing import Any

import grpc

from keraslight_serving.client._retry import Ended, Start, Steps, Stop


class _Run:
    """The steps of one call and how far they are."""

    def __init__(self, steps: Steps, alone: bool) -> None:
        self.steps, self.alone = steps, alone
        self.wakes: float | None = None  # when it goes on even if no request ends
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None


class Together:
    """Runs calls and hands out their results in the order in which they were given.

    One thread does with gRPC's futures what would take a thread a call otherwise: with threads that wait for the same
    connection and take turns at the interpreter, 500 images took a fifth longer.
    """

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque()
        self._flying: dict[int, tuple[_Run, Any]] = {}
        self._landed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._tickets = itertools.count()
        self.unfinished = 0  # calls that wait for something

    def __len__(self) -> int:
        """Results that were not taken yet."""
        return len(self._runs)

    def give(self, steps: Steps, *, alone: bool = False) -> None:
        """Starts a call. `alone`: nothing else is to happen meanwhile, so a lone request may block the thread, which
        saves waking it up again."""
        run = _Run(steps, alone)
        self._runs.append(run)
        self.unfinished += 1
        self._advance(run, None)

    def ready(self) -> bool:
        """Whether the oldest call has ended."""
        return self._runs[0].done

    def take(self) -> Any:
        """The result of the oldest call, or its error."""
        while not self._runs[0].done:
            self.wait()
        run = self._runs.popleft()
        if run.error is not None:
            raise run.error
        return run.value

    def wait(self) -> None:
        """Waits until something happens to one of the calls, and goes on with it."""
        alarms = [run.wakes for run in self._runs if run.wakes is not None]
        try:
            ticket = self._landed.get(timeout=max(min(alarms) - time.monotonic(), 0.0) if alarms else None)
        except queue.Empty:
            now = time.monotonic()
            for run in [run for run in self._runs if run.wakes is not None and run.wakes <= now]:
                self._advance(run, None)
            return
        if ticket in self._flying:  # else it was stopped
            run, future = self._flying.pop(ticket)
            self._advance(run, _ended(ticket, future.result))

    def __enter__(self) -> Together:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives up what has not ended."""
        for run in self._runs:
            run.steps.close()
        for _, future in self._flying.values():
            future.cancel()

    def _advance(self, run: _Run, answer: Any) -> None:
        """Sends an answer into the steps, and carries them out until they wait for something."""
        run.wakes = None
        unsent: list[tuple[int, Start]] = []
        try:
            while True:
                step = run.steps.send(answer)
                answer = None
                if isinstance(step, Start):
                    answer = next(self._tickets)
                    unsent.append((answer, step))
                elif isinstance(step, Stop):
                    _, future = self._flying.pop(step.ticket, (None, None))
                    if future is not None:
                        future.cancel()
                elif run.alone and len(unsent) == 1 and step.seconds is None and not self._flying:
                    ticket, start = unsent.pop()
                    answer = _ended(ticket, lambda start=start: _call(start))
                else:
                    for ticket, start in unsent:
                        self._launch(run, ticket, start)
                    run.wakes = None if step.seconds is None else time.monotonic() + step.seconds
                    return
        except StopIteration as end:
            run.value = end.value
        except Exception as error:
            run.error = error
        run.done = True
        self.unfinished -= 1

    def _launch(self, run: _Run, ticket: int, start: Start) -> None:
        future = start.endpoint.call(start.method).future(
            start.request, timeout=start.timeout, metadata=start.metadata, wait_for_ready=start.wait_for_ready
        )
        self._flying[ticket] = (run, future)
        future.add_done_callback(lambda _: self._landed.put(ticket))


def _call(start: Start) -> Any:
    return start.endpoint.call(start.method)(
        start.request, timeout=start.timeout, metadata=start.metadata, wait_for_ready=start.wait_for_ready
    )


def _ended(ticket: int, response: Any) -> Ended:
    try:
        return Ended(ticket, response(), None)
    except grpc.RpcError as error:
        return Ended(ticket, None, error)
