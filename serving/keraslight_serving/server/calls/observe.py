"""Counts and logs requests of both protocols, and turns unexpected exceptions into INTERNAL."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.telemetry.logging import log_request
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.request_log import RequestLog
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

_COUNTED = ("Predict", "Classify", "Regress")  # TensorFlow Serving doesn't count the other calls
REST = "REST"  # counted by RestApp, which also sees the bodies that never become a request


@dataclass(slots=True)
class Observed:
    """A request that is being observed. Its handler sets all attributes but `call`."""

    call: Call  # to pass on: it reports runs of engines to the metrics
    spec: ModelSpec  # the requested model at first, then the one that answered
    exchange: Callable[[], tuple[Message, Message]] | None = None  # returns request and response, for the request log
    examples: int | None = None  # number of tf.Examples of a MultiInference request


class Observer:
    """Counts and logs requests. Those of models with a `logging_config` go to the request log, too."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        request_log: RequestLog | None = None,
        logging_config: Callable[[str], pb.LoggingConfig | None] = lambda model: None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._request_log, self._logging_config = request_log, logging_config

    @contextlib.contextmanager
    def request(self, api: str, spec: ModelSpec, call: Call) -> Iterator[Observed]:
        """Observes one request, everything inside the `with`; `api` is the call's name in PredictionService.

        Raises the StatusError raised inside, or INTERNAL for any other exception, whose traceback is logged.
        """
        began = time.perf_counter()
        # Like _replace(on_run=...), which takes 3 us longer
        seen = Observed(Call(*call[:-1], functools.partial(self.metrics.run, spec.name, api)), spec)
        try:
            call.check()  # the caller may have given up while the request waited for a thread
            yield seen
        except Exception as error:
            if not isinstance(error, StatusError):
                logger.exception("%s failed", api)
                error = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            self._end(api, call, seen.spec, error.code.name, time.perf_counter() - began, error.text)
            raise error
        self._end(api, call, seen.spec, "OK", time.perf_counter() - began)
        if seen.examples is not None:
            self.metrics.examples(spec.name, seen.examples)
        if self._request_log is not None and seen.exchange is not None:
            config = self._logging_config(seen.spec.name)
            if config is not None:
                self._request_log.offer(config, api, seen.spec, seen.exchange)

    def _end(self, api: str, call: Call, spec: ModelSpec, code: str, seconds: float, text: str = "") -> None:
        if api in _COUNTED and call.entrypoint != REST:
            self.metrics.request(spec.name, api, call.entrypoint, code, seconds)
        version = spec.label or ("" if spec.version is None else spec.version)
        log_request(call, api, code, seconds, model=spec.name, version=version, signature=spec.signature, text=text)
