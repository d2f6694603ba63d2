"""Latency of a model on this machine."""

import os
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keraslight._timing import interleaved
from keraslight.analysis import _engines
from keraslight.analysis._engines import Runner
from keraslight.errors import InvalidArgumentError
from keraslight.graph import check_ends, without_auxiliary

_WARMUP = 5  # untimed calls: the first one compiles, the next few still fill caches


class Latency(NamedTuple):
    """Time that an engine takes from an array of images to an array of outputs.

    Attributes:
        engine: `"keras"`, `"saved_model"` or `"litert"`.
        threads: Threads of LiteRT; None for engines that use TensorFlow's process-wide pools.
        batch: Images per call.
        p50, p90, p99: Percentiles of the wall-clock time per call, in milliseconds.
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
    """Times a model on this machine with several engines.

    Each engine is first called a few times untimed. Then each is called once per round, in an order that is drawn
    again for every round, so that a machine that slows down affects all of them. As each call follows another engine's,
    its caches are as cold as in a process that also does other work; an engine on its own is a little faster.

    A time covers the whole call. None of the engines reports times of single layers to Python: LiteRT's profiler is
    only available in C++ and in its `benchmark_model` program (ai-edge-litert 2.3), and TensorFlow fuses layers before
    it runs them. `profile` reports multiply-adds and bytes by layer.

    Args:
        model: A model with one input (B, ...) of a fixed size and one output.
        engines: Engines to time: `"keras"` (`predict_on_batch`, on any backend), `"saved_model"` (as Keras exports it,
            run by TensorFlow), `"litert"` (a float32 file).
        threads: Numbers of threads (each at least 1) with which LiteRT is timed. TensorFlow's pools are fixed when a
            process first uses it, so the other engines run with the setting of `tf.config.threading`, by default one
            thread per core.
        batch: Images per call (at least 1), drawn from a standard normal distribution.
        repeats: Timed calls per engine (at least 1). The 99th percentile is meaningful from 100 on.
        seed: Seed of the images and the order.
        progress: Function that is called with the number of finished rounds and `repeats`.

    Returns:
        One record per engine, for LiteRT one per number of threads, in the given order.

    Raises:
        InvalidArgumentError: An engine is unknown, a number is out of range, a size is open, there are several inputs
            or outputs, or an engine needs TensorFlow and Keras runs on another backend.
        MissingDependencyError: LiteRT is not installed.
    """
    if isinstance(engines, str) or not engines or any(engine not in _engines.ENGINES for engine in engines):
        raise InvalidArgumentError(f"`engines` must be some of {_engines.ENGINES}. Received: {engines!r}.")
    if not threads or min(threads) < 1 or batch < 1 or repeats < 1:
        raise InvalidArgumentError(
            "`threads`, `batch` and `repeats` must be at least 1. "
            f"Received: threads={tuple(threads)}, batch={batch}, repeats={repeats}."
        )
    check_ends(model)
    model = without_auxiliary(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1 or None in model.inputs[0].shape[1:]:
        raise InvalidArgumentError(
            "`model` must have one input of a fixed size and one output. Received: inputs "
            f"{[tuple(t.shape) for t in model.inputs]}, {len(model.outputs)} outputs."
        )
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, *model.inputs[0].shape[1:])).astype(model.inputs[0].dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runners: dict[tuple[str, int | None], Runner] = {}
        for engine in engines:
            match engine:
                case "keras":
                    runners[engine, None] = _engines.keras_runner(model, images)
                case "saved_model":
                    runners[engine, None] = _engines.saved_model_runner(model, images, folder)
                case "litert":
                    file = _engines.litert_file(model, batch, folder)
                    runners |= {(engine, count): _engines.litert_runner(file, images, count) for count in threads}
        times = interleaved(runners, repeats, rng, warmup=_WARMUP, progress=progress)
    return [_record(engine, count, batch, times[engine, count]) for engine, count in runners]


def file_latency(
    files: Mapping[str, str | os.PathLike[str]], *, threads: int = 1, repeats: int = 50, seed: int = 0
) -> dict[str, Latency]:
    """Times LiteRT files on this machine in turn, as `latency` times engines: a model before and after compression.

    Args:
        files: Name -> .tflite file with one input. Batch, image size and dtype are the file's; pixels are random.
        threads: Threads of LiteRT's interpreter (at least 1).
        repeats: Timed calls per file (at least 1).
        seed: Seed of the pixels and the order.

    Returns:
        Name -> record, in the order of `files`.

    Raises:
        InvalidArgumentError: No file is given, one doesn't exist, or a number is below 1.
        ExportError: A file is not a .tflite file, or LiteRT can't run it.
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
    """Measures one thread's memory bandwidth, in bytes read and written per second: the best of several large copies.

    Args:
        megabytes: Size of the array in MiB (at least 1), well above the processor's caches.
        repeats: Number of copies (at least 1).

    Raises:
        InvalidArgumentError: A number is below 1.
    """
    if megabytes < 1 or repeats < 1:
        raise InvalidArgumentError(
            f"`megabytes` and `repeats` must be at least 1. Received: megabytes={megabytes}, repeats={repeats}."
        )
    source = np.ones(megabytes * 2**20, "uint8")
    target = np.zeros_like(source)  # written once before timing, so that no page is new to the process
    times = timeit.repeat(lambda: np.copyto(target, source), timer=time.perf_counter, number=1, repeat=repeats)
    return 2 * source.nbytes / min(times)


def operation_overhead(operations: int = 50, repeats: int = 100) -> float:
    """Measures the time in milliseconds that one more operation takes in LiteRT on one thread, however small it is.

    Compares the median times of a chain of convolutions of a single value and of one such convolution.

    Args:
        operations: Number of additional convolutions in the chain (at least 1).
        repeats: Timed calls of each (at least 1).

    Raises:
        InvalidArgumentError: A number is below 1, or Keras does not run on TensorFlow.
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
