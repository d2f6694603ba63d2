"""Replays a version's warmup requests before it is served.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.models.protocols import ServedModels
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.tfrecord import read_records
from keraslight_serving.wire import methods, serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000
"""Maximum number of records in a file."""

_METHODS: dict[str, methods.Method[Any, Any]] = {
    "predict_log": methods.PREDICT,
    "classify_log": methods.CLASSIFY,
    "regress_log": methods.REGRESS,
    "multi_inference_log": methods.MULTI_INFERENCE,
}


def warm_up(servable: Servable, folder: Path, iterations: int, metrics: Metrics) -> None:
    """Replays the warmup requests of a version, if it has any, in the same way as all requests.

    Requests for signatures that run in TensorFlow are skipped unless the SavedModel is loaded. Replaying them would
    import TensorFlow, which takes seconds and several hundred MB, in every server that only ever runs `model.tflite`.
    They are replayed with `load_saved_model`, or if the version replaces one that has TensorFlow in use.

    Args:
        servable: The version, just loaded.
        folder: Its version folder.
        iterations: Number of times each request is replayed; with 0, the file is not read.
        metrics: Records the duration and the result.

    Raises:
        StatusError: A record can't be read, its request fails, or there are too many. TensorFlow Serving doesn't serve
            such a version, either.
    """
    file = folder / FILE
    if iterations < 1 or not file.is_file():
        return
    began = time.monotonic()
    messages = Messages(Service(cast(ServedModels, _Alone(servable))))  # these calls only acquire
    replayed = skipped = 0
    code = "OK"
    try:
        for method, request in _requests(file):
            if not servable.saved_model_loaded and any(map(servable.needs_tensorflow, _signatures(servable, request))):
                skipped += 1
                continue
            for _ in range(iterations):
                messages.answer(method, request, Call())
            replayed += 1
    except StatusError as error:
        code = error.code.name
        raise
    finally:
        metrics.warmup(str(folder), code, time.monotonic() - began, replayed)
    logger.info(
        "Finished reading warmup data at %s: %d requests replayed in %.2f s, %d skipped that need TensorFlow",
        file,
        replayed,
        time.monotonic() - began,
        skipped,
    )


def _requests(file: Path) -> Iterator[tuple[methods.Method[Any, Any], Any]]:
    """For each record, a method, and its request."""
    for number, record in enumerate(read_records(file), 1):
        if number > MOST_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}")
        try:
            yield _request(pb.PredictionLog.FromString(record))
        except DecodeError:
            raise invalid(f"Failed to parse warmup record: {record[:100]!r} from {file}") from None


class _Alone:
    """A repository of one version that nobody else can reach yet."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable

    @contextlib.contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, Servable]]:
        yield 0, self._servable


def _request(log: pb.PredictionLog) -> tuple[methods.Method[Any, Any], Any]:
    """A method, and its request."""
    kind = log.WhichOneof("log_type")
    if kind not in _METHODS:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind or 'LOG_TYPE_NOT_SET'}"
        )
    method = _METHODS[kind]
    request: Any = method.request.FromString(getattr(log, kind).request)
    if kind != "multi_inference_log":
        request.model_spec.SetInParent()  # a model is not looked up by it here, so it need not be there
    return method, request


def _signatures(servable: Servable, request: Any) -> list[str]:
    """The signatures of a request that the version has."""
    specs = (
        [task.model_spec for task in request.tasks]
        if isinstance(request, pb.MultiInferenceRequest)
        else [request.model_spec]
    )
    names = [spec.signature_name or methods.DEFAULT_SIGNATURE for spec in specs]
    return [name for name in names if name in servable.signatures]
