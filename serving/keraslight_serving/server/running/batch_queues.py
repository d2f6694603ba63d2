"""The queues of batches, and the threads that empty them."""

import collections
import threading
import time
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError

Arrays = Mapping[str, np.ndarray]


class BatchScheduler:
    """Threads that run the batches of all versions, queue by queue in turn.

    Args:
        threads: batches that run at once.
    """

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()  # guards all below, and the pieces of queued tasks
        self._queues: collections.OrderedDict[tuple, collections.deque[Batch]] = collections.OrderedDict()
        self._closing = False
        self._count = threads
        self._threads: list[threading.Thread] = []  # started with the first task

    def submit(self, key: tuple, batcher: Any, task: "Task") -> None:
        """Puts a task into the open batch of its queue, or into new ones.

        Args:
            key: of the queue.
            batcher: has the `parameters` of the queue, and `process(key, pieces)`, which runs a batch.
            task: a request.

        Raises:
            StatusError: UNAVAILABLE, the queue is full or the scheduler closed.
        """
        parameters = batcher.parameters
        most = parameters.max_execution_batch_size
        with self._changed:
            if self._closing:  # its threads may be gone
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The batch scheduler is closed")
            queue = self._queues.get(key, ())
            room = most - queue[-1].rows if queue else 0
            if parameters.enable_large_batch_splitting:
                first = min(room, task.rows)
            else:
                first = task.rows if task.rows <= room else 0
            more = -(-(task.rows - first) // most)
            if more and len(queue) + more > parameters.max_enqueued_batches:
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(queue)} batches enqueued and max_enqueued_batches is {parameters.max_enqueued_batches}",
                )
            self._start()
            queue = self._queues.setdefault(key, collections.deque())
            starts = ([0] if first else []) + list(range(first, task.rows, most))
            task.pending = len(starts)
            for start, stop in zip(starts, [*starts[1:], task.rows], strict=True):
                if start or not first:
                    queue.append(Batch(batcher, task.submitted + parameters.batch_timeout_micros / 1e6))
                queue[-1].pieces.append(Piece(task, start, stop, self._changed))
                queue[-1].rows += stop - start
            self._changed.notify(len(starts))

    def withdraw(self, key: tuple, task: "Task", error: StatusError) -> None:
        """Takes what still waits of a task out of its queue."""
        with self._changed:
            task.error = task.error or error
            for batch in self._queues.get(key, ()):
                for piece in [piece for piece in batch.pieces if piece.task is task]:
                    batch.pieces.remove(piece)
                    batch.rows -= piece.stop - piece.start
                    task.one_less()
            self._drop_empty(key)

    def close(self) -> None:
        """Ends the threads when the queues are empty."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        """Starts the threads, unless that is done."""
        while len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=f"batch {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while True:
                    key, batch, seconds = self._next()
                    if batch is not None:
                        break
                    if self._closing and not self._queues:
                        return
                    self._changed.wait(seconds)
                # Whoever waits may do so for this batch, and has to look for the next one to wait for.
                self._changed.notify()
            batch.batcher.process(key, batch.pieces)

    def _next(self) -> tuple:
        """(key, batch, None) of a batch to be run, else (None, None, seconds until there may be one)."""
        soonest, now = None, time.monotonic()
        for key, queue in self._queues.items():
            full = len(queue) > 1 or queue[0].rows >= queue[0].batcher.parameters.max_execution_batch_size
            if full or self._closing or now >= queue[0].due:
                batch = queue.popleft()
                self._queues.move_to_end(key)
                self._drop_empty(key)
                return key, batch, None
            soonest = queue[0].due if soonest is None else min(soonest, queue[0].due)
        return None, None, None if soonest is None else soonest - now

    def _drop_empty(self, key: tuple) -> None:
        """Forgets a queue without requests: their keys come from the callers, so they must not pile up."""
        queue = self._queues.get(key)
        if queue is None:
            return
        for batch in [batch for batch in queue if not batch.pieces]:
            queue.remove(batch)
        if not queue:
            del self._queues[key]


class Task:
    """A request. `done` is set once each of its pieces has its answer or an error."""

    def __init__(self, inputs: Arrays, rows: int, call: Call) -> None:
        self.inputs, self.rows, self.call = inputs, rows, call
        self.submitted = time.monotonic()
        self.done = threading.Event()
        self.pending = 0
        self.answers: dict[int, dict[str, np.ndarray]] = {}
        self.error: Exception | None = None

    def one_less(self) -> None:
        self.pending -= 1
        if not self.pending:
            self.done.set()


class Piece:
    """Rows `start` to `stop` of a request; all of them, unless large requests are split."""

    def __init__(self, task: Task, start: int, stop: int, lock: threading.Condition) -> None:
        self.task, self.start, self.stop, self._lock = task, start, stop, lock

    def rows_of(self, name: str) -> np.ndarray:
        return self.task.inputs[name][self.start : self.stop]

    def finish(self, answers: dict[str, np.ndarray] | None = None, error: Exception | None = None) -> None:
        with self._lock:
            if answers is not None:
                self.task.answers[self.start] = answers
            self.task.error = self.task.error or error
            self.task.one_less()


class Batch:
    """Pieces that run together, `due` (by `time.monotonic()`) at the latest if a thread is free."""

    def __init__(self, batcher: Any, due: float) -> None:
        self.batcher, self.due = batcher, due
        self.pieces: list[Piece] = []
        self.rows = 0
