"""What a request asks for, and its answer: URLs and JSON on one side, `Service` on the other. No HTTP here."""

import contextlib
import re
import threading
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.rest import _text
from keraslight_serving.server.rest._examples import read_examples
from keraslight_serving.server.rest._json import parse, quote
from keraslight_serving.server.rest._tensors import read_inputs, read_instances
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor

LARGE = 8 * 2**20  # bytes of a body

_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_FLAGS = re.IGNORECASE | re.ASCII
_PREDICTION = re.compile(rf"/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<api>classify|regress|predict)", _FLAGS)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?P<api>/metadata)?", _FLAGS)

_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class TooLarge(StatusError):
    """RESOURCE_EXHAUSTED for a body of more than `limit` bytes, which another try would not mend."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"A request's body must have at most {limit} bytes. Received: more"
        )


class Asked(NamedTuple):
    """What a URL asks for. `api` is predict, classify, regress, status or metadata."""

    api: str
    spec: pb.ModelSpec


def http_status(error: StatusError) -> int:
    """TensorFlow Serving's HTTP status of an error; 413 is ours, as 429 makes clients send the same again."""
    return 413 if isinstance(error, TooLarge) else _HTTP.get(error.code, 500)


def read_url(method: str, path: str) -> Asked:
    """What a request asks for.

    TensorFlow Serving reads URLs in any case, too, but then knows only the lower case of what follows the colon.

    Args:
        method: of HTTP.
        path: as it was sent, still encoded, without the query.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    pattern = {"POST": _PREDICTION, "GET": _STATUS}.get(method)
    found = pattern.fullmatch(path) if pattern else None
    if found is None:
        raise invalid(f"Malformed request: {method} {path}")
    if not found["name"]:
        raise invalid("Missing model name in request.")
    spec = pb.ModelSpec(name=_decode(found["name"], "model name"))
    if found["version"]:
        if int(found["version"][-20:]) >= 2**63 or len(found["version"].lstrip("0")) > 19:
            raise invalid(f"Failed to convert version: {found['version']} to numeric.")
        spec.version.value = int(found["version"])
    if found["label"]:
        spec.version_label = _decode(found["label"], "model version label")
    api = (found["api"] or "status").lower().lstrip("/")
    return Asked(api, spec)


class Handler:
    """Answers requests. Threads share it.

    Args:
        service: answers messages.
        repository: knows the signatures, without which JSON is only numbers.
    """

    def __init__(self, service: Service, repository: Repository) -> None:
        self._service = service
        self._repository = repository
        self._one_large = threading.Lock()

    def answer(self, asked: Asked, body: bytes, call: Call) -> str:
        """The JSON that answers a request.

        Raises:
            StatusError: the answer is an error.
        """
        if asked.api == "predict":
            return self._predict(asked.spec, body, call)
        if asked.api == "classify":
            with self._reading(body, call):
                request = _on_examples(pb.ClassificationRequest, asked.spec, body)
            return _text.classifications(self._service.classify(request, call).result)
        if asked.api == "regress":
            with self._reading(body, call):
                request = _on_examples(pb.RegressionRequest, asked.spec, body)
            return _text.regressions(self._service.regress(request, call).result)
        if asked.api == "metadata":
            request = pb.GetModelMetadataRequest(model_spec=asked.spec, metadata_field=["signature_def"])
            return _text.metadata(self._service.get_model_metadata(request, call))
        return _text.statuses(self._service.get_model_status(pb.GetModelStatusRequest(model_spec=asked.spec), call))

    def _predict(self, spec: pb.ModelSpec, body: bytes, call: Call) -> str:
        with self._reading(body, call):
            request, by_row = self._read_predict(spec, body)
        response = self._service.predict(request, call)
        outputs = {alias: to_array(tensor) for alias, tensor in response.outputs.items()}
        return _text.predictions(outputs) if by_row else _text.outputs_by_name(outputs)

    def _read_predict(self, spec: pb.ModelSpec, body: bytes) -> tuple[pb.PredictRequest, bool]:
        """The request, and whether it came in the row form."""
        document = parse(body)
        _fill_signature(spec, document)
        name = spec.signature_name or methods.DEFAULT_SIGNATURE
        with self._repository.acquire(spec) as (_, servable):
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            infos = dict(servable.signatures[name].inputs)
        if not infos:
            raise invalid(f"Failed to get input map for signature: {spec.signature_name or 'DEFAULT'}")
        by_row = "instances" in document
        if by_row and "inputs" in document:
            raise invalid(
                f"JSON Value: {quote(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
                "keys to exist "
            )
        has_booleans = b"true" in body or b"false" in body
        if by_row:
            instances = document["instances"]
            if not isinstance(instances, list):
                raise invalid(f"JSON Value: {quote(document)} Expecting 'instances' to be an list/array")
            if not instances:
                raise invalid(f"JSON Value: {quote(document)} No values in 'instances' array")
            arrays = read_instances(instances, infos, has_booleans=has_booleans)
        elif "inputs" in document:
            arrays = read_inputs(document["inputs"], infos, has_booleans=has_booleans)
        else:
            raise invalid("Missing 'inputs' or 'instances' key")
        request = pb.PredictRequest(model_spec=spec)
        for alias, array in arrays.items():
            to_tensor(array, content=True, into=request.inputs[alias])
        return request, by_row

    @contextlib.contextmanager
    def _reading(self, body: bytes, call: Call) -> Iterator[None]:
        """Lets one large body at a time become lists.

        They may take twenty times its size (`[[],[],[],...`), and threads that did it side by side all the memory
        there is; nor would they be quicker, as Python reads JSON in one thread at a time.
        """
        if len(body) < LARGE:
            yield
            return
        while not self._one_large.acquire(timeout=0.1):
            call.check()
        try:
            yield
        finally:
            self._one_large.release()


def inflate(body: bytes, limit: int) -> bytes:
    """The content of a gzip body.

    Raises:
        StatusError: INVALID_ARGUMENT: it is no gzip; TooLarge: it has more than `limit` bytes.
    """
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise invalid(f"A request with Content-Encoding: gzip must have a gzip body. Received: {error}") from None
    if len(content) > limit:
        raise TooLarge(limit)
    if not reader.eof:
        raise invalid("A request with Content-Encoding: gzip must have a gzip body. Received: one that is cut off")
    return content


def _on_examples(kind: type, spec: pb.ModelSpec, body: bytes) -> Any:
    document = parse(body)
    _fill_signature(spec, document)
    return kind(model_spec=spec, input=read_examples(document))


def _fill_signature(spec: pb.ModelSpec, document: Mapping[str, Any]) -> None:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quote(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    spec.signature_name = name


def _decode(text: str, what: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise invalid(f"Failed to decode {what}:{text}") from None
