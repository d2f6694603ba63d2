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

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.running.batch_queues import Arrays, BatchScheduler, Piece, Task
from keraslight_serving.server.running.batching_parameters import BatchingParameters

# How often one that waits looks whether its caller is still there, in seconds.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Execution:
    """A run of an engine for a batch of requests.

    Attributes:
        engine: `litert` or `tensorflow`.
        signature: the signature that ran.
        seconds: how long the engine took, with the wait for a free interpreter.
        rows: the rows of each request in it, such as `(1, 4)`.
        padding: the rows that batching added.
        queue_seconds: how long each request waited to be batched.
    """

    engine: str
    signature: str
    seconds: float
    rows: tuple[int, ...]
    padding: int = 0
    queue_seconds: tuple[float, ...] = ()


class Batcher:
    """The queues of one version.

    Args:
        scheduler: whose threads run the batches.
        parameters: of these queues; those of the threads are the scheduler's.
        observe: told of each run of an engine.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        parameters: BatchingParameters,
        observe: Callable[[Execution], None] = lambda execution: None,
    ) -> None:
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
        task = Task(inputs, rows, call)
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

    def process(self, key: tuple, pieces: Sequence[Piece]) -> None:
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

    def _execute(self, key: tuple, pieces: Sequence[Piece]) -> list[dict[str, np.ndarray]]:
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


def _common_call(pieces: Sequence[Piece]) -> Call:
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
