"""Requests and their answers, written to files: `logging_config` of a model config file.

    logging_config {
      log_collector_config { type: "file" filename_prefix: "/var/log/models/digits" }
      sampling_config { sampling_rate: 0.01 }
    }

The files, `<prefix>-<time>-<process>-<number>.tfrecord`, are TFRecords of PredictionLog, the format of TensorFlow
Serving's warmup requests: so a day's traffic can be replayed before the next version is announced. TensorFlow Serving
leaves the writing to whoever links a collector into it, and its own image refuses every logging_config.
"""

import contextlib
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable

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
_MAX_HELD = 2**26  # bytes of requests and answers that wait to be written
_MAX_FILE = 2**28  # bytes, then the next file begins


def check_logging(model: str, config: pb.LoggingConfig) -> None:
    """Raises a StatusError for a `logging_config` that can't be followed."""
    collector, rate = config.log_collector_config, config.sampling_config.sampling_rate
    if collector.type != "file":
        raise not_found(f"Cannot find LogCollector::Factory for type: {collector.type}")
    if not os.path.isabs(collector.filename_prefix):
        raise invalid(f"Expected model {model} to have an absolute filename_prefix; got {collector.filename_prefix}")
    if not 0 <= rate <= 1:
        raise invalid(f"Expected model {model} to have a sampling_rate from 0 to 1; got {rate}")


class RequestLog:
    """Takes samples of the answered requests and writes them from a thread of its own.

    It never costs a request more than a look: what the disk is too slow for is dropped, what it has no room for is
    lost, and `request_log_count` tells (RESOURCE_EXHAUSTED, UNAVAILABLE). Files hold whole records in any case.

    Args:
        metrics: counts what was logged.
        seed: of the sampling; None: another one each time.
    """

    def __init__(self, metrics: Metrics, *, seed: int | None = None) -> None:
        self._metrics = metrics
        self._random = random.Random(seed)
        self._lock = threading.Lock()  # guards the two below
        self._held = 0
        self._thread: threading.Thread | None = None
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._files: dict[str, _RecordFile] = {}

    def offer(
        self, config: pb.LoggingConfig, api: str, spec: ModelSpec, exchange: Callable[[], tuple[Message, Message]]
    ) -> None:
        """Logs an exchange if it is sampled.

        Args:
            config: The model's logging configuration.
            api: Name of the call.
            spec: Model, version and signature that answered.
            exchange: Returns the request and its response, which must not change afterwards. Called only for sampled
                exchanges.
        """
        if api not in _FIELDS or self._random.random() >= config.sampling_config.sampling_rate:
            return
        request, response = exchange()
        size = request.ByteSize() + response.ByteSize()
        with self._lock:
            full = self._held > 0 and self._held + size > _MAX_HELD
            if not full:
                self._held += size
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_all, name="request log", daemon=True)
                    self._thread.start()
        if full:
            self._metrics.logged(spec.name, "RESOURCE_EXHAUSTED")
        else:
            self._queue.put((config, api, spec, request, response, size, int(time.time())))

    def close(self) -> None:
        """Writes what waits, for at most five seconds."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(5)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            config, api, spec, request, response, size, seconds = item
            prefix = config.log_collector_config.filename_prefix
            if prefix not in self._files:
                self._files[prefix] = _RecordFile(prefix)
            file = self._files[prefix]
            try:
                file.append(_record(config, api, spec, request, response, seconds))
                status = "OK"
            except Exception as error:
                status = "UNAVAILABLE"
                if not file.failing:
                    logger.warning("Can't log requests to %s, losing them: %s", prefix, error)
                file.failing = True
            else:
                file.failing = False
            self._metrics.logged(spec.name, status)
            with self._lock:
                self._held -= size
            del item, request, response
        for file in self._files.values():
            file.close()
        self._files.clear()


class _RecordFile:
    """TFRecord files of one prefix: a new one at the start, so that an older one's torn end is never written on."""

    def __init__(self, prefix: str) -> None:
        self.failing = False
        self._prefix = f"{prefix}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"
        self._number = 0
        self._file: int | None = None
        self._end = 0  # of the last whole record

    def append(self, data: bytes) -> None:
        if self._end >= _MAX_FILE:
            self.close()
        if self._file is None:
            self._open()
        rest = memoryview(to_record(data))
        end = self._end + len(rest)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # takes back the part that still had room
                os.ftruncate(self._file, self._end)
                os.lseek(self._file, self._end, os.SEEK_SET)
            raise
        self._end = end

    def _open(self) -> None:
        while self._file is None:
            with contextlib.suppress(FileExistsError):  # two servers of one process, or a restart within a second
                path = f"{self._prefix}-{self._number:05}.tfrecord"
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._number += 1
        self._end = 0

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _record(
    config: pb.LoggingConfig, api: str, spec: ModelSpec, request: Message, response: Message, seconds: int
) -> bytes:
    record = pb.PredictionLog()
    answered = record.log_metadata.model_spec
    answered.name, answered.signature_name = spec.name, spec.signature
    if spec.version is not None:
        answered.version.value = spec.version
    record.log_metadata.sampling_config.CopyFrom(config.sampling_config)
    record.log_metadata.saved_model_tags.append("serve")
    record.log_metadata.timestamp_secs = seconds
    exchange = getattr(record, _FIELDS[api])
    exchange.request = request.SerializeToString()
    exchange.response = response.SerializeToString()
    return record.SerializeToString()
