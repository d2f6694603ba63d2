"""The calls of PredictionService and ModelService: what is checked in which order, and what is answered.

Everything here is messages in, messages out; gRPC comes in at the bottom of the file.
"""

import logging
from collections.abc import Callable

import grpc
import numpy as np

from keraslight_serving.server._errors import StatusError, invalid
from keraslight_serving.server._repository import Repository
from keraslight_serving.server._servable import Servable
from keraslight_serving.server._signatures import choose_outputs, find_signature, read_inputs
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import dtype_enum, shape_text, to_tensor

logger = logging.getLogger("keraslight_serving.server")

# Status messages travel in a header, and clients refuse headers of more than 8 KiB. TensorFlow Serving cuts here.
MAX_MESSAGE = 1024


class Service:
    """Answers requests from a repository. All methods raise StatusError for an answer that is an error."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        """Runs a signature on the tensors of the request."""
        _require_model_spec(request)
        with self._repository.acquire(request.model_spec) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            signature = find_signature(servable.signatures, name)
            inputs = read_inputs(signature, request.inputs)
            outputs = choose_outputs(signature, request.output_filter)
            servable.check(name, inputs)
            arrays = servable.run(name, inputs, outputs)
        response = pb.PredictResponse(model_spec=_spec(request.model_spec.name, version, name))
        for alias, array in arrays.items():
            response.outputs[alias].CopyFrom(to_tensor(array))
        return response

    def classify(self, request: pb.ClassificationRequest) -> pb.ClassificationResponse:
        """Runs a signature `inputs` (serialized tf.Examples) -> `classes`, `scores` or both."""
        _require_model_spec(request)
        with self._repository.acquire(request.model_spec) as (version, servable):
            name = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
            signature = servable.signatures.get(name)
            if signature is None:
                raise invalid(f"No signature was found with the name: {name}")
            _check_classification_signature(signature)
            examples = _examples(request.input)
            result = _run_classification(servable, name, signature, examples)
        return pb.ClassificationResponse(model_spec=_spec(request.model_spec.name, version, name), result=result)

    def get_model_metadata(self, request: pb.GetModelMetadataRequest) -> pb.GetModelMetadataResponse:
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

    def get_model_status(self, request: pb.GetModelStatusRequest) -> pb.GetModelStatusResponse:
        """The states of the versions."""
        _require_model_spec(request)
        return pb.GetModelStatusResponse(model_version_status=self._repository.status(request.model_spec))


def _require_model_spec(request) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _spec(name: str, version: int, signature_name: str = "") -> pb.ModelSpec:
    spec = pb.ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    return spec


# ---------------------------------------------------------------- Classify


def _check_classification_signature(signature: pb.SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )


def _examples(sent: pb.Input) -> np.ndarray:
    """The serialized tf.Examples, shape [N]. A shared context is put before each: protobuf merges what is joined."""
    kind = sent.WhichOneof("kind")
    examples = list(getattr(sent, kind).examples) if kind else []
    if not examples:
        raise invalid("Input is empty.")
    if kind == "example_list_with_context":
        context = sent.example_list_with_context.context
        examples = [context + example for example in examples]
    return np.array(examples, object)


def _run_classification(
    servable: Servable, name: str, signature: pb.SignatureDef, examples: np.ndarray
) -> pb.ClassificationResult:
    aliases = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    inputs = {"inputs": examples}
    servable.check(name, inputs)
    outputs = servable.run(name, inputs, aliases)
    for alias, dtype in (("classes", pb.DT_STRING), ("scores", pb.DT_FLOAT)):
        if alias not in outputs:
            continue
        array = outputs[alias]
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if dtype_enum(array.dtype) != dtype:
            raise invalid(
                f"Expected {alias} Tensor of DT_{dtype_name(dtype).upper()}. Got: {dtype_name(dtype_enum(array.dtype))}"
            )
        if len(array) != len(examples):
            raise invalid(f"Expected {alias} output batch size of {len(examples)}. Got: {len(array)}")
    widths = [array.shape[1] for array in outputs.values()]
    if len(set(widths)) > 1:
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}")
    result = pb.ClassificationResult()
    for row in range(len(examples)):
        ranked = result.classifications.add()
        for column in range(widths[0]):
            item = ranked.classes.add()
            if "classes" in outputs:
                item.label = outputs["classes"][row, column].decode(errors="replace")
            if "scores" in outputs:
                item.score = outputs["scores"][row, column]
    return result


# ---------------------------------------------------------------- gRPC


def add_to_server(service: Service, server: grpc.Server) -> None:
    """Registers the calls. All others are answered by grpc: UNIMPLEMENTED."""
    calls = {
        methods.PREDICT: service.predict,
        methods.CLASSIFY: service.classify,
        methods.GET_MODEL_METADATA: service.get_model_metadata,
        methods.GET_MODEL_STATUS: service.get_model_status,
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
        if not context.is_active():
            # The caller gave up while the request waited for a thread: no work for nobody.
            context.abort(grpc.StatusCode.CANCELLED, "The caller is gone")
        try:
            return call(request)
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
