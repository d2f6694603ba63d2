"""Around each call of Service, whichever way it came in: what is counted, what is logged, and what is caught."""

import functools
import logging
import time
from collections.abc import Callable

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.telemetry.logging import log_request
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

_COUNTED = ("Predict", "Classify", "Regress")  # the others TensorFlow Serving does not count
REST = "REST"  # counts for itself, since a body that makes no message never comes here


def observed(api: str) -> Callable:
    """Decorates a method of Service: `method(self, request, call)` with `self.metrics` and `self.log_exchange`.

    Calls over REST are logged and timed in the engine, but counted where they come in, by `Metrics.rest_request`.

    Whatever it raises that is no StatusError becomes one, INTERNAL, with its traceback in the log.

    Args:
        api: the name of the call, as in `PredictionService`.
    """

    def decorate(method: Callable) -> Callable:
        @functools.wraps(method)
        def observe(self, request, call: Call):
            start = time.perf_counter()
            asked = _asked(request)
            ran = functools.partial(self.metrics.run, asked.name, api)
            try:
                call.check()  # it may have given up while the request waited for a thread
                response = method(self, request, call._replace(on_run=ran))
            except Exception as error:
                if not isinstance(error, StatusError):
                    logger.exception("%s failed", api)
                    error = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
                _end(self, api, call, asked, error.code.name, time.perf_counter() - start, error.text)
                raise error
            answered = _answered(response, asked)
            _end(self, api, call, answered, "OK", time.perf_counter() - start)
            if api == "MultiInference":
                self.metrics.examples(asked.name, _example_count(request.input))
            self.log_exchange(api, answered, request, response)
            return response

        return observe

    return decorate


def _end(service, api: str, call: Call, spec: pb.ModelSpec, code: str, seconds: float, text: str = "") -> None:
    if api in _COUNTED and call.entrypoint != REST:
        service.metrics.request(spec.name, api, call.entrypoint, code, seconds)
    version = spec.version_label or (spec.version.value if spec.HasField("version") else "")
    log_request(call, api, code, seconds, model=spec.name, version=version, signature=spec.signature_name, text=text)


def _asked(request) -> pb.ModelSpec:
    """The model that a request names; an empty spec for one that names none."""
    if isinstance(request, pb.MultiInferenceRequest):
        return request.tasks[0].model_spec if request.tasks else pb.ModelSpec()
    return getattr(request, "model_spec", None) or pb.ModelSpec()


def _answered(response, asked: pb.ModelSpec) -> pb.ModelSpec:
    """The model that answered, with the version and the signature that were meant."""
    if isinstance(response, pb.MultiInferenceResponse):
        return response.results[0].model_spec if response.results else asked
    return getattr(response, "model_spec", None) or asked


def _example_count(sent: pb.Input) -> int:
    kind = sent.WhichOneof("kind")
    return len(getattr(sent, kind).examples) if kind else 0
