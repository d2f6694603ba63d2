"""How long a model takes on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keraslight._timing import interleaved
from keraslight.analysis import _engines
from keraslight.errors import InvalidArgumentError

_WARMUP = 5  # untimed calls: the first compiles, the next few still fill caches


class Latency(NamedTuple):
    """How long an engine takes from an array of images to an array of answers.

    Attributes:
        engine: "keras", "saved_model" or "litert".
        threads: Of LiteRT; None where TensorFlow's process-wide pools decide.
        batch: Images a call.
        p50, p90, p99: Percentiles of the calls' wall clock time in milliseconds.
    """

    engine: str
    threads: int | None
    batch: int
    p50: float
    p90: float
    p99: float


def latency(
    model: keras.Model,
    engines: Sequence[str] = _engines.ENGINES,
    threads: Sequence[int] = (1, 2),
    batch: int = 1,
    repeats: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Latency]:
    """Times a model on this machine, by engine.

    Each engine is called a few times untimed. Then, round by round, each is called once, in an order that is drawn
    anew for every round, so that a machine that slows down slows all of them. A call follows another engine's, so its
    caches are as cold as in a process that does other work too; an engine alone is a little faster.

    A time is that of the whole call. None of the engines tells Python what its single layers take: LiteRT's profiler
    is in its C++ interface and its `benchmark_model` program only (ai-edge-litert 2.3), TensorFlow fuses layers before
    it runs them. `profile` has the layers' multiply-adds and bytes.

    Args:
        model: A model with one input (B, ...) of a fixed size and one output.
        engines: Which to time: "keras" (`predict_on_batch`, on any backend), "saved_model" (as Keras exports it, run by
            TensorFlow), "litert" (a float32 file).
        threads: Each at least 1: LiteRT is timed with each of these numbers. TensorFlow's pools are fixed when a
            process first uses it, so the other engines run with what `tf.config.threading` was set to, by default one
            thread a core.
        batch: Images a call, at least 1, drawn from a standard normal distribution.
        repeats: Timed calls of each engine, at least 1. The 99th percentile means something from 100 on.
        seed: Of the images and the order.
        progress: Called with the number of finished rounds and `repeats`.

    Returns:
        A record an engine, and of LiteRT one for each of `threads`, in the order asked for.

    Raises:
        InvalidArgumentError: an unknown engine, a number out of its range, an open size, several inputs or outputs, or
            an engine that needs TensorFlow on another backend.
        MissingDependencyError: LiteRT is not installed.
    """
    _check(model, engines, threads, batch, repeats)
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, *model.inputs[0].shape[1:])).astype(model.inputs[0].dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runners: dict[tuple[str, int | None], Callable] = {}
        for engine in engines:
            match engine:
                case "keras":
                    runners[engine, None] = _engines.keras_runner(model, images)
                case "saved_model":
                    runners[engine, None] = _engines.saved_model_runner(model, images, folder)
                case "litert":
                    file = _engines.litert_file(model, batch, folder)
                    for count in threads:
                        runners[engine, count] = _engines.litert_runner(file, images, count)
        times = interleaved(runners, repeats, rng, warmup=_WARMUP, progress=progress)
    return [_record(*key, batch, times[key]) for key in runners]


def file_latency(
    files: Mapping[str, str | os.PathLike], *, threads: int = 1, repeats: int = 50, seed: int = 0
) -> dict[str, Latency]:
    """Times LiteRT files on this machine, turn by turn as `latency` times engines; for a model before and after.

    Args:
        files: Name -> .tflite file with one input. Batch, image size and dtype are the file's own; pixels are drawn.
        threads: Of LiteRT's interpreter, at least 1.
        repeats: Timed calls of each file, at least 1.
        seed: Of the pixels and the order.

    Returns:
        Name -> record, in the order of `files`.

    Raises:
        InvalidArgumentError: no file is given, or a number is below 1.
        MissingDependencyError: LiteRT is not installed.
    """
    if not files or threads < 1 or repeats < 1:
        raise InvalidArgumentError(
            "`files` must hold a file, `threads` and `repeats` must be at least 1. "
            f"Received: {len(files)} files, threads={threads}, repeats={repeats}."
        )
    rng = np.random.default_rng(seed)
    runners = {name: _engines.litert_file_runner(Path(file), rng, threads) for name, file in files.items()}
    batches = {name: len(run()) for name, run in runners.items()}
    times = interleaved(runners, repeats, rng, warmup=_WARMUP)
    return {name: _record("litert", threads, batches[name], times[name]) for name in files}


def memory_bandwidth(megabytes: int = 64, repeats: int = 10) -> float:
    """Bytes a second that one thread moves when it copies a large array, read and write counted: the best of a few.

    Args:
        megabytes: Size of the array, at least 1; well above the processor's caches.
        repeats: Copies, at least 1.

    Raises:
        InvalidArgumentError: a number is below 1.
    """
    if megabytes < 1 or repeats < 1:
        raise InvalidArgumentError(
            f"`megabytes` and `repeats` must be at least 1. Received: megabytes={megabytes}, repeats={repeats}."
        )
    source = np.ones(megabytes * 2**20, "uint8")
    target = np.zeros_like(source)  # written once before, so that no page is new to the process
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


def operation_overhead(operations: int = 50, repeats: int = 100) -> float:
    """Milliseconds that one more operation takes in LiteRT on one thread, however little it computes.

    The difference of a chain of convolutions of a single value and of one such convolution, by their medians.

    Args:
        operations: Length of the chain beyond the one, at least 1.
        repeats: Timed calls of each, at least 1.

    Raises:
        InvalidArgumentError: a number is below 1, or Keras does not run on TensorFlow.
        MissingDependencyError: LiteRT is not installed.
    """
    if operations < 1:
        raise InvalidArgumentError(f"`operations` must be at least 1. Received: operations={operations}.")
    medians = []
    for length in (1, 1 + operations):
        x = value = keras.Input((1, 1, 1))
        for _ in range(length):
            x = keras.layers.Conv2D(1, 1, activation="relu")(x)
        (row,) = latency(keras.Model(value, x), ["litert"], [1], repeats=repeats)
        medians.append(row.p50)
    return max(medians[1] - medians[0], 0.0) / operations


def _record(engine: str, threads: int | None, batch: int, times: list[float]) -> Latency:
    return Latency(engine, threads, batch, *(float(p) for p in np.percentile(times, (50, 90, 99))))


def _check(model: keras.Model, engines: Sequence[str], threads: Sequence[int], batch: int, repeats: int) -> None:
    if isinstance(engines, str) or not engines or any(engine not in _engines.ENGINES for engine in engines):
        raise InvalidArgumentError(f"`engines` must be some of {_engines.ENGINES}. Received: {engines!r}.")
    if not threads or min(threads) < 1 or batch < 1 or repeats < 1:
        raise InvalidArgumentError(
            "`threads`, `batch` and `repeats` must be at least 1. "
            f"Received: threads={tuple(threads)}, batch={batch}, repeats={repeats}."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1 or None in model.inputs[0].shape[1:]:
        raise InvalidArgumentError(
            "`model` must have one input of a fixed size and one output. Received: inputs "
            f"{[tuple(t.shape) for t in model.inputs]}, {len(model.outputs)} outputs."
        )
