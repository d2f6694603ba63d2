"""The queues of batches, and the threads that empty them."""

import collections
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.running.batching_parameters import BatchingParameters
from keraslight_serving.server.running.engines import Engine
from keraslight_serving.server.running.signatures import Arrays, Outputs


class BatchRunner(Protocol):
    """What queues batches and runs them: `batching.Batcher`."""

    parameters: BatchingParameters

    def process(self, key: "QueueKey", pieces: "Sequence[Piece]") -> None:
        """Runs a batch and finishes each of its pieces. Called by the scheduler's threads; must not raise."""


class QueueKey(NamedTuple):
    """What requests have in common that may run together."""

    runner: BatchRunner  # runs their batches
    engine: Engine
    signature: str
    kinds: tuple[tuple[str, str, int | tuple[int, ...]], ...]  # name, dtype and shape of each input
    outputs: tuple[str, ...]  # aliases


class BatchScheduler:
    """Threads that run the batches of all versions, taking the queues in turn, `threads` batches at once."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()  # guards all below, and the pieces of queued tasks
        self._queues: collections.OrderedDict[QueueKey, collections.deque[Batch]] = collections.OrderedDict()
        self._closing = False
        self._count = threads
        self._threads: list[threading.Thread] = []  # started with the first task

    def submit(self, key: QueueKey, task: "Task") -> None:
        """Adds a request to the open batch of its queue, or to new batches; UNAVAILABLE if there is no room for it."""
        parameters = key.runner.parameters
        most = parameters.max_execution_batch_size
        with self._changed:
            if self._closing:  # its threads may be gone
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The batch scheduler is closed")
            queue = self._queues.get(key) or collections.deque()
            room = most - queue[-1].rows if queue else 0
            first = min(room, task.rows) if parameters.enable_large_batch_splitting or task.rows <= room else 0
            more = -(-(task.rows - first) // most)
            if more and len(queue) + more > parameters.max_enqueued_batches:
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(queue)} batches enqueued and max_enqueued_batches is {parameters.max_enqueued_batches}",
                )
            while len(self._threads) < self._count:
                self._threads.append(
                    threading.Thread(target=self._work, name=f"batch {len(self._threads)}", daemon=True)
                )
                self._threads[-1].start()
            self._queues.setdefault(key, queue)
            starts = ([0] if first else []) + list(range(first, task.rows, most))
            task.pending = len(starts)
            for start, stop in zip(starts, [*starts[1:], task.rows], strict=True):
                if start or not first:
                    queue.append(Batch(task.submitted + parameters.batch_timeout_micros / 1e6))
                queue[-1].pieces.append(Piece(task, start, stop, self._changed))
                queue[-1].rows += stop - start
            self._changed.notify(len(starts))

    def withdraw(self, key: QueueKey, task: "Task", error: StatusError) -> None:
        """Removes the pieces of a request that are still queued."""
        with self._changed:
            task.error = task.error or error
            for batch in self._queues.get(key, ()):
                for piece in [piece for piece in batch.pieces if piece.task is task]:
                    batch.pieces.remove(piece)
                    batch.rows -= piece.stop - piece.start
                    task.one_less()
            self._drop_empty(key)

    def close(self) -> None:
        """Ends the threads once the queues are empty."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while True:
                    found, seconds = self._next()
                    if found is not None:
                        break
                    if self._closing and not self._queues:
                        return
                    self._changed.wait(seconds)
                # Another thread may be waiting until this batch is due, and now has to wait for the next one.
                self._changed.notify()
            key, batch = found
            key.runner.process(key, batch.pieces)

    def _next(self) -> "tuple[tuple[QueueKey, Batch] | None, float | None]":
        """Takes a batch that may run; if there is none, returns the seconds until there may be one."""
        now = time.monotonic()
        for key, queue in self._queues.items():
            full = len(queue) > 1 or queue[0].rows >= key.runner.parameters.max_execution_batch_size
            if full or self._closing or now >= queue[0].due:
                batch = queue.popleft()
                self._queues.move_to_end(key)
                self._drop_empty(key)
                return (key, batch), None
        return None, min(queue[0].due for queue in self._queues.values()) - now if self._queues else None

    def _drop_empty(self, key: QueueKey) -> None:
        """Removes a queue without requests: keys depend on what callers send, so they must not accumulate."""
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
        self.answers: dict[int, Outputs] = {}
        self.error: Exception | None = None

    def one_less(self) -> None:
        self.pending -= 1
        if not self.pending:
            self.done.set()


class Piece:
    """Rows `start` to `stop` of a request; all rows, unless large requests are split."""

    def __init__(self, task: Task, start: int, stop: int, lock: threading.Condition) -> None:
        self.task, self.start, self.stop, self._lock = task, start, stop, lock

    def finish(self, answers: Outputs | None = None, error: Exception | None = None) -> None:
        with self._lock:
            if answers is not None:
                self.task.answers[self.start] = answers
            self.task.error = self.task.error or error
            self.task.one_less()


class Batch:
    """Pieces that run together. `due`: time of `time.monotonic()` from which they don't wait for more."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.pieces: list[Piece] = []
        self.rows = 0
