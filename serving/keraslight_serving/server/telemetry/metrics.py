"""The counters and histograms of a server, in Prometheus' text format.

Names, labels and bucket limits of `:tensorflow:serving:` are TensorFlow Serving's, so that its dashboards work. Those
of `:keraslight:serving:` are our own. prometheus-client can't write these names: it appends `_total` to every counter.
"""

import contextlib
import json
import logging
import os
import threading
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import grpc

from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.base.text_proto import read_text_proto
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# Clients can request any model name, and each would add a line forever. Beyond this number of series, and this length
# of a name, failures are counted as `_other`.
MAX_SERIES = 1000
MAX_LABEL = 128
OTHER = "_other"


class _Metric(NamedTuple):
    """A counter, or a histogram if it has `bounds`: the inclusive limits of its buckets, without infinity."""

    name: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _exponential(first: float, factor: float, count: int) -> tuple[float, ...]:
    return tuple(first * factor**i for i in range(count))


_MICROSECONDS = _exponential(10, 1.8, 33)  # up to 25 minutes
_QUEUE_MICROSECONDS = _exponential(100, 1.2, 52)  # up to a second
_ROWS = _exponential(1, 2, 14)

_TF = ":tensorflow:serving:"
_OURS = ":keraslight:serving:"
REQUEST_COUNT = _Metric(_TF + "request_count", ("model_name", "status"))
REQUEST_LATENCY = _Metric(_TF + "request_latency", ("model_name", "API", "entrypoint"), _MICROSECONDS)
RUNTIME_LATENCY = _Metric(_TF + "runtime_latency", ("model_name", "API", "runtime"), _MICROSECONDS)
EXAMPLE_COUNTS = _Metric(_TF + "request_example_counts", ("model",), _exponential(1, 2, 15))
EXAMPLE_COUNT_TOTAL = _Metric(_TF + "request_example_count_total", ("model",))
WARMUP_LATENCY = _Metric(_TF + "model_warmup_latency", ("model_path", "status"), _MICROSECONDS)
WARMUP_RECORDS = _Metric(_TF + "model_warmup_records_read", ("model_path", "status"))
QUEUING_LATENCY = _Metric(_TF + "batching_session:queuing_latency", ("thread_pool_name",), _QUEUE_MICROSECONDS)
WRAPPED_RUN_COUNT = _Metric(_TF + "batching_session:wrapped_run_count")
PADDING_SIZE = _Metric(_TF + "batching_session:padding_size", ("execution_batch_size",), _ROWS)
INPUT_BATCH_SIZE = _Metric(_TF + "batching_session:input_batch_size", (), _ROWS)
PROCESSED_BATCH_SIZE = _Metric(_TF + "batching_session:processed_batch_size", (), _ROWS)
REQUEST_LOG_COUNT = _Metric(_TF + "request_log_count", ("model_name", "status_code"))
QUEUE_LATENCY = _Metric(_OURS + "queue_latency", ("model_name", "engine"), _QUEUE_MICROSECONDS)
BATCH_SIZE = _Metric(_OURS + "batch_size", ("model_name", "engine"), _ROWS)

METRICS = {metric.name: metric for metric in tuple(globals().values()) if isinstance(metric, _Metric)}

# Name of the metric -> values of its labels -> its numbers. A counter has one number. A histogram has the sum, then the
# count of each bucket alone, the last one for values beyond the bounds. The numbers of processes can simply be added.
_Series = dict[str, dict[tuple[str, ...], list[float]]]

# Names of the engines in the label `runtime`; TF1 is TensorFlow Serving's own.
_RUNTIMES = {"litert": "LiteRT", "tensorflow": "TF1"}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def path_of(monitoring_config_file: str | os.PathLike[str]) -> str | None:
    """The URL path of the metrics in a MonitoringConfig in protobuf's text format; None if they are not published.

        prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }

    Raises:
        StartError: The file can't be read or parsed.
    """
    config = read_text_proto("monitoring_config_file", monitoring_config_file, pb.MonitoringConfig()).prometheus_config
    if config.path and not config.path.startswith("/"):
        raise StartError(f"`path` in `monitoring_config_file` must begin with a slash. Received: {config.path}")
    return config.path or DEFAULT_PATH if config.enable else None


class Metrics:
    """The counters and histograms of a server. All methods are thread-safe.

    The processes of one server share a `directory`. Each writes its numbers to its own file there, every second after
    `start` and before it renders, and renders the sum of all files. So no counter ever decreases, whichever process is
    scraped and even if one has died; Prometheus would take that for a restart and count everything twice. Only these
    processes use the directory, which exists and is empty at the first start. A server with one process needs none.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._lock = threading.Lock()
        self._series: _Series = {}
        self._file = None if directory is None else Path(directory) / f"{os.getpid()}-{uuid.uuid4().hex}.json"
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._warned = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts writing the numbers for the other processes, if there is a directory."""
        if self._file is not None:
            self._thread = threading.Thread(target=self._keep_writing, args=(self._file,), name="metrics", daemon=True)
            self._thread.start()

    def request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts an answered request by the name of its status code. Only `OK` counts for the latency."""
        model = model if len(model) <= MAX_LABEL else OTHER
        if status == "OK":
            self._observe(REQUEST_LATENCY, (model, api, entrypoint), seconds * 1e6)
        self._add(REQUEST_COUNT, (model, status), may_grow=status == "OK")

    def rest_request(self, model: str, api: str, code: grpc.StatusCode, seconds: float) -> None:
        """Counts a request over REST, with `api` as in its URL: `predict`, `classify` ..."""
        self.request(model, api, "REST", code.name, seconds)

    def run(self, model: str, api: str, engine: str, seconds: float) -> None:
        """Records the time that an engine, `litert` or `tensorflow`, has run for a request."""
        self._observe(RUNTIME_LATENCY, (model, api, _RUNTIMES.get(engine, engine)), seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """Counts the tf.Examples of an answered MultiInference request."""
        self._observe(EXAMPLE_COUNTS, (model,), count)
        self._add(EXAMPLE_COUNT_TOTAL, (model,), count)

    def batch(
        self,
        model: str,
        engine: str,
        rows: Sequence[int],
        queue_seconds: Iterable[float],
        padded_to: int,
        thread_pool: str = "model_server_batch_threads",
    ) -> None:
        """Records a batch with the rows and the seconds in the queue of each request, run with `padded_to` rows."""
        for seconds in queue_seconds:
            self._observe(QUEUING_LATENCY, (thread_pool,), seconds * 1e6)
            self._observe(QUEUE_LATENCY, (model, engine), seconds * 1e6)
        for count in rows:
            self._observe(INPUT_BATCH_SIZE, (), count)
        self._observe(PADDING_SIZE, (str(padded_to),), padded_to - sum(rows))
        self._observe(PROCESSED_BATCH_SIZE, (), padded_to)
        self._observe(BATCH_SIZE, (model, engine), sum(rows))
        self._add(WRAPPED_RUN_COUNT, ())

    def warmup(self, path: str, status: str, seconds: float, records: int) -> None:
        """Records the warmup of the version folder `path`, which ended with a status code of this name."""
        self._observe(WARMUP_LATENCY, (path, status), seconds * 1e6)
        self._add(WARMUP_RECORDS, (path, status), records)

    def logged(self, model: str, status: str) -> None:
        """Counts a request that was written to the request log, or should have been."""
        self._add(REQUEST_LOG_COUNT, (model, status))

    def render(self) -> bytes:
        """All metrics that have a sample, in Prometheus' text format."""
        if self._file is None:
            return _text(self._snapshot())
        self._write(self._file)
        merged: _Series = {}
        for file in sorted(self._file.parent.glob("*.json")):
            if file == self._file and self._warned:
                continue  # it is outdated, because the disk is full
            with contextlib.suppress(OSError, ValueError):
                _merge(merged, _from_json(file.read_bytes()))
        if self._warned:
            _merge(merged, self._snapshot())
        return _text(merged)

    def close(self) -> None:
        """Writes the final numbers to the directory."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            self._write(self._file)

    def _add(self, metric: _Metric, labels: tuple[str, ...], amount: float = 1, *, may_grow: bool = True) -> None:
        with self._lock:
            series = self._series.setdefault(metric.name, {})
            if labels not in series and not may_grow and len(series) >= MAX_SERIES:
                labels = (OTHER, *labels[1:])
            series.setdefault(labels, [0])[0] += amount

    def _observe(self, metric: _Metric, labels: tuple[str, ...], value: float) -> None:
        bucket = bisect_left(metric.bounds, value)
        with self._lock:
            series = self._series.setdefault(metric.name, {})
            numbers = series.get(labels)
            if numbers is None:
                numbers = series[labels] = [0] * (len(metric.bounds) + 2)
            numbers[0] += value
            numbers[1 + bucket] += 1

    def _snapshot(self) -> _Series:
        with self._lock:
            return {name: {k: v.copy() for k, v in series.items()} for name, series in self._series.items()}

    def _keep_writing(self, file: Path) -> None:
        while not self._closed.wait(1):
            self._write(file)

    def _write(self, file: Path) -> None:
        # One thread at a time, from the snapshot to the rename: an older snapshot must not replace a newer one.
        with self._writing:
            rows = [[name, [[k, v] for k, v in series.items()]] for name, series in self._snapshot().items()]
            unfinished = file.with_suffix(".new")
            try:
                unfinished.write_text(json.dumps(rows))
                unfinished.replace(file)
                self._warned = False
            except OSError as error:
                if not self._warned:
                    logger.warning("Can't write metrics for the other processes: %s", error)
                self._warned = True


def _from_json(data: bytes) -> _Series:
    return {name: {tuple(labels): numbers for labels, numbers in series} for name, series in json.loads(data)}


def _merge(target: _Series, more: _Series) -> None:
    for name, series in more.items():
        into = target.setdefault(name, {})
        for labels, numbers in series.items():
            known = into.get(labels)
            into[labels] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


def _text(series: _Series) -> bytes:
    lines = []
    for name in sorted(series):
        metric = METRICS[name]
        lines.append(f"# TYPE {name} {'histogram' if metric.bounds else 'counter'}")
        for values, numbers in sorted(series[name].items()):
            labels = [
                f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(metric.labels, values, strict=True)
            ]
            inside = ",".join(labels)
            if not metric.bounds:
                lines.append(f"{name}{{{inside}}} {numbers[0]}")
                continue
            counts = list(accumulate(numbers[1:]))
            for bound, count in zip((*map("{:g}".format, metric.bounds), "+Inf"), counts, strict=True):
                bucket = ",".join([*labels, f'le="{bound}"'])
                lines.append(f"{name}_bucket{{{bucket}}} {count}")
            lines += [f"{name}_sum{{{inside}}} {numbers[0]}", f"{name}_count{{{inside}}} {counts[-1]}"]
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")
