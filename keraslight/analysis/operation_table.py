"""Latency of single operators on this machine's LiteRT, kept as a table, from which that of whole networks follows.

LiteRT's Python package has no profiler, so every operator is timed as a file of its own, cut from the network's. A
network's time is the time of a call plus those of its operators. With a table, the latency of hundreds of networks
that differ in their widths is known without converting or running one of them: searches need that.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt

from keraslight import _litert_files
from keraslight._files import write_file
from keraslight.errors import DataError, InvalidArgumentError

if TYPE_CHECKING:
    from keraslight.export.litert.operators import OperatorGraph

METRICS = ("latency", "macs", "parameters")

_Runner = tuple[Callable[[], None], Callable[[], None]]

_CALL, _GAUGE = "call", "gauge"
_QUANTILE = 20  # other processes only add time: on an idle machine it is near the median, on a busy one near the idle
_WARMUP = 3  # rounds that don't count
_WARM_CALLS = 2  # of a file before each call that counts
_WHOLE_CALLS = 6  # the same of a whole network, which takes longer to come into the caches
# Data that are read before an operator's call that counts, as a part of the cache. A half gave 0.79 to 1.06 of the
# measured times of six networks, three quarters up to 1.4; with all of it, the sums are twice as large.
_OTHERS = 0.625
_GAUGED = 8  # files between two calls of the gauge, by which everything is scaled
_COPIES = 8  # of an operator in its file: calling LiteRT takes as long as a small operator
_FILES = 64  # in memory at once
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # of one core, "2048K"
_USUAL_CACHE = 1 << 21


class OperationLatency(NamedTuple):
    """Time that a model spends in an operator, or in several that LiteRT runs as one.

    Attributes:
        kind: Operators as TFLite calls them, such as `"CONV_2D"` or `"PAD + CONV_2D"`.
        layers: Names of the layers that it was made of; empty if only a file was given.
        output: Shape of its output, with the batch.
        macs: Multiply-adds.
        ms: Milliseconds on this machine.
        key: All that the time depends on; the operator's name in the table.
    """

    kind: str
    layers: tuple[str, ...]
    output: tuple[int, ...]
    macs: int
    ms: float
    key: str


class TableComparison(NamedTuple):
    """A model's time by the table, and measured.

    Attributes:
        table_ms: Time of a call plus those of all operators, in milliseconds.
        measured_ms: Time of the whole file, in milliseconds.
    """

    table_ms: float
    measured_ms: float

    @property
    def ratio(self) -> float:
        """The table's time relative to the measured one."""
        return self.table_ms / self.measured_ms


class Resource(Protocol):
    """What a search saves: a number for each choice of widths, of which less is better.

    It may also have a method `many`, which takes a list of such choices and returns their numbers: what has to be
    measured for them is measured together then.

    Attributes:
        metric: `"latency"`, `"macs"` or `"parameters"`.
        unit: Unit of the numbers: `"ms"`, or `""` for counts.
    """

    metric: str
    unit: str

    def __call__(self, widths: Mapping[str, int] | None = None) -> float:
        """The number for these output channels by the layers' names; layers that aren't named keep theirs."""
        ...  # pragma: no cover


class OperationTable:
    """Latency of single operators on this machine, by shape, each measured when it is first needed.

    An operator is timed as a file of its own with random weights, cut from the file of the network: with its fused
    activation, and with the padding that XNNPACK merges into it. The file has the operator up to eight times, each time
    with weights of its own: together they are twice as large as a core's cache, so that each reads its weights from
    memory, as in a network whose weights don't fit into the cache; and the call's own time, which is subtracted, is
    small. All operators that are new are called in turn, in an order that is drawn again for each round. Before a call
    that counts, its file is called twice, most of the cache is filled with other data, and the inputs are written:
    in a network, too, an operator finds a part of its code and data no longer in the cache.

    On one thread, times are the thread's CPU time: what other processes take isn't counted. On several threads, they
    are wall-clock time. Of all rounds, the 20th percentile is taken, because disturbances only add time. Each
    measurement also times one fixed convolution, and is scaled by its time: what was measured while the machine was
    slow can be added to the rest.

    Args:
        folder: Folder for the table, a JSON file named by CPU, version of LiteRT and threads; it is created. None
            keeps the table in memory.
        threads: Threads of LiteRT's interpreter (at least 1).
        repeats: Timed calls per operator (at least 1).
        seed: Seed of the inputs and of the order.

    Attributes:
        path: The JSON file, or None.

    Raises:
        InvalidArgumentError: A number is below 1.
        DataError: The folder has a file of that name that is not a table.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        threads: int = 1,
        repeats: int = 40,
        seed: int = 0,
    ) -> None:
        if threads < 1 or repeats < 1:
            raise InvalidArgumentError(
                f"`threads` and `repeats` must be at least 1. Received: threads={threads}, repeats={repeats}."
            )
        self.threads, self.repeats = threads, repeats
        self.path = None if folder is None else Path(folder, f"{_machine(threads)}.json")
        self._rng = np.random.default_rng(seed)
        self._clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
        self._times = {} if self.path is None else _read(self.path)
        self._runners: dict[str, _Runner] = {}

    def __len__(self) -> int:
        """Number of operators in the table."""
        return len(self._times.keys() - {_CALL, _GAUGE})

    def operations(self, model: Any, *, int8: bool = False) -> list[OperationLatency]:
        """The times of a model's operators, in the order in which they run.

        Args:
            model: A Keras 3 model that `to_litert` can convert, a .tflite file, or the operators of one.
            int8: Whether to convert a Keras model to int8.

        Raises:
            InvalidArgumentError, ExportError, MissingDependencyError: As in `to_litert`.
        """
        parts = _operators(model, int8).cut()
        self._measure_missing(parts)
        return [
            OperationLatency(
                part.name, part.layers, part.forms[part.outputs[0]].shape, part.macs, self._times[part.key], part.key
            )
            for part in parts
        ]

    def latency(self, model: Any, *, int8: bool = False) -> float:
        """A model's latency in milliseconds: the time of a call plus those of its operators.

        Args:
            model, int8: As in `operations`.
        """
        return self.latencies([model], int8=int8)[0]

    def latencies(self, models: Sequence[Any], *, int8: bool = False) -> list[float]:
        """The latencies of several models, in milliseconds; operators that are new are measured together.

        Together they are easier to compare: from one measurement to the next, times change by some percent.

        Args:
            models: Models, files or operators, as in `operations`.
            int8: As in `operations`.
        """
        networks = [_operators(model, int8).cut() for model in models]
        self._measure_missing(part for parts in networks for part in parts)
        return [self._times[_CALL] + sum(self._times[part.key] for part in parts) for parts in networks]

    def compare(self, model: Any, *, int8: bool = False) -> TableComparison:
        """Compares the table with the time of the whole file, which is measured now.

        Both are in milliseconds at the machine's present speed, by the fixed convolution's time.

        Args:
            model, int8: As in `operations`. A file is timed itself; of a Keras model, a file with random weights is.
        """
        graph = _operators(model, int8)
        predicted = self.latency(graph)
        content = self._content(model if isinstance(model, str | os.PathLike) else graph, int8)
        times = self._time({"file": content}, (_GAUGE,), whole=True)
        return TableComparison(predicted * times[_GAUGE] / self._times[_GAUGE], times["file"])

    def measure(self, models: Sequence[Any], *, int8: bool = False) -> list[float]:
        """Measures whole files now, in turn: the truth that the table's sums approximate.

        Args:
            models: Models, files or operators, as in `operations`.
            int8: As in `operations`.

        Returns:
            Milliseconds of each, at the machine's present speed.
        """
        contents = {str(place): self._content(model, int8) for place, model in enumerate(models)}
        return list(self._time(contents, whole=True).values())

    def _content(self, model: Any, int8: bool) -> bytes:
        if isinstance(model, str | os.PathLike):
            return _litert_files.content(model)
        return _operators(model, int8).content()

    def _measure_missing(self, parts: Iterable[OperatorGraph]) -> None:
        """Measures the parts that the table doesn't have, and keeps their times."""
        missing = list({part.key: part for part in parts if part.key not in self._times}.values())
        if not missing and self._times:
            return
        for start in range(0, max(len(missing), 1), _FILES):
            self._measure(missing[start : start + _FILES])
        if self.path is not None:
            kept = _read(self.path)  # what another process wrote meanwhile
            scale = kept[_GAUGE] / self._times[_GAUGE] if kept else 1.0
            self._times = {**{key: scale * taken for key, taken in self._times.items()}, **kept}
            write_file(self.path, json.dumps({"milliseconds": dict(sorted(self._times.items()))}, indent=1))

    def _measure(self, parts: Sequence[OperatorGraph]) -> None:
        copies = {part.key: _copies(part) for part in parts}
        contents = {part.key: part.content(copies[part.key]) for part in parts}
        times = self._time(contents, (_CALL, _GAUGE))
        speed = self._times.setdefault(_GAUGE, times[_GAUGE]) / times[_GAUGE]
        self._times.setdefault(_CALL, times[_CALL] * speed)
        for key, count in copies.items():
            self._times[key] = speed * max(times[key] - times[_CALL], 0.0) / count

    def _time(
        self, contents: Mapping[str, bytes], fixed: Sequence[str] = (), *, whole: bool = False
    ) -> dict[str, float]:
        """Milliseconds of a call of each file: of `whole` networks, and of the gauge, right after other calls."""
        # The same memory each time: where an interpreter's memory lies changes the time of its calls by some percent,
        # and that of the gauge scales everything.
        for key in fixed:
            if key not in self._runners:
                self._runners[key] = self._runner((_tiny() if key == _CALL else _gauge()).content(), key)
        runs = {key: self._runners[key] for key in fixed}
        runs |= {key: self._runner(content, key) for key, content in contents.items()}
        times: dict[str, list[int]] = {key: [] for key in runs}
        keys, others = [key for key in runs if key != _GAUGE], np.ones(int(_OTHERS * _cache_bytes()) // 8)

        def call(key: str, before: int, evict: bool) -> None:
            prepare, run = runs[key]
            for _ in range(before):
                run()
            if evict:
                others.sum()
            prepare()
            began = self._clock()
            run()
            times[key].append(self._clock() - began)

        for _ in range(_WARMUP + self.repeats):
            for count, place in enumerate(self._rng.permutation(len(keys))):
                if _GAUGE in runs and count % _GAUGED == 0:
                    call(_GAUGE, _WARM_CALLS, evict=False)
                call(keys[place], _WHOLE_CALLS if whole else _WARM_CALLS, evict=not whole)
        return {
            key: float(np.percentile(taken[_WARMUP * len(taken) // (_WARMUP + self.repeats) :], _QUANTILE)) / 1e6
            for key, taken in times.items()
        }

    def _runner(self, content: bytes, name: str) -> _Runner:
        """What writes the inputs of a file, and what runs it."""
        interpreter = _litert_files.content_interpreter(content, name, self.threads)
        inputs = [(entry["index"], self._input(entry)) for entry in interpreter.get_input_details()]

        def prepare() -> None:
            for index, values in inputs:
                interpreter.set_tensor(index, values)

        return prepare, interpreter.invoke

    def _input(self, entry: Mapping[str, Any]) -> npt.NDArray[Any]:
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if np.issubdtype(dtype, np.floating):
            return self._rng.normal(size=shape).astype(dtype)
        if dtype == np.bool_:
            return self._rng.integers(0, 2, shape).astype(dtype)
        return self._rng.integers(0, 100, shape).astype(dtype)


@dataclasses.dataclass
class _OperatorResource:
    """A number that follows from the operators of a file."""

    metric: str
    unit: str
    operators: OperatorGraph
    measure: Callable[[list[OperatorGraph]], list[float]]

    def __call__(self, widths: Mapping[str, int] | None = None) -> float:
        return self.many([widths or {}])[0]

    def many(self, choices: Sequence[Mapping[str, int]]) -> list[float]:
        """The number for each choice of widths; operators that are new are measured together."""
        return self.measure([self.operators.with_widths(widths) if widths else self.operators for widths in choices])


def resource(
    model: Any, metric: str = "latency", *, int8: bool = False, table: OperationTable | None = None
) -> Resource:
    """Makes a function from a model's widths to its latency, multiply-adds or parameters.

    The model is converted once. For other widths, the shapes of the file's operators are computed: a call takes
    milliseconds, and some more for the operators that the table doesn't have yet.

    Args:
        model: A Keras 3 model that `to_litert` can convert.
        metric: `"latency"` in milliseconds by the table, `"macs"`, the multiply-adds, or `"parameters"`, the weights
            of the file, in which batch norms are part of the convolutions.
        int8: Whether the latency is that of an int8 file.
        table: Table for the latency; None keeps a new one in memory.

    Returns:
        A function of a mapping from the names of layers with kernels to their output channels, with a method `many` for
        several such mappings. Layers that aren't named keep theirs; depthwise convolutions, batch norms and what else
        only passes channels on follow.

    Raises:
        InvalidArgumentError: The metric is unknown, or the model can't be converted.
    """
    if metric not in METRICS:
        raise InvalidArgumentError(f"`metric` must be one of {METRICS}. Received: {metric!r}.")
    operators = _operators(model, int8 and metric == "latency")
    if metric == "latency":
        table = OperationTable() if table is None else table  # an empty one is false
        return _OperatorResource(metric, "ms", operators, table.latencies)
    return _OperatorResource(metric, "", operators, lambda graphs: [float(getattr(graph, metric)) for graph in graphs])


def _operators(model: Any, int8: bool) -> OperatorGraph:
    """The operators of a model, of a file, or as they are."""
    from keraslight.export.litert import operators

    if isinstance(model, operators.OperatorGraph):
        return model
    if isinstance(model, str | os.PathLike):
        return operators.read_operators(model)
    if keras.backend.backend() != "tensorflow":
        raise InvalidArgumentError(
            f"Converting a model to operators needs Keras' TensorFlow backend. Received: {keras.backend.backend()!r}."
        )
    return operators.model_operators(model, int8=int8)


def _tiny() -> OperatorGraph:
    from keraslight.export.litert.operators import tiny_graph

    return tiny_graph()


def _gauge() -> OperatorGraph:
    from keraslight.export.litert.operators import pointwise_graph

    return pointwise_graph(7, 256)


def _copies(part: OperatorGraph) -> int:
    """As many as fill the cache twice with weights, and not with outputs, which a network writes to the same memory."""
    twice = 2 * _cache_bytes()
    return min(_COPIES, -(-twice // max(part.weight_bytes, 1)), max(1, twice // max(part.output_bytes, 1)))


@functools.cache
def _cache_bytes() -> int:
    """Size of the largest cache that a core has to itself."""
    try:
        return int(_CACHE.read_text(encoding="utf-8").strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return _USUAL_CACHE


def _machine(threads: int) -> str:
    """Name of what times depend on: CPU, version of LiteRT, threads."""
    try:
        version = importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    text = f"{_cpu()}-litert-{version}-{threads}-threads"
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()


def _cpu() -> str:
    """The CPU's model; the name alone doesn't tell the generations of a cloud's CPUs apart."""
    fields: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    names = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    known = [fields[name] for name in names if fields.get(name)]
    return " ".join(known) or platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, float]:
    """The times in a table's file; empty if the file doesn't exist."""
    if not path.exists():
        return {}
    try:
        times = json.loads(path.read_text(encoding="utf-8"))["milliseconds"]
        checked = {str(key): float(value) for key, value in times.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"A table of operators must be a JSON file that OperationTable wrote. Received: {path}: {error!r}."
        ) from error
    if checked and not ({_CALL, _GAUGE} <= checked.keys() and all(map(math.isfinite, checked.values()))):
        raise DataError(
            f"A table of operators must have finite times, with those of a call and of the gauge. Received: {path}."
        )
    return checked
