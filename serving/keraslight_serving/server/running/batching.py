"""Joins requests to batches.

A request waits in a queue with others of its kind (same version, signature, outputs, dtypes, and shapes after the rows)
until its batch is full or old enough and one of the `BatchScheduler`'s threads is free.

In TensorFlow Serving requests suffer from others in their batch. Here they don't:

- A batch that fails is run again request by request, so that only the bad one gets the error.
- Requests of different shapes are never joined, so TensorFlow Serving's error for that ("... from different tasks have
  different shapes and padding is turned off ...") does not occur.
- A request whose deadline has passed, or whose caller is gone, leaves the queue on its own; TensorFlow Serving drops it
  only together with its whole batch. Code and text are the same.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.running.batch_queues import BatchScheduler, Piece, QueueKey, Task
from keraslight_serving.server.running.batching_parameters import BatchingParameters
from keraslight_serving.server.running.engines import Engine
from keraslight_serving.server.running.signatures import Arrays, Outputs

_LOOK_SECONDS = 0.1  # between two looks whether the caller of a waiting request is still there


@dataclass(frozen=True)
class Execution:
    """One run of an engine for a batch of requests."""

    engine: str  # its name, `litert` or `tensorflow`
    signature: str
    seconds: float  # that the engine took, including the wait for a free interpreter
    rows: tuple[int, ...]  # of each request in the batch, such as `(1, 4)`
    padding: int = 0  # rows added by batching
    queue_seconds: tuple[float, ...] = ()  # that each request waited to be batched


class Batcher:
    """The queues of one version, run by the scheduler's threads. `observe` is called after each run of an engine."""

    def __init__(
        self,
        scheduler: BatchScheduler,
        parameters: BatchingParameters,
        observe: Callable[[Execution], None] = lambda execution: None,
    ) -> None:
        self._scheduler, self.parameters, self._observe = scheduler, parameters, observe

    def run(self, engine: Engine, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """Runs a signature together with other requests, and waits for the answer.

        Raises INVALID_ARGUMENT if the inputs differ in their rows, or have too many; UNAVAILABLE if the queue is full;
        RESOURCE_EXHAUSTED if the deadline passed in the queue; or what the engine raises for this request alone.
        """
        rows = self.check(inputs)
        padded = self.parameters.pad_variable_length_inputs
        kinds = tuple(sorted((n, a.dtype.str, a.ndim if padded else a.shape[1:]) for n, a in inputs.items()))
        key = QueueKey(self, engine, signature, kinds, tuple(outputs))
        task = Task(inputs, rows, call)
        self._scheduler.submit(key, task)
        while not task.done.wait(_until(call.deadline)):
            if error := _why_drop(call):
                self._scheduler.withdraw(key, task, error)
                # Pieces that are running are waited for: the version must not be unloaded meanwhile.
                task.done.wait()
        if task.error is not None:
            raise task.error
        parts = [answers for _, answers in sorted(task.answers.items())]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def check(self, inputs: Arrays) -> int:
        """Returns the number of rows. Raises INVALID_ARGUMENT if the inputs differ in it, or if it is too large."""
        rows, limit = _rows(inputs), self.parameters.max_batch_size
        if rows > limit:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")
        return rows

    def process(self, key: QueueKey, pieces: Sequence[Piece]) -> None:
        """Runs a batch and gives each request its answer or its error. Called by the scheduler's threads."""
        live = []
        for piece in pieces:
            if error := piece.task.error or _why_drop(piece.task.call):
                piece.finish(error=error)
            else:
                live.append(piece)
        if not live:
            return
        try:
            answers = self._execute(key, live)
        except Exception as error:
            if len(live) == 1:
                live[0].finish(error=error)
            else:
                for piece in live:
                    self.process(key, [piece])
        else:
            for piece, answer in zip(live, answers, strict=True):
                piece.finish(answer)

    def _execute(self, key: QueueKey, pieces: Sequence[Piece]) -> list[Outputs]:
        engine = key.engine
        began = time.monotonic()
        sizes = [piece.stop - piece.start for piece in pieces]
        rows = sum(sizes)
        padding = next((size for size in self.parameters.allowed_batch_sizes if size >= rows), rows) - rows
        sent = {name: [p.task.inputs[name][p.start : p.stop] for p in pieces] for name in pieces[0].task.inputs}
        inputs = {name: _join(parts, padding) for name, parts in sent.items()}
        ran = time.perf_counter()
        answers = engine.run(key.signature, inputs, key.outputs, _common_call(pieces))
        seconds = time.perf_counter() - ran
        waits = tuple(began - piece.task.submitted for piece in pieces)
        for piece in pieces:
            piece.task.call.on_run(engine.name, seconds)
        self._observe(Execution(engine.name, key.signature, seconds, tuple(sizes), padding, waits))
        if any(not array.ndim or len(array) != rows + padding for array in answers.values()):
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors",
            )
        ends = itertools.accumulate(sizes)
        pairs = zip(sizes, ends, strict=True)
        return [{name: array[end - size : end] for name, array in answers.items()} for size, end in pairs]


def _join(parts: list[NDArray[Any]], padding: int) -> NDArray[Any]:
    if len({part.shape[1:] for part in parts}) > 1:
        largest = np.max([part.shape[1:] for part in parts], axis=0)
        parts = [_grown(part, largest) for part in parts]
    if padding:
        # With a row that the model accepts: the first row of the last request.
        parts = [*parts, np.broadcast_to(parts[-1][:1], (padding, *parts[-1].shape[1:]))]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _rows(inputs: Arrays) -> int:
    """Returns the number of rows that all inputs have. All texts but the last are TensorFlow Serving's."""
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


def _until(deadline: float | None) -> float:
    return _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))


def _why_drop(call: Call) -> StatusError | None:
    """Returns why a request should no longer run; None if it should."""
    try:
        call.check()
    except StatusError as error:
        if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return error
        text = "Run() timeout exceeded while waiting in batching queue"
        return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    return None


def _common_call(pieces: Sequence[Piece]) -> Call:
    """Returns a call that is active as long as one of the requests is."""
    calls = [piece.task.call for piece in pieces]
    if len(calls) == 1:
        return calls[0]
    deadlines = [call.deadline for call in calls if call.deadline is not None]
    return Call(
        deadline=max(deadlines) if len(deadlines) == len(calls) else None,
        is_active=lambda: any(call.is_active() for call in calls),
    )


def _grown(array: NDArray[Any], shape: NDArray[np.int_]) -> NDArray[Any]:
    """Pads the dimensions after the rows with the array's first element."""
    widths = [(0, 0), *((0, int(wanted) - size) for wanted, size in zip(shape, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=array.flat[0])
