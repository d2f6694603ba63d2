"""Writes requests and their responses to files: `logging_config` of a model config file.

    logging_config {
      log_collector_config { type: "file" filename_prefix: "/var/log/models/digits" }
      sampling_config { sampling_rate: 0.01 }
    }

The files, `<prefix>-<time>-<process>-<number>.tfrecord`, are TFRecords of PredictionLog, the format of TensorFlow
Serving's warmup requests, so that a day's traffic can be replayed before the next version is served. TensorFlow Serving
itself contains no collector that writes them, and its official image rejects every logging_config.
"""

import contextlib
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import Message

from keraslight_serving.server.base.errors import invalid, not_found
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.tfrecord import to_record
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

_FIELDS = {
    "Predict": "predict_log",
    "Classify": "classify_log",
    "Regress": "regress_log",
    "MultiInference": "multi_inference_log",
}
_MAX_HELD = 2**26  # bytes of requests and responses waiting to be written
_MAX_FILE = 2**28  # bytes after which the next file begins
_IDLE_SECONDS = 60.0  # after which a file is closed that nothing was written to


class _Exchange(NamedTuple):
    """A request and its response, waiting to be written."""

    config: pb.LoggingConfig
    api: str
    spec: ModelSpec
    request: Message
    response: Message
    size: int  # of both messages, in bytes
    seconds: int  # since 1970


def check_logging(model: str, config: pb.LoggingConfig) -> None:
    """Raises a StatusError for a `logging_config` that is invalid."""
    collector, rate = config.log_collector_config, config.sampling_config.sampling_rate
    if collector.type != "file":
        raise not_found(f"Cannot find LogCollector::Factory for type: {collector.type}")
    if not os.path.isabs(collector.filename_prefix):
        raise invalid(f"Expected model {model} to have an absolute filename_prefix; got {collector.filename_prefix}")
    if not 0 <= rate <= 1:
        raise invalid(f"Expected model {model} to have a sampling_rate from 0 to 1; got {rate}")


class RequestLog:
    """Samples the answered requests and writes them in its own thread.

    It never delays a request. Records are dropped if the disk is too slow (`request_log_count` counts them as
    RESOURCE_EXHAUSTED) or full (UNAVAILABLE). Files contain complete records in any case.
    """

    def __init__(self, metrics: Metrics, *, seed: int | None = None) -> None:
        self._metrics = metrics
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # guards the two below
        self._held = 0
        self._thread: threading.Thread | None = None
        self._queue: queue.SimpleQueue[_Exchange | None] = queue.SimpleQueue()

    def offer(
        self, config: pb.LoggingConfig, api: str, spec: ModelSpec, exchange: Callable[[], tuple[Message, Message]]
    ) -> None:
        """Logs a request and its response if they are sampled, and the method has a PredictionLog.

        `exchange`, which returns both, is only called then. They must not change afterwards.
        """
        if api not in _FIELDS or self._random.random() >= config.sampling_config.sampling_rate:
            return
        request, response = exchange()
        size = request.ByteSize() + response.ByteSize()
        with self._lock:
            if self._held > 0 and self._held + size > _MAX_HELD:
                self._metrics.logged(spec.name, "RESOURCE_EXHAUSTED")
                return
            self._held += size
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
                self._thread.start()
        self._queue.put(_Exchange(config, api, spec, request, response, size, int(time.time())))

    def close(self) -> None:
        """Writes what is waiting, for at most five seconds."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(5)

    def _write_all(self) -> None:
        files: dict[str, _RecordFile] = {}
        while True:
            try:
                item = self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                _close_idle(files)
                continue
            if item is None:
                break
            prefix = item.config.log_collector_config.filename_prefix
            if prefix not in files:
                _close_idle(files)  # a configuration may name ever new ones
                files[prefix] = _RecordFile(prefix)
            file = files[prefix]
            file.used = time.monotonic()
            try:
                file.append(_record(item))
                status, file.failing = "OK", False
            except Exception as error:
                if not file.failing:
                    logger.warning("Can't log requests to %s, dropping them: %s", prefix, error)
                status, file.failing = "UNAVAILABLE", True
            self._metrics.logged(item.spec.name, status)
            with self._lock:
                self._held -= item.size
            del item  # not held while waiting for the next one
        for file in files.values():
            file.close()


def _close_idle(files: "dict[str, _RecordFile]") -> None:
    for prefix, file in list(files.items()):
        if time.monotonic() - file.used >= _IDLE_SECONDS:
            file.close()
            del files[prefix]


class _RecordFile:
    """TFRecord files with one prefix. Each process begins a new file: an existing one may end in a torn record."""

    def __init__(self, prefix: str) -> None:
        self.failing = False
        self.used = time.monotonic()
        self._prefix = f"{prefix}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"
        self._number = 0
        self._file: int | None = None
        self._end = 0  # of the last complete record

    def append(self, data: bytes) -> None:
        if self._end >= _MAX_FILE:
            self.close()
        while self._file is None:
            with contextlib.suppress(FileExistsError):  # two servers in one process, or a restart within a second
                path = f"{self._prefix}-{self._number:05}.tfrecord"
                self._file, self._end = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 0
            self._number += 1
        rest = memoryview(to_record(data))
        end = self._end + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # removes the part that still had room
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
            raise
        self._end = end

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _record(item: _Exchange) -> bytes:
    record = pb.PredictionLog()
    spec = record.log_metadata.model_spec
    spec.name, spec.signature_name = item.spec.name, item.spec.signature
    if item.spec.version is not None:
        spec.version.value = item.spec.version
    record.log_metadata.sampling_config.CopyFrom(item.config.sampling_config)
    record.log_metadata.saved_model_tags.append("serve")
    record.log_metadata.timestamp_secs = item.seconds
    exchange = getattr(record, _FIELDS[item.api])
    exchange.request, exchange.response = item.request.SerializeToString(), item.response.SerializeToString()
    return record.SerializeToString()
