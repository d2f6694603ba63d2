"""Replays a version's warmup requests before it is announced.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.tfrecord import read_records
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000
"""A file with more is refused."""

_CALLS = {
    "predict_log": ("predict", pb.PredictRequest),
    "classify_log": ("classify", pb.ClassificationRequest),
    "regress_log": ("regress", pb.RegressionRequest),
    "multi_inference_log": ("multi_inference", pb.MultiInferenceRequest),
}


def warm_up(servable: Servable, folder: Path, iterations: int, metrics: Metrics) -> None:
    """Replays the requests of a version, if it has any, on the way that all requests go.

    Records for signatures that run in TensorFlow are passed over as long as the SavedModel isn't loaded: replaying them
    would import TensorFlow, seconds and several hundred MB, for every server that only ever runs `model.tflite`. With
    `load_saved_model`, or where a version is replaced that has TensorFlow in use, they are replayed, too.

    Args:
        servable: the version, just loaded.
        folder: where it came from.
        iterations: how often each request is replayed; 0: the file is not read.
        metrics: told how long it took, and how it ended.

    Raises:
        StatusError: a record can't be read or its request fails, or there are too many. TensorFlow Serving doesn't
            announce such a version, either.
    """
    file = folder / FILE
    if iterations < 1 or not file.is_file():
        return
    began = time.monotonic()
    service = Messages(Service(_Alone(servable)))  # type: ignore[arg-type]  # only `acquire` is called
    replayed = passed_over = 0
    code = "OK"
    try:
        for name, request in _requests(file):
            if not servable.saved_model_loaded and any(map(servable.needs_tensorflow, _signatures(servable, request))):
                passed_over += 1
                continue
            for _ in range(iterations):
                getattr(service, name)(request, Call())
            replayed += 1
    except StatusError as error:
        code = error.code.name
        raise
    finally:
        metrics.warmup(str(folder), code, time.monotonic() - began, replayed)
    logger.info(
        "Finished reading warmup data at %s: %d requests replayed in %.2f s, %d passed over that need TensorFlow",
        file,
        replayed,
        time.monotonic() - began,
        passed_over,
    )


def _requests(file: Path) -> Iterator[tuple[str, Any]]:
    """The records: which method of Service each is for, and its request."""
    for number, record in enumerate(read_records(file), 1):
        if number > MOST_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}")
        try:
            yield _request(pb.PredictionLog.FromString(record))
        except DecodeError:
            raise invalid(f"Failed to parse warmup record: {record[:100]!r} from {file}") from None


class _Alone:
    """A repository of one version, which no one else can reach yet."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable

    @contextlib.contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, Servable]]:
        yield 0, self._servable


def _request(log: pb.PredictionLog) -> tuple[str, Any]:
    """The name of the method of Service that a record is for, and its request."""
    kind = log.WhichOneof("log_type")
    if kind not in _CALLS:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind or 'LOG_TYPE_NOT_SET'}"
        )
    name, message = _CALLS[kind]
    request = message.FromString(getattr(log, kind).request)
    if kind != "multi_inference_log":
        request.model_spec.SetInParent()  # a model is not looked up by it here, so it need not be there
    return name, request


def _signatures(servable: Servable, request: Any) -> list[str]:
    """Those that a request is for, as far as the version has them."""
    specs = (
        [task.model_spec for task in request.tasks]
        if isinstance(request, pb.MultiInferenceRequest)
        else [request.model_spec]
    )
    names = [spec.signature_name or methods.DEFAULT_SIGNATURE for spec in specs]
    return [name for name in names if name in servable.signatures]
