"""The calls as TensorFlow Serving's messages: for gRPC, for warmup records, and for the request log.

Messages become arrays here, once, and arrays become messages, once.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message
from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.examples import Classes, Examples, Task
from keraslight_serving.server.calls.observe import Observed
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.models.config import model_configs
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature, set_text
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import MAX_BYTES, TensorError, to_array, to_tensor

AnyMethod = methods.Method[Any, Any]

_RUNS = {methods.PREDICT, methods.CLASSIFY, methods.REGRESS, methods.MULTI_INFERENCE}  # the calls that run signatures


class Messages:
    """A service that takes and returns messages. `calls` has the handler of each method, for a request being observed.

    `tensor_content`: whether Predict returns raw bytes instead of the lists of the dtypes. `max_bytes`: the largest
    tensor that a request may describe, as one value repeated to a shape.
    """

    def __init__(self, service: Service, *, tensor_content: bool = False, max_bytes: int = MAX_BYTES) -> None:
        self._service, self._tensor_content, self._max_bytes = service, tensor_content, max_bytes
        self.calls: dict[AnyMethod, Callable[[Any, Observed], Message]] = {
            methods.PREDICT: self._predict,
            methods.CLASSIFY: self._classify,
            methods.REGRESS: self._regress,
            methods.MULTI_INFERENCE: self._multi_inference,
            methods.GET_MODEL_METADATA: self._get_model_metadata,
            methods.GET_MODEL_STATUS: self._get_model_status,
            methods.HANDLE_RELOAD_CONFIG: self._reload_config,
            methods.LIST_MODELS: self._list_models,
        }

    def answer(self, method: AnyMethod, request: Any, call: Call) -> Message:
        """Answers a request of one of the methods, or raises StatusError; the service's observer counts and logs it."""
        sent = request.tasks[0] if method is methods.MULTI_INFERENCE and request.tasks else request
        spec = getattr(sent, "model_spec", None)  # some methods have none
        asked = ModelSpec() if spec is None else read_spec(spec)
        with self._service.observer.request(method.name, asked, call) as seen:
            if spec is not None and sent is request and not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            with self._service.slot(asked, call) if method in _RUNS else contextlib.nullcontext():
                response = self.calls[method](request, seen)
            seen.exchange = lambda: (request, response)
        return response

    def _predict(self, request: pb.PredictRequest, seen: Observed) -> pb.PredictResponse:
        read = functools.partial(read_inputs, tensors=request.inputs, max_bytes=self._max_bytes)
        seen.spec, outputs = self._service.predict(seen.spec, read, seen.call, request.output_filter)
        return predict_response(seen.spec, outputs, content=self._tensor_content)

    def _classify(self, request: pb.ClassificationRequest, seen: Observed) -> pb.ClassificationResponse:
        seen.spec, found = self._service.classify(seen.spec, _read_examples(request.input), seen.call)
        return classification_response(seen.spec, found)

    def _regress(self, request: pb.RegressionRequest, seen: Observed) -> pb.RegressionResponse:
        seen.spec, found = self._service.regress(seen.spec, _read_examples(request.input), seen.call)
        return regression_response(seen.spec, found)

    def _multi_inference(self, request: pb.MultiInferenceRequest, seen: Observed) -> pb.MultiInferenceResponse:
        tasks = [Task(read_spec(task.model_spec), task.method_name) for task in request.tasks]
        examples = _read_examples(request.input)
        response = pb.MultiInferenceResponse()
        for spec, found in self._service.multi_inference(tasks, examples, seen.call):
            result = response.results.add(model_spec=write_spec(spec))
            if isinstance(found, Classes):
                _write_classes(found, result.classification_result)
            else:
                _write_values(found, result.regression_result)
        seen.spec, seen.examples = read_spec(response.results[0].model_spec), len(examples.serialized)
        return response

    def _get_model_metadata(self, request: pb.GetModelMetadataRequest, seen: Observed) -> pb.GetModelMetadataResponse:
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        seen.spec, signatures = self._service.metadata(seen.spec, seen.call)
        definitions = pb.SignatureDefMap()
        for name, signature in signatures.items():
            definitions.signature_def[name].CopyFrom(signature.definition)
        response = pb.GetModelMetadataResponse(model_spec=write_spec(seen.spec))
        packed = response.metadata["signature_def"]
        packed.type_url, packed.value = methods.SIGNATURE_DEF_MAP_URL, definitions.SerializeToString()
        return response

    def _get_model_status(self, request: pb.GetModelStatusRequest, seen: Observed) -> pb.GetModelStatusResponse:
        return pb.GetModelStatusResponse(model_version_status=self._service.models.status(seen.spec))

    def _reload_config(self, request: pb.ReloadConfigRequest, seen: Observed) -> pb.ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._service.models.reload(model_configs(request.config.model_config_list), seen.call)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    def _list_models(self, request: pb.ListModelsRequest, seen: Observed) -> pb.ListModelsResponse:
        response = pb.ListModelsResponse()
        for name, found in sorted(self._service.models.statuses().items()):
            response.model.add(name=name, model_version_status=found)
        return response


def read_spec(message: pb.ModelSpec) -> ModelSpec:
    choice = message.WhichOneof("version_choice")
    return ModelSpec(
        message.name,
        message.version.value if choice == "version" else None,
        message.version_label if choice == "version_label" else None,
        message.signature_name,
    )


def read_inputs(signature: Signature, tensors: Mapping[str, pb.TensorProto], max_bytes: int = MAX_BYTES) -> Outputs:
    """Reads a Predict request's inputs, or their signature's defaults. The order of errors is TensorFlow Serving's."""
    sent, declared, defaults = set(tensors), signature.inputs.keys(), signature.definition.defaults
    if len(sent) > len(declared) or (len(sent) < len(declared) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({set_text(sent)}) != len({set_text(declared)}). "
            f"Sent extra: {set_text(sent - declared)}. Missing but required: {set_text(declared - sent)}."
        )
    arrays = {}
    for alias in declared:
        if alias not in sent and alias not in defaults:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.definition.inputs[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request {set_text(sent)}, or "
                f"default input alias set: {','.join(sorted(defaults))}"
            )
        try:
            arrays[alias] = to_array(tensors[alias] if alias in sent else defaults[alias], max_bytes=max_bytes)
        except TensorError:
            raise invalid(f"tensor parsing error: {alias}") from None
    if not sent <= declared:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(sent & declared))}, "
            f"request input: {','.join(sorted(sent))}"
        )
    return arrays


def _read_examples(sent: pb.Input) -> Examples:
    kind = sent.WhichOneof("kind")
    if kind == "example_list":
        return Examples(sent.example_list.examples)
    if kind == "example_list_with_context":
        return Examples(sent.example_list_with_context.examples, sent.example_list_with_context.context)
    return Examples()


def write_spec(spec: ModelSpec) -> pb.ModelSpec:
    message = pb.ModelSpec(name=spec.name, signature_name=spec.signature)
    if spec.label is not None:
        message.version_label = spec.label
    elif spec.version is not None:
        message.version.value = spec.version
    return message


def predict_request(spec: ModelSpec, inputs: Arrays) -> pb.PredictRequest:
    request = pb.PredictRequest(model_spec=write_spec(spec))
    for alias, array in inputs.items():
        to_tensor(array, content=True, into=request.inputs[alias])
    return request


def predict_response(spec: ModelSpec, outputs: Arrays, *, content: bool) -> pb.PredictResponse:
    """Writes the response to a Predict request. `content`: as `Messages`' `tensor_content`."""
    response = pb.PredictResponse(model_spec=write_spec(spec))
    for alias, array in outputs.items():
        try:
            to_tensor(array, content=content, into=response.outputs[alias])
        except TensorError as error:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Can't return {alias}: {error}") from None
    return response


def write_examples(examples: Examples) -> pb.Input:
    """Writes the input of a Classify or Regress request."""
    if examples.context is None:
        return pb.Input(example_list={"examples": examples.serialized})
    return pb.Input(example_list_with_context={"examples": examples.serialized, "context": examples.context})


def classification_response(spec: ModelSpec, found: Classes) -> pb.ClassificationResponse:
    response = pb.ClassificationResponse(model_spec=write_spec(spec))
    _write_classes(found, response.result)
    return response


def regression_response(spec: ModelSpec, found: NDArray[Any]) -> pb.RegressionResponse:
    response = pb.RegressionResponse(model_spec=write_spec(spec))
    _write_values(found, response.result)
    return response


def _write_classes(found: Classes, result: pb.ClassificationResult) -> None:
    for labels, scores in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        classes = result.classifications.add().classes
        for label, score in zip(labels, scores, strict=True):
            classes.add(label=label.decode(errors="replace"), score=score)


def _write_values(found: NDArray[Any], result: pb.RegressionResult) -> None:
    for value in found.tolist():
        result.regressions.add(value=value)
