"""Replays a version's warmup requests before it is announced.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup; the file's form is that of
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

import contextlib
import logging
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc
from google.protobuf.message import DecodeError

from keraslight_serving.server._call import Call
from keraslight_serving.server._errors import StatusError, invalid
from keraslight_serving.server._servable import Servable
from keraslight_serving.server._service import Service
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000
"""A file with more is refused."""

_ADVICE = ". Please verify your warmup data is in TFRecord format."


def warm_up(servable: Servable, folder: Path, iterations: int) -> None:
    """Replays the requests of a version, if it has any, on the way that all requests go.

    Records for signatures that run in TensorFlow are passed over as long as the SavedModel isn't loaded: replaying them
    would import TensorFlow, seconds and several hundred MB, for every server that only ever runs `model.tflite`. With
    `load_saved_model`, or where a version is replaced that has TensorFlow in use, they are replayed, too.

    Args:
        servable: the version, just loaded.
        folder: where it came from.
        iterations: how often each request is replayed; 0: the file is not read.

    Raises:
        StatusError: a record can't be read or its request fails, or there are too many. TensorFlow Serving doesn't
            announce such a version, either.
    """
    file = folder / FILE
    if iterations < 1 or not file.is_file():
        return
    began = time.monotonic()
    service = Service(_Alone(servable))
    replayed = passed_over = 0
    for number, record in enumerate(_records(file), 1):
        if number > MOST_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}")
        try:
            log = pb.PredictionLog.FromString(record)
        except DecodeError:
            raise invalid(f"Failed to parse warmup record: {record[:100]!r} from {file}") from None
        if not servable.saved_model_loaded and any(map(servable.needs_tensorflow, _signatures(servable, log))):
            passed_over += 1
            continue
        for _ in range(iterations):
            _replay(service, log)
        replayed += 1
    logger.info(
        "Finished reading warmup data at %s: %d requests replayed in %.2f s, %d passed over that need TensorFlow",
        file,
        replayed,
        time.monotonic() - began,
        passed_over,
    )


class _Alone:
    """A repository of one version, which no one else can reach yet."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable

    @contextlib.contextmanager
    def acquire(self, spec: pb.ModelSpec) -> Iterator[tuple[int, Servable]]:
        yield 0, self._servable


def _signatures(servable: Servable, log: pb.PredictionLog) -> list[str]:
    """Those that a request is for, as far as the version has them."""
    kind = log.WhichOneof("log_type")
    if kind is None:
        return []
    request = getattr(log, kind)
    if kind == "multi_inference_log":
        specs = [task.model_spec for task in request.request.tasks]
    else:
        specs = [request.request.model_spec] if hasattr(request, "request") else []
    names = [spec.signature_name or methods.DEFAULT_SIGNATURE for spec in specs]
    return [name for name in names if name in servable.signatures]


def _replay(service: Service, log: pb.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    calls = {
        "predict_log": service.predict,
        "classify_log": service.classify,
        "regress_log": service.regress,
        "multi_inference_log": service.multi_inference,
    }
    if kind not in calls:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind or 'LOG_TYPE_NOT_SET'}"
        )
    request = getattr(log, kind).request
    if kind != "multi_inference_log":
        request.model_spec.SetInParent()  # a model is not looked up by it here, so it need not be there
    calls[kind](request, Call())


def _records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: 8 bytes of length, their checksum, the data, its checksum, all little-endian.

    Raises:
        StatusError: DATA_LOSS, a checksum is wrong or the file ends within a record.
    """
    content = file.read_bytes()
    position = 0
    while position < len(content):
        header = content[position : position + 12]
        # A length is looked at only once it is known to be one.
        if len(header) < 12 or _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
            raise _corrupted(position)
        end = position + 12 + struct.unpack("<Q", header[:8])[0]
        data, checksum = content[position + 12 : end], content[end : end + 4]
        if len(checksum) < 4 or _masked_crc(data) != struct.unpack("<I", checksum)[0]:
            raise _corrupted(position)
        yield data
        position = end + 4


def _masked_crc(data: bytes) -> int:
    """CRC-32C, turned and shifted, so that data which holds checksums is no trap."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _corrupted(position: int) -> StatusError:
    return StatusError(grpc.StatusCode.DATA_LOSS, f"corrupted record at {position}{_ADVICE}")
