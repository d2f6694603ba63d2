"""The calls of PredictionService and ModelService: what is checked in which order, and what is answered.

Everything here is messages in, messages out; gRPC comes in at the bottom of the file.
"""

import logging
import time
import uuid
from collections.abc import Callable

import grpc

from keraslight_serving.server import _on_examples
from keraslight_serving.server._call import Call
from keraslight_serving.server._config import model_configs
from keraslight_serving.server._errors import StatusError, invalid
from keraslight_serving.server._repository import Repository
from keraslight_serving.server._signatures import choose_outputs, find_signature, read_inputs
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor

logger = logging.getLogger("keraslight_serving.server")

# Status messages travel in a header, and clients refuse headers of more than 8 KiB. TensorFlow Serving cuts here.
MAX_MESSAGE = 1024


class Service:
    """Answers requests from a repository, over whichever protocol they come.

    All methods take a message and the call that it came with, and raise StatusError for an answer that is an error.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Runs a signature on the tensors of the request."""
        _require_model_spec(request)
        with self._repository.acquire(request.model_spec) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            signature = find_signature(servable.signatures, name)
            inputs = read_inputs(signature, request.inputs)
            outputs = choose_outputs(signature, request.output_filter)
            servable.check(name, inputs)
            arrays = servable.run(name, inputs, outputs, call)
        response = pb.PredictResponse(model_spec=_spec(request.model_spec.name, version, name))
        for alias, array in arrays.items():
            response.outputs[alias].CopyFrom(to_tensor(array))
        return response

    def classify(self, request: pb.ClassificationRequest, call: Call) -> pb.ClassificationResponse:
        """Runs a signature `inputs` (serialized tf.Examples) -> `classes`, `scores` or both."""
        _require_model_spec(request)
        with self._repository.acquire(request.model_spec) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            result = _on_examples.classify(servable, name, request.input, call)
        return pb.ClassificationResponse(model_spec=_spec(request.model_spec.name, version, name), result=result)

    def regress(self, request: pb.RegressionRequest, call: Call) -> pb.RegressionResponse:
        """Runs a signature `inputs` (serialized tf.Examples) -> `outputs`, a number for each."""
        _require_model_spec(request)
        with self._repository.acquire(request.model_spec) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            result = _on_examples.regress(servable, name, request.input, call)
        return pb.RegressionResponse(model_spec=_spec(request.model_spec.name, version, name), result=result)

    def multi_inference(self, request: pb.MultiInferenceRequest, call: Call) -> pb.MultiInferenceResponse:
        """Classifies and regresses the same tf.Examples by several signatures of one version.

        Each signature runs on its own. TensorFlow Serving runs all at once, and so refuses signatures that don't share
        their input tensor, as none that TensorFlow 2 saves do.
        """
        first = request.tasks[0].model_spec if request.tasks else pb.ModelSpec()
        response = pb.MultiInferenceResponse()
        with self._repository.acquire(first) as (version, servable):
            tasks = _on_examples.check_tasks(request.tasks, servable)
            for name, task in tasks.items():
                result = response.results.add(model_spec=_spec(first.name, version, name))
                if task.method_name == _on_examples.CLASSIFY:
                    result.classification_result.CopyFrom(_on_examples.classify(servable, name, request.input, call))
                else:
                    result.regression_result.CopyFrom(_on_examples.regress(servable, name, request.input, call))
        return response

    def get_model_metadata(self, request: pb.GetModelMetadataRequest, call: Call) -> pb.GetModelMetadataResponse:
        """Describes all signatures."""
        _require_model_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        with self._repository.acquire(request.model_spec) as (version, servable):
            signatures = pb.SignatureDefMap()
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response = pb.GetModelMetadataResponse(model_spec=_spec(request.model_spec.name, version))
        packed = response.metadata["signature_def"]
        packed.type_url = methods.SIGNATURE_DEF_MAP_URL
        packed.value = signatures.SerializeToString()
        return response

    def get_model_status(self, request: pb.GetModelStatusRequest, call: Call) -> pb.GetModelStatusResponse:
        """The states of the versions."""
        _require_model_spec(request)
        return pb.GetModelStatusResponse(model_version_status=self._repository.status(request.model_spec))

    def reload_config(self, request: pb.ReloadConfigRequest, call: Call) -> pb.ReloadConfigResponse:
        """Serves other models: those of the request, and no others."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._repository.reload(model_configs(request.config.model_config_list), call)
        return pb.ReloadConfigResponse(status=pb.StatusProto())


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
    }
    handlers: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
    for method, call in calls.items():
        handlers.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
            _with_status(method, call),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )
    for name, by_method in handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, by_method),))


def _with_status(method: methods.Method, call: Callable) -> Callable:
    """Turns whatever a call raises into a status, so that no request takes its thread, or the server, with it."""

    def handle(request, context: grpc.ServicerContext):
        remaining = context.time_remaining()
        caller = Call(
            id=uuid.uuid4().hex[:16],
            entrypoint="GRPC",
            deadline=None if remaining is None else time.monotonic() + remaining,
            is_active=context.is_active,
        )
        try:
            caller.check()  # it may have given up while the request waited for a thread
            return call(request, caller)
        except StatusError as error:
            code, text = error.code, error.text
        except Exception as error:
            logger.exception("%s failed", method.name)
            code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        if len(text) > MAX_MESSAGE:
            text = text[:MAX_MESSAGE] + "...TRUNCATED"
        logger.debug("%s: %s %s", method.name, code.name, text)
        return context.abort(code, text)

    return handle
