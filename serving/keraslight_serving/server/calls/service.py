"""The calls of PredictionService and ModelService: what is checked in which order, and what is answered.

Everything here is messages in, messages out; gRPC comes in at the bottom of the file.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from google.protobuf.message import DecodeError

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.calls import examples as _on_examples
from keraslight_serving.server.calls.observe import observed
from keraslight_serving.server.models.config import model_configs
from keraslight_serving.server.models.protocols import ServedModels
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.running.signatures import choose_outputs, find_signature, read_inputs
from keraslight_serving.server.telemetry.logging import REQUEST_ID, log_request, request_id
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.request_log import RequestLog
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor

logger = logging.getLogger("keraslight_serving.server")

# Status messages travel in a header, and clients refuse headers of more than 8 KiB. TensorFlow Serving cuts here.
MAX_MESSAGE = 1024

# Seconds. Calls without a deadline have one in some hundred thousand years, says grpc; no lock can wait for that long.
YEAR = 365 * 86_400

_KINDS = {_on_examples.CLASSIFY: "classification", _on_examples.REGRESS: "regression"}
_METHODS = ("tensorflow/serving/predict", *_KINDS)


class Service:
    """Answers requests from a repository, over whichever protocol they come.

    All methods take a message and the call that it came with, and raise StatusError, and nothing else, for an answer
    that is an error. They are counted and logged here, once for all protocols.

    Args:
        repository: of the models.
        metrics: where requests are counted. Default: metrics of its own.
        request_log: writes those of models with a `logging_config`. Default: none are written.
        check_methods: answer each call only by signatures whose `method_name` is made for it.
        tensor_content: Predict answers with raw bytes (`tensor_content`) rather than with the lists of the dtypes.
        slots: requests that are worked on at once. Others wait for as long as their caller does, and no longer: what
            has expired meanwhile is not run.
    """

    def __init__(
        self,
        repository: ServedModels,
        *,
        metrics: Metrics | None = None,
        request_log: RequestLog | None = None,
        check_methods: bool = False,
        tensor_content: bool = False,
        slots: int = 64,
    ) -> None:
        self._repository = repository
        self.metrics = metrics or Metrics()
        self._request_log = request_log
        self._check_methods = check_methods
        self._tensor_content = tensor_content
        self._slots = threading.Semaphore(slots)
        self._closing = False

    def close(self) -> None:
        """Refuses what comes from now on: UNAVAILABLE, which clients send again to another server."""
        self._closing = True

    @observed("Predict")
    def predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Runs a signature on the tensors of the request."""
        _require_model_spec(request)
        with self._acquire(request.model_spec, call) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            signature = find_signature(servable.signatures, name)
            if self._check_methods and signature.method_name not in _METHODS:
                raise StatusError(
                    grpc.StatusCode.INTERNAL,
                    f"Expected prediction signature method_name to be one of {{{', '.join(_METHODS)}}}. "
                    f"Was: {signature.method_name}",
                )
            inputs = read_inputs(signature, request.inputs)
            outputs = choose_outputs(signature, request.output_filter)
            servable.check(name, inputs)
            arrays = servable.run(name, inputs, outputs, call)
        response = pb.PredictResponse(model_spec=_spec(request.model_spec.name, version, name))
        for alias, array in arrays.items():
            to_tensor(array, content=self._tensor_content, into=response.outputs[alias])
        return response

    @observed("Classify")
    def classify(self, request: pb.ClassificationRequest, call: Call) -> pb.ClassificationResponse:
        """Runs a signature `inputs` (serialized tf.Examples) -> `classes`, `scores` or both."""
        _require_model_spec(request)
        with self._acquire(request.model_spec, call) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            self._check_method(servable, name, _on_examples.CLASSIFY)
            result = _on_examples.classify(servable, name, request.input, call)
        return pb.ClassificationResponse(model_spec=_spec(request.model_spec.name, version, name), result=result)

    @observed("Regress")
    def regress(self, request: pb.RegressionRequest, call: Call) -> pb.RegressionResponse:
        """Runs a signature `inputs` (serialized tf.Examples) -> `outputs`, a number for each."""
        _require_model_spec(request)
        with self._acquire(request.model_spec, call) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            self._check_method(servable, name, _on_examples.REGRESS)
            result = _on_examples.regress(servable, name, request.input, call)
        return pb.RegressionResponse(model_spec=_spec(request.model_spec.name, version, name), result=result)

    @observed("MultiInference")
    def multi_inference(self, request: pb.MultiInferenceRequest, call: Call) -> pb.MultiInferenceResponse:
        """Classifies and regresses the same tf.Examples by several signatures of one version.

        Each signature runs on its own. TensorFlow Serving runs all at once, and so refuses signatures that don't share
        their input tensor, as none that TensorFlow 2 saves do.
        """
        first = request.tasks[0].model_spec if request.tasks else pb.ModelSpec()
        response = pb.MultiInferenceResponse()
        with self._acquire(first, call) as (version, servable):
            tasks = _on_examples.check_tasks(request.tasks, servable)
            for name, task in tasks.items():
                self._check_method(servable, name, task.method_name)
            for name, task in tasks.items():
                result = response.results.add(model_spec=_spec(first.name, version, name))
                if task.method_name == _on_examples.CLASSIFY:
                    result.classification_result.CopyFrom(_on_examples.classify(servable, name, request.input, call))
                else:
                    result.regression_result.CopyFrom(_on_examples.regress(servable, name, request.input, call))
        return response

    @observed("GetModelMetadata")
    def get_model_metadata(self, request: pb.GetModelMetadataRequest, call: Call) -> pb.GetModelMetadataResponse:
        """Describes all signatures."""
        _require_model_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        with self._acquire(request.model_spec, call) as (version, servable):
            signatures = pb.SignatureDefMap()
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response = pb.GetModelMetadataResponse(model_spec=_spec(request.model_spec.name, version))
        packed = response.metadata["signature_def"]
        packed.type_url = methods.SIGNATURE_DEF_MAP_URL
        packed.value = signatures.SerializeToString()
        return response

    @observed("GetModelStatus")
    def get_model_status(self, request: pb.GetModelStatusRequest, call: Call) -> pb.GetModelStatusResponse:
        """The states of the versions."""
        _require_model_spec(request)
        return pb.GetModelStatusResponse(model_version_status=self._repository.status(request.model_spec))

    @observed("HandleReloadConfigRequest")
    def reload_config(self, request: pb.ReloadConfigRequest, call: Call) -> pb.ReloadConfigResponse:
        """Serves other models: those of the request, and no others."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._repository.reload(model_configs(request.config.model_config_list), call)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    @observed("ListModels")
    def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """The models that are served, or should be, and the states of their versions."""
        models = [
            pb.ListModelsResponse.Model(name=name, model_version_status=statuses)
            for name, statuses in sorted(self._repository.statuses().items())
        ]
        return pb.ListModelsResponse(model=models)

    def log_exchange(self, api: str, spec: pb.ModelSpec, request, response) -> None:
        """Hands an answered request to the request log, if its model has one."""
        if self._request_log is not None:
            config = self._repository.logging(spec.name)
            if config is not None:
                self._request_log.offer(config, api, spec, request, response)

    @contextlib.contextmanager
    def _acquire(self, spec: pb.ModelSpec, call: Call) -> Iterator[tuple[int, Servable]]:
        """As `Repository.acquire`, once it is this request's turn."""
        if self._closing:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down")
        seconds = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
        came = self._slots.acquire(timeout=seconds)
        try:
            call.check()
            with self._repository.acquire(spec) as found:
                yield found
        finally:
            if came:
                self._slots.release()

    def _check_method(self, servable: Servable, name: str, expected: str) -> None:
        found = servable.signatures.get(name)
        if self._check_methods and found is not None and found.method_name != expected:
            kind = _KINDS[expected]
            raise invalid(f"Expected {kind} signature method_name to be {expected}. Was: {found.method_name}")


def _require_model_spec(request) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _spec(name: str, version: int, signature_name: str = "") -> pb.ModelSpec:
    spec = pb.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    return spec


# ---------------------------------------------------------------- gRPC


def add_to_server(service: Service, server: grpc.Server) -> None:
    """Registers the calls. All others are answered by grpc: UNIMPLEMENTED."""
    calls = {
        methods.PREDICT: service.predict,
        methods.CLASSIFY: service.classify,
        methods.REGRESS: service.regress,
        methods.MULTI_INFERENCE: service.multi_inference,
        methods.GET_MODEL_METADATA: service.get_model_metadata,
        methods.GET_MODEL_STATUS: service.get_model_status,
        methods.HANDLE_RELOAD_CONFIG: service.reload_config,
        methods.LIST_MODELS: service.list_models,
    }
    handlers: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for method, call in calls.items():
        # Bytes in and out: left to grpc, a message that can't be parsed or written would fill the log with a traceback.
        handlers.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
            _with_status(method, call)
        )
    for name, by_method in handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, by_method),))


def _with_status(method: methods.Method, answer: Callable) -> Callable:
    """Turns whatever a call raises into a status, so that no request takes its thread, or the server, with it.

    The id of the request goes back to the caller as trailing metadata, `x-request-id`: the one that came in the
    metadata, else one made here.
    """

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        remaining = context.time_remaining()
        call = Call(
            id=request_id(dict(context.invocation_metadata()).get(REQUEST_ID)),
            entrypoint="GRPC",
            deadline=None if remaining is None or remaining > YEAR else time.monotonic() + remaining,
            is_active=context.is_active,
            peer=context.peer(),
        )
        context.set_trailing_metadata(((REQUEST_ID, call.id),))
        try:
            return answer(_parse(method, data, call), call).SerializeToString()
        except StatusError as error:
            code, text = error.code, error.text
        except Exception as error:
            logger.exception("%s failed", method.name)
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        if len(text) > MAX_MESSAGE:
            text = text[:MAX_MESSAGE] + "...TRUNCATED"
        return context.abort(code, text)

    return handle


def _parse(method: methods.Method, data: bytes, call: Call):
    """Raises INTERNAL with the text of grpc's Python servers; TensorFlow Serving's C++ gives this code without one."""
    try:
        return method.request.FromString(data)
    except DecodeError:
        error = StatusError(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
        log_request(call, method.name, error.code.name, 0, text=error.text, callers_fault=True)
        raise error from None
