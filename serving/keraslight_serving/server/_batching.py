"""Joins requests to batches.

A request that comes to a `Batcher` waits in a queue with others of its kind (same version, signature, outputs, dtypes
and shapes behind the rows) until its batch is full or old enough and one of the `BatchScheduler`'s threads is free.

Where TensorFlow Serving lets neighbours suffer, this does not:

- A batch that fails is run again request by request, so that only the bad one gets the error.
- Requests of different shapes never meet, so TensorFlow Serving's error for that ("... from different tasks have
  different shapes and padding is turned off ...") does not occur.
- A request whose deadline has passed, or whose caller is gone, leaves the queue by itself; TensorFlow Serving drops it
  only with all others of its batch. Code and text are the same.
"""

import collections
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from keraslight_serving.server._batching_parameters import BatchingParameters
from keraslight_serving.server._call import Call
from keraslight_serving.server._errors import StatusError, invalid
from keraslight_serving.server._execution import Execution, Observer, ignore

# How often one that waits looks whether its caller is still there, in seconds.
_LOOK_SECONDS = 0.1

Arrays = Mapping[str, np.ndarray]


class Batcher:
    """The queues of one version.

    Args:
        scheduler: whose threads run the batches.
        parameters: of these queues; those of the threads are the scheduler's.
        observe: told of each run of an engine.
    """

    def __init__(self, scheduler: "BatchScheduler", parameters: BatchingParameters, observe: Observer = ignore) -> None:
        self._scheduler = scheduler
        self.parameters = parameters
        self._observe = observe

    def run(
        self, engine: Any, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call
    ) -> dict[str, np.ndarray]:
        """Runs a signature together with other requests; returns when it has the answer.

        Raises:
            StatusError: INVALID_ARGUMENT if the inputs have no common rows, or too many; UNAVAILABLE if the queue is
                full; RESOURCE_EXHAUSTED if the deadline passed in the queue; or what the engine raises for this
                request alone.
        """
        rows = _rows(inputs)
        limit = self.parameters.max_batch_size
        if rows > limit:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")
        padded = self.parameters.pad_variable_length_inputs
        kinds = tuple(sorted((n, a.dtype.str, a.ndim if padded else a.shape[1:]) for n, a in inputs.items()))
        key = (self, engine, signature, kinds, tuple(outputs))
        task = _Task(inputs, rows, call)
        self._scheduler.submit(key, self, task)
        while not task.done.wait(_LOOK_SECONDS if call.deadline is None else _until(call.deadline)):
            error = _why_drop(call)
            if error is not None:
                self._scheduler.withdraw(key, task, error)
                # What runs already is waited for: the version must not be unloaded under it.
                task.done.wait()
        if task.error is not None:
            raise task.error
        parts = [answers for _, answers in sorted(task.answers.items())]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def process(self, key: tuple, pieces: Sequence["_Piece"]) -> None:
        """Runs a batch and gives each request its answer or its error. Called by the scheduler's threads."""
        live = []
        for piece in pieces:
            error = piece.task.error or _why_drop(piece.task.call)
            if error is None:
                live.append(piece)
            else:
                piece.finish(error=error)
        if not live:
            return
        try:
            answers = self._execute(key, live)
        except Exception as error:
            if len(live) == 1:
                live[0].finish(error=error)
                return
            for piece in live:
                self.process(key, [piece])
            return
        for piece, answer in zip(live, answers, strict=True):
            piece.finish(answer)

    def _execute(self, key: tuple, pieces: Sequence["_Piece"]) -> list[dict[str, np.ndarray]]:
        _, engine, signature, _, outputs = key
        began = time.monotonic()
        sizes = [piece.stop - piece.start for piece in pieces]
        rows = sum(sizes)
        padding = next((size for size in self.parameters.allowed_batch_sizes if size >= rows), rows) - rows
        inputs = {
            name: self._join([piece.rows_of(name) for piece in pieces], padding) for name in pieces[0].task.inputs
        }
        ran = time.perf_counter()
        answers = engine.run(signature, inputs, outputs, _common_call(pieces))
        seconds = time.perf_counter() - ran
        waits = tuple(began - piece.task.submitted for piece in pieces)
        for piece in pieces:
            piece.task.call.on_run(engine.name, seconds)
        self._observe(Execution(engine.name, signature, seconds, tuple(sizes), padding, waits))
        if any(not array.ndim or len(array) != rows + padding for array in answers.values()):
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
        ends = list(itertools.accumulate(sizes))
        return [
            {name: array[end - size : end] for name, array in answers.items()}
            for size, end in zip(sizes, ends, strict=True)
        ]

    def _join(self, parts: list[np.ndarray], padding: int) -> np.ndarray:
        if len({part.shape[1:] for part in parts}) > 1:
            largest = np.max([part.shape[1:] for part in parts], axis=0)
            parts = [_grown(part, largest) for part in parts]
        if padding:
            # With a row that the model can take: the first one of the last request.
            parts = [*parts, np.broadcast_to(parts[-1][:1], (padding, *parts[-1].shape[1:]))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class BatchScheduler:
    """Threads that run the batches of all versions, queue by queue in turn.

    Args:
        threads: batches that run at once.
    """

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()  # guards all below, and the pieces of queued tasks
        self._queues: collections.OrderedDict[tuple, collections.deque[_Batch]] = collections.OrderedDict()
        self._closing = False
        self._count = threads
        self._threads: list[threading.Thread] = []  # started with the first task

    def submit(self, key: tuple, batcher: Batcher, task: "_Task") -> None:
        """Puts a task into the open batch of its queue, or into new ones.

        Raises:
            StatusError: UNAVAILABLE, the queue is full.
        """
        parameters = batcher.parameters
        most = parameters.max_execution_batch_size
        with self._changed:
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
                    queue.append(_Batch(batcher, task.submitted + parameters.batch_timeout_micros / 1e6))
                queue[-1].pieces.append(_Piece(task, start, stop, self._changed))
                queue[-1].rows += stop - start
            self._changed.notify(len(starts))

    def withdraw(self, key: tuple, task: "_Task", error: StatusError) -> None:
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


class _Task:
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


class _Piece:
    """Rows `start` to `stop` of a request; all of them, unless large requests are split."""

    def __init__(self, task: _Task, start: int, stop: int, lock: threading.Condition) -> None:
        self.task, self.start, self.stop, self._lock = task, start, stop, lock

    def rows_of(self, name: str) -> np.ndarray:
        return self.task.inputs[name][self.start : self.stop]

    def finish(self, answers: dict[str, np.ndarray] | None = None, error: Exception | None = None) -> None:
        with self._lock:
            if answers is not None:
                self.task.answers[self.start] = answers
            self.task.error = self.task.error or error
            self.task.one_less()


class _Batch:
    def __init__(self, batcher: Batcher, due: float) -> None:
        self.batcher, self.due = batcher, due
        self.pieces: list[_Piece] = []
        self.rows = 0


def _rows(inputs: Arrays) -> int:
    """The number of rows that all inputs have. The texts are TensorFlow Serving's, but for the last, which is ours."""
    if not inputs:
        raise invalid("Batching Run() must have at least one input tensor")
    if any(not array.ndim for array in inputs.values()):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    rows = {len(array) for array in inputs.values()}
    if len(rows) > 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    if rows == {0}:
        raise invalid("Batching Run() input tensors must have at least one row")
    return rows.pop()


def _until(deadline: float) -> float:
    return min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))


def _why_drop(call: Call) -> StatusError | None:
    """Why a request should not run any more; None: it should."""
    try:
        call.check()
    except StatusError as error:
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            text = "Run() timeout exceeded while waiting in batching queue"
            return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return error
    return None


def _common_call(pieces: Sequence[_Piece]) -> Call:
    """A batch is of use as long as one of its requests is."""
    calls = [piece.task.call for piece in pieces]
    if len(calls) == 1:
        return calls[0]
    deadlines = [call.deadline for call in calls]
    return Call(
        deadline=None if None in deadlines else max(deadlines),
        is_active=lambda: any(call.is_active() for call in calls),
    )


def _grown(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Filled up behind the rows with the array's first element."""
    widths = [(0, 0), *((0, int(wanted) - size) for wanted, size in zip(shape, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=array.flat[0])
