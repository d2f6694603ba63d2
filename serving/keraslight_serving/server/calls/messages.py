"""The calls as TensorFlow Serving's messages: for gRPC, for warmup records, and for the request log.

Messages become arrays here, once, and arrays become messages, once.
"""

import functools
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.examples import Classes, Examples, Task
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.models.config import model_configs
from keraslight_serving.server.running.signatures import Arrays, Signature, set_text
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import TensorError, to_array, to_tensor

_HasSpec = (
    pb.PredictRequest
    | pb.ClassificationRequest
    | pb.RegressionRequest
    | pb.GetModelMetadataRequest
    | pb.GetModelStatusRequest
)


class Messages:
    """A service that takes and returns messages. Each call is observed.

    All methods take a message and its call, and raise StatusError for a request that fails.

    Args:
        service: Answers.
        tensor_content: Whether Predict returns raw bytes (`tensor_content`) instead of the lists of the dtypes.
    """

    def __init__(self, service: Service, *, tensor_content: bool = False) -> None:
        self._service, self._tensor_content = service, tensor_content

    def predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        asked = read_spec(request.model_spec)
        with self._service.observer.request("Predict", asked, call) as seen:
            read = functools.partial(read_inputs, tensors=request.inputs)
            seen.spec, outputs = self._service.predict(
                _required(request, asked), read, seen.call, request.output_filter
            )
            response = predict_response(seen.spec, outputs, content=self._tensor_content)
            seen.exchange = lambda: (request, response)
        return response

    def classify(self, request: pb.ClassificationRequest, call: Call) -> pb.ClassificationResponse:
        asked = read_spec(request.model_spec)
        with self._service.observer.request("Classify", asked, call) as seen:
            seen.spec, found = self._service.classify(
                _required(request, asked), _read_examples(request.input), seen.call
            )
            response = classification_response(seen.spec, found)
            seen.exchange = lambda: (request, response)
        return response

    def regress(self, request: pb.RegressionRequest, call: Call) -> pb.RegressionResponse:
        asked = read_spec(request.model_spec)
        with self._service.observer.request("Regress", asked, call) as seen:
            seen.spec, found = self._service.regress(
                _required(request, asked), _read_examples(request.input), seen.call
            )
            response = regression_response(seen.spec, found)
            seen.exchange = lambda: (request, response)
        return response

    def multi_inference(self, request: pb.MultiInferenceRequest, call: Call) -> pb.MultiInferenceResponse:
        tasks = [Task(read_spec(task.model_spec), task.method_name) for task in request.tasks]
        asked = tasks[0].spec if tasks else ModelSpec()
        with self._service.observer.request("MultiInference", asked, call) as seen:
            examples = _read_examples(request.input)
            results = self._service.multi_inference(tasks, examples, seen.call)
            response = pb.MultiInferenceResponse()
            for spec, found in results:
                result = response.results.add(model_spec=write_spec(spec))
                if isinstance(found, Classes):
                    _write_classes(found, result.classification_result)
                else:
                    _write_values(found, result.regression_result)
            seen.spec, seen.examples = results[0][0], len(examples.serialized)
            seen.exchange = lambda: (request, response)
        return response

    def get_model_metadata(self, request: pb.GetModelMetadataRequest, call: Call) -> pb.GetModelMetadataResponse:
        asked = read_spec(request.model_spec)
        with self._service.observer.request("GetModelMetadata", asked, call) as seen:
            _required(request, asked)
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != "signature_def":
                    raise invalid(f"Metadata field {field} is not supported")
            seen.spec, signatures = self._service.metadata(asked, seen.call)
            definitions = pb.SignatureDefMap()
            for name, signature in signatures.items():
                definitions.signature_def[name].CopyFrom(signature.definition)
            response = pb.GetModelMetadataResponse(model_spec=write_spec(seen.spec))
            packed = response.metadata["signature_def"]
            packed.type_url = methods.SIGNATURE_DEF_MAP_URL
            packed.value = definitions.SerializeToString()
        return response

    def get_model_status(self, request: pb.GetModelStatusRequest, call: Call) -> pb.GetModelStatusResponse:
        asked = read_spec(request.model_spec)
        with self._service.observer.request("GetModelStatus", asked, call):
            return pb.GetModelStatusResponse(model_version_status=self._service.status(_required(request, asked)))

    def reload_config(self, request: pb.ReloadConfigRequest, call: Call) -> pb.ReloadConfigResponse:
        with self._service.observer.request("HandleReloadConfigRequest", ModelSpec(), call) as seen:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported"
                )
            self._service.reload(model_configs(request.config.model_config_list), seen.call)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        with self._service.observer.request("ListModels", ModelSpec(), call):
            models = [
                pb.ListModelsResponse.Model(name=name, model_version_status=statuses)
                for name, statuses in sorted(self._service.statuses().items())
            ]
        return pb.ListModelsResponse(model=models)


# ---------------------------------------------------------------- messages -> arrays


def read_spec(message: pb.ModelSpec) -> ModelSpec:
    """Reads a ModelSpec."""
    choice = message.WhichOneof("version_choice")
    return ModelSpec(
        message.name,
        message.version.value if choice == "version" else None,
        message.version_label if choice == "version_label" else None,
        message.signature_name,
    )


def read_inputs(signature: Signature, tensors: Mapping[str, pb.TensorProto]) -> dict[str, NDArray[Any]]:
    """Reads the inputs of a Predict request; those that are not sent come from the signature's defaults.

    Raises:
        StatusError: INVALID_ARGUMENT, in TensorFlow Serving's order and with its texts.
    """
    sent, declared, defaults = set(tensors), signature.inputs.keys(), signature.definition.defaults
    if len(sent) > len(declared) or (len(sent) < len(declared) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({set_text(sent)}) != len({set_text(declared)}). "
            f"Sent extra: {set_text(sent - declared)}. Missing but required: {set_text(declared - sent)}."
        )
    arrays = {}
    for alias in declared:
        if alias in sent:
            tensor = tensors[alias]
        elif alias in defaults:
            tensor = defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.definition.inputs[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request {set_text(sent)}, or "
                f"default input alias set: {','.join(sorted(defaults))}"
            )
        try:
            arrays[alias] = to_array(tensor)
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


def _required(request: _HasSpec, asked: ModelSpec) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return asked


# ---------------------------------------------------------------- arrays -> messages


def write_spec(spec: ModelSpec) -> pb.ModelSpec:
    """Writes a ModelSpec."""
    message = pb.ModelSpec(name=spec.name, signature_name=spec.signature)
    if spec.label is not None:
        message.version_label = spec.label
    elif spec.version is not None:
        message.version.value = spec.version
    return message


def predict_request(spec: ModelSpec, inputs: Arrays) -> pb.PredictRequest:
    """Writes a Predict request."""
    request = pb.PredictRequest(model_spec=write_spec(spec))
    for alias, array in inputs.items():
        to_tensor(array, content=True, into=request.inputs[alias])
    return request


def predict_response(spec: ModelSpec, outputs: Arrays, *, content: bool) -> pb.PredictResponse:
    """Writes the response to a Predict request. `content`: as `Messages`' `tensor_content`."""
    response = pb.PredictResponse(model_spec=write_spec(spec))
    for alias, array in outputs.items():
        to_tensor(array, content=content, into=response.outputs[alias])
    return response


def classification_request(spec: ModelSpec, examples: Examples) -> pb.ClassificationRequest:
    """Writes a Classify request."""
    return pb.ClassificationRequest(model_spec=write_spec(spec), input=_write_examples(examples))


def regression_request(spec: ModelSpec, examples: Examples) -> pb.RegressionRequest:
    """Writes a Regress request."""
    return pb.RegressionRequest(model_spec=write_spec(spec), input=_write_examples(examples))


def classification_response(spec: ModelSpec, found: Classes) -> pb.ClassificationResponse:
    """Writes the response to a Classify request."""
    response = pb.ClassificationResponse(model_spec=write_spec(spec))
    _write_classes(found, response.result)
    return response


def regression_response(spec: ModelSpec, found: NDArray[Any]) -> pb.RegressionResponse:
    """Writes the response to a Regress request."""
    response = pb.RegressionResponse(model_spec=write_spec(spec))
    _write_values(found, response.result)
    return response


def _write_examples(examples: Examples) -> pb.Input:
    if examples.context is None:
        return pb.Input(example_list=pb.ExampleList(examples=examples.serialized))
    return pb.Input(
        example_list_with_context=pb.ExampleListWithContext(examples=examples.serialized, context=examples.context)
    )


def _write_classes(found: Classes, result: pb.ClassificationResult) -> None:
    for labels, scores in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        classes = result.classifications.add().classes
        for label, score in zip(labels, scores, strict=True):
            classes.add(label=label.decode(errors="replace"), score=score)


def _write_values(found: NDArray[Any], result: pb.RegressionResult) -> None:
    for value in found.tolist():
        result.regressions.add(value=value)
