"""Replays a version's warmup requests before it is served.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.models.protocols import ServedModels
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.tfrecord import read_records
from keraslight_serving.wire import methods, serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

MOST_RECORDS = 1000  # in a file

_METHODS: dict[str, methods.Method[Any, Any]] = {
    "predict_log": methods.PREDICT,
    "classify_log": methods.CLASSIFY,
    "regress_log": methods.REGRESS,
    "multi_inference_log": methods.MULTI_INFERENCE,
}


def warm_up(servable: Servable, folder: Path, iterations: int, metrics: Metrics) -> None:
    """Replays a version's warmup requests, if any, in the same way as all requests, `iterations` times each.

    Requests for signatures that run in TensorFlow are skipped unless the SavedModel is loaded. Replaying them would
    import TensorFlow, which takes seconds and several hundred MB, in every server that only ever runs `model.tflite`.
    They are replayed with `load_saved_model`, or if the version replaces one that has TensorFlow in use.

    Raises:
        StatusError: A record can't be read, its request fails, or there are too many. TensorFlow Serving doesn't serve
            such a version, either.
    """
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    if iterations < 1 or not file.is_file():
        return
    began = time.monotonic()
    # A repository of one version that nobody else can reach yet; these calls only acquire.
    alone = SimpleNamespace(
        acquire=lambda spec: contextlib.nullcontext((0, servable)),
        runs_in=lambda spec: servable.runs_in(spec.signature),
    )
    messages = Messages(Service(cast(ServedModels, alone)))
    replayed, skipped, code = 0, 0, "OK"
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
    text = "Finished reading warmup data at %s: %d requests replayed in %.2f s, %d skipped that need TensorFlow"
    logger.info(text, file, replayed, time.monotonic() - began, skipped)


def _requests(file: Path) -> Iterator[tuple[methods.Method[Any, Any], Any]]:
    for number, record in enumerate(read_records(file), 1):
        if number > MOST_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}")
        try:
            log = pb.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            if kind not in _METHODS:
                text = f"Unsupported log_type for warmup: {kind or 'LOG_TYPE_NOT_SET'}"
                raise StatusError(grpc.StatusCode.UNIMPLEMENTED, text)
            request: Any = _METHODS[kind].request.FromString(getattr(log, kind).request)
        except DecodeError:
            raise invalid(f"Failed to parse warmup record: {record[:100]!r} from {file}") from None
        if kind != "multi_inference_log":
            request.model_spec.SetInParent()  # a model is not looked up by it here, so it need not be there
        yield _METHODS[kind], request


def _signatures(servable: Servable, request: Any) -> list[str]:
    """The signatures of a request that the version has."""
    tasks = request.tasks if isinstance(request, pb.MultiInferenceRequest) else [request]
    names = [task.model_spec.signature_name or methods.DEFAULT_SIGNATURE for task in tasks]
    return [name for name in names if name in servable.signatures]
