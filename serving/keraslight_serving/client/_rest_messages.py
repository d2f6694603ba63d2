"""The client's calls, translated to TensorFlow Serving's REST API. No I/O here, and numpy only for numeric tensors.

The methods are generators that yield HTTP requests, are sent the responses, and return a protobuf message, so that the
blocking and the asyncio channel share them. What REST omits is restored: `output_filter`, the names of single outputs,
and dtypes, which are in the metadata, requested once. Predict doesn't return the version, so a new one is noticed only
when it rejects an input.
"""

import base64
import itertools
import json
import math
import urllib.parse
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf import json_format

from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.dtypes import DTYPES, dtype_name

T = TypeVar("T")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_BY_NAME = {code.name: code.value[0] for code in grpc.StatusCode}


class RestError(grpc.RpcError):
    """A failed REST call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class Ask(NamedTuple):
    """An HTTP request, a POST if it has a body. The response is its status and body."""

    path: str
    body: bytes | None = None


Asking = Generator[Ask, tuple[int, bytes], T]
Dtypes = Mapping[str, pb.DataType]


class Translator:
    """The calls of one server. Threads may share it."""

    def __init__(self) -> None:
        self._outputs: dict[str, dict[str, Dtypes]] = {}  # path of the model -> signature -> output -> dtype

    def call(self, path: str, request: Any) -> Asking[Any]:
        """Makes a call, given by its gRPC path. Raises RestError if the response is an error, or invalid."""
        match path:
            case methods.PREDICT.path:
                return self._predict(request)
            case methods.GET_MODEL_METADATA.path:
                return self._metadata(request)
            case methods.GET_MODEL_STATUS.path:
                return _status(request)
        raise RestError(grpc.StatusCode.UNIMPLEMENTED, f"The client doesn't make the call {path} over REST")

    def _predict(self, request: pb.PredictRequest) -> Asking[pb.PredictResponse]:
        model = _model_path(request.model_spec)
        signature = request.model_spec.signature_name or methods.DEFAULT_SIGNATURE
        known = self._outputs.get(model)  # read once: another thread's failure may delete it
        if known is None:
            _, known = yield from self._describe(request.model_spec)
        inputs = {name: _values(tensor) for name, tensor in request.inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
        try:
            document = _read(*(yield Ask(f"{model}:predict", body)))
        except RestError:
            self._outputs.pop(model, None)  # may be outdated
            raise
        named = _name(document.get("outputs"), known.get(signature, {}))
        if not named:
            _, known = yield from self._describe(request.model_spec)
            named = _name(document.get("outputs"), known.get(signature, {}))
        if not named:
            raise _unreadable(f"outputs that signature {signature!r} doesn't have")
        missing = sorted(set(request.output_filter) - set(named))
        if missing:
            expected = f"Outputs expected to be in the set {{{','.join(sorted(named))}}}."
            text = f"output tensor alias not found in signature: {missing[0]} {expected}"
            raise RestError(grpc.StatusCode.INVALID_ARGUMENT, text)
        response = pb.PredictResponse(model_spec=pb.ModelSpec(name=request.model_spec.name, signature_name=signature))
        dtypes = known[signature]
        for name in request.output_filter or named:
            try:
                response.outputs[name].CopyFrom(_tensor(named[name], dtypes[name]))
            except (TypeError, ValueError) as error:
                raise _unreadable(f"output {name!r}, {error}") from error
        return response

    def _metadata(self, request: pb.GetModelMetadataRequest) -> Asking[pb.GetModelMetadataResponse]:
        response, _ = yield from self._describe(request.model_spec)
        return response

    def _describe(self, asked: pb.ModelSpec) -> Asking[tuple[pb.GetModelMetadataResponse, dict[str, Dtypes]]]:
        """The metadata, and the dtypes of the outputs by signature and name, which later calls need."""
        model = _model_path(asked)
        document = _read(*(yield Ask(f"{model}/metadata")))
        try:
            spec = document["model_spec"]
            signatures = json_format.ParseDict(
                document["metadata"]["signature_def"], pb.SignatureDefMap(), ignore_unknown_fields=True
            )
            response = pb.GetModelMetadataResponse(model_spec=pb.ModelSpec(name=spec["name"]))
            response.model_spec.version.value = int(spec["version"])
        except (KeyError, TypeError, ValueError, json_format.ParseError) as error:
            raise _unreadable(f"{type(error).__name__}: {error}") from error
        packed = response.metadata["signature_def"]
        packed.type_url, packed.value = methods.SIGNATURE_DEF_MAP_URL, signatures.SerializeToString()
        outputs: dict[str, Dtypes] = {
            name: {alias: info.dtype for alias, info in signature.outputs.items()}
            for name, signature in signatures.signature_def.items()
        }
        self._outputs[model] = outputs
        return response, outputs


def _name(outputs: Any, dtypes: Dtypes) -> dict[str, Any] | None:
    """The outputs by name; None if they don't match what is known of the signature."""
    if isinstance(outputs, dict) and outputs.keys() == dtypes.keys():
        return outputs
    if outputs is None or len(dtypes) != 1 or (isinstance(outputs, dict) and not _is_base64(outputs)):
        return None
    return {next(iter(dtypes)): outputs}


def _status(request: pb.GetModelStatusRequest) -> Asking[pb.GetModelStatusResponse]:
    document = _read(*(yield Ask(_model_path(request.model_spec))))
    response = pb.GetModelStatusResponse()
    try:
        for version in document["model_version_status"]:
            found = response.model_version_status.add(
                version=int(version["version"]), state=pb.ModelVersionStatus.State.Value(version["state"])
            )
            found.status.error_code = _BY_NAME.get(version["status"]["error_code"], grpc.StatusCode.UNKNOWN.value[0])
            found.status.error_message = version["status"]["error_message"]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}") from error
    return response


def _model_path(spec: pb.ModelSpec) -> str:
    path = f"/v1/models/{urllib.parse.quote(spec.name, safe='')}"
    match spec.WhichOneof("version_choice"):
        case "version":
            return f"{path}/versions/{spec.version.value}"
        case "version_label":
            return f"{path}/labels/{urllib.parse.quote(spec.version_label, safe='')}"
    return path


def _read(status: int, body: bytes) -> dict[str, Any]:
    """The JSON object of a response. Raises RestError if it is an error."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if status == 200:
        if not isinstance(document, dict):
            raise _unreadable(f"{body[:100]!r}")
        return document
    text = document.get("error") if isinstance(document, dict) else None
    if not isinstance(text, str) or not text:
        text = f"HTTP status {status}: {body[:200].decode(errors='replace')}"
    code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
    if status == 400 and text.startswith("Serving signature name: "):
        code = grpc.StatusCode.FAILED_PRECONDITION  # as over gRPC; HTTP has 400 for both
    if status == 413:
        text = f"Sent message larger than max: {text}"  # so that the client doesn't send it again
    raise RestError(code, text)


def _unreadable(received: str) -> RestError:
    text = f"The server must answer as TensorFlow Serving's REST API. Received: {received}"
    return RestError(grpc.StatusCode.INTERNAL, text)


def _values(tensor: pb.TensorProto) -> Any:
    """A tensor as nested lists, with strings in base64, which can hold any bytes."""
    if tensor.dtype != pb.DT_STRING or tensor.tensor_content:
        from keraslight_serving.wire.tensors import to_array

        array = to_array(tensor)
        if tensor.dtype != pb.DT_STRING:
            return array.tolist()
        flat: list[Any] = array.ravel().tolist()
    else:
        flat = list(tensor.string_val)
    nested: list[Any] = [{"b64": base64.b64encode(item).decode()} for item in flat]
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    for place in reversed(range(len(sizes))):
        count, size = math.prod(sizes[:place]), sizes[place]
        nested = [nested[start * size : (start + 1) * size] for start in range(count)]
    return nested[0]


def _tensor(value: Any, dtype: pb.DataType) -> pb.TensorProto:
    """Nested lists as a tensor. Raises ValueError or TypeError if lengths differ or a value is not of the dtype."""
    shape: list[int] = []
    flat: list[Any] = [value]
    while flat and isinstance(flat[0], list):
        if len(sizes := {len(item) for item in flat}) > 1:
            raise ValueError(f"lists of different lengths, {sorted(sizes)}")
        shape += sizes
        flat = list(itertools.chain.from_iterable(flat))
    if dtype not in DTYPES or dtype in (pb.DT_HALF, pb.DT_UINT16):
        raise ValueError(f"a dtype that JSON can't hold, {dtype_name(dtype)}")
    tensor = pb.TensorProto(dtype=dtype)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, DTYPES[dtype].field).extend(map(_to_bytes, flat) if dtype == pb.DT_STRING else flat)
    return tensor


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if _is_base64(value):
        return base64.b64decode(value["b64"])
    raise ValueError(f"{value!r} is not a string")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)
