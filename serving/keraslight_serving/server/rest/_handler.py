"""From URLs and JSON to `Service` and its arrays, and back. HTTP is in `_app.py`."""

import contextlib
import re
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls import messages
from keraslight_serving.server.calls.observe import Observed
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.rest import _text
from keraslight_serving.server.rest._examples import read_examples
from keraslight_serving.server.rest._json import parse, quote
from keraslight_serving.server.rest._tensors import read_inputs, read_instances
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature, UnknownSignature
from keraslight_serving.wire import methods, serving_pb2 as pb

LARGE = 8 * 2**20  # bytes of a body

_PIECE = 2**20  # bytes that are inflated at a time

_WITH_BODY = ("predict", "classify", "regress")

_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_FLAGS = re.IGNORECASE | re.ASCII
_PREDICTION = re.compile(rf"/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<api>classify|regress|predict)", _FLAGS)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?P<api>/metadata)?", _FLAGS)

_SIGNATURE = re.compile(rb'"signature_name"\s*:\s*"([^"\\]*)"')

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
    """RESOURCE_EXHAUSTED for a body of more than `limit` bytes; sending it again would not help."""

    def __init__(self, limit: int) -> None:
        text = f"A request's body must have at most {limit} bytes. Received: more"
        super().__init__(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


class Asked(NamedTuple):
    """What a URL requests. `api`: predict, classify, regress, status or metadata."""

    api: str
    spec: ModelSpec


def http_status(error: StatusError) -> int:
    """Returns TensorFlow Serving's HTTP status of an error. 413 is ours, since clients retry a 429."""
    return 413 if isinstance(error, TooLarge) else _HTTP.get(error.code, 500)


def read_url(method: str, path: str) -> Asked:
    """Parses a method and a path as it was sent, still encoded, without the query. Raises INVALID_ARGUMENT.

    The case of URLs is ignored. TensorFlow Serving ignores it too, but then knows what follows the colon only in lower
    case.
    """
    pattern = {"POST": _PREDICTION, "GET": _STATUS}.get(method)
    found = pattern.fullmatch(path) if pattern else None
    if found is None:
        raise invalid(f"Malformed request: {method} {path}")
    if not found["name"]:
        raise invalid("Missing model name in request.")
    name = _decode(found["name"], "model name")
    version, label = found["version"], found["label"]
    if version and (int(version[-20:]) >= 2**63 or len(version.lstrip("0")) > 19):
        raise invalid(f"Failed to convert version: {version} to numeric.")
    spec = ModelSpec(name, int(version) if version else None, _decode(label, "model version label") if label else None)
    return Asked((found["api"] or "status").lower().lstrip("/"), spec)


class Handler:
    """Answers requests of many threads. `tensor_content`: how the request log gets answers, see `Messages`."""

    def __init__(self, service: Service, *, tensor_content: bool = False) -> None:
        self._service, self._tensor_content = service, tensor_content
        self._one_large = threading.Lock()
        self._calls = {
            "predict": (methods.PREDICT.name, self._predict),
            "classify": (methods.CLASSIFY.name, self._classify),
            "regress": (methods.REGRESS.name, self._regress),
            "metadata": (methods.GET_MODEL_METADATA.name, self._metadata),
            "status": (methods.GET_MODEL_STATUS.name, self._status),
        }

    def answer(self, asked: Asked, body: bytes | bytearray, call: Call) -> str:
        """Returns the JSON that answers a request, or raises StatusError."""
        api, answer = self._calls[asked.api]
        with contextlib.ExitStack() as reading, self._service.observer.request(api, asked.spec, call) as seen:
            if asked.api not in _WITH_BODY:
                return answer(_Sent({}), seen, reading)
            # The slot comes first: parsed bodies are much larger, and few should exist at once.
            with self._service.slot(asked.spec._replace(signature=_probable_signature(body)), call):
                sent = reading.enter_context(self._read(body, call))
                name = sent.document.get("signature_name", "")
                if not isinstance(name, str):
                    raise invalid(
                        f"JSON Value: {quote(sent.document)} not formatted correctly. "
                        "'signature_name' key must be a string value."
                    )
                seen.spec = asked.spec._replace(signature=name)
                return answer(sent, seen, reading)

    def _predict(self, sent: "_Sent", seen: Observed, reading: contextlib.ExitStack) -> str:
        spec, write = seen.spec, _text.predictions if "instances" in sent.document else _text.outputs_by_name
        inputs: Outputs = {}

        def read(signature: Signature) -> Arrays:
            with reading:  # which frees the document before the model runs
                inputs.update(_read_arrays(sent, spec, signature))
            return inputs

        try:
            seen.spec, outputs = self._service.predict(spec, read, seen.call)
        except UnknownSignature:
            name = spec.signature or methods.DEFAULT_SIGNATURE
            raise invalid(f'Serving signature name: "{name}" not found in signature def') from None
        seen.exchange = lambda: (
            messages.predict_request(spec, inputs),
            messages.predict_response(seen.spec, outputs, content=self._tensor_content),
        )
        return write(outputs)

    def _classify(self, sent: "_Sent", seen: Observed, reading: contextlib.ExitStack) -> str:
        with reading:
            spec, examples = seen.spec, read_examples(sent.document)
        seen.spec, found = self._service.classify(spec, examples, seen.call)
        seen.exchange = lambda: (
            pb.ClassificationRequest(model_spec=messages.write_spec(spec), input=messages.write_examples(examples)),
            messages.classification_response(seen.spec, found),
        )
        return _text.classifications(found)

    def _regress(self, sent: "_Sent", seen: Observed, reading: contextlib.ExitStack) -> str:
        with reading:
            spec, examples = seen.spec, read_examples(sent.document)
        seen.spec, found = self._service.regress(spec, examples, seen.call)
        seen.exchange = lambda: (
            pb.RegressionRequest(model_spec=messages.write_spec(spec), input=messages.write_examples(examples)),
            messages.regression_response(seen.spec, found),
        )
        return _text.regressions(found)

    def _metadata(self, sent: "_Sent", seen: Observed, reading: contextlib.ExitStack) -> str:
        seen.spec, signatures = self._service.metadata(seen.spec, seen.call)
        return _text.metadata(seen.spec, signatures)

    def _status(self, sent: "_Sent", seen: Observed, reading: contextlib.ExitStack) -> str:
        return _text.statuses(self._service.models.status(seen.spec))

    @contextlib.contextmanager
    def _read(self, body: bytes | bytearray, call: Call) -> "Iterator[_Sent]":
        """Parses a body. Of large bodies, only one at a time exists as lists: until the end of the `with`.

        Lists may take twenty times the size of a body (`[[],[],[],...`), so parsing many at once could take all memory.
        It would not be faster either, because Python parses JSON in one thread at a time.
        """
        has_booleans = b"true" in body or b"false" in body
        if len(body) < LARGE:
            yield _Sent(parse(body), has_booleans)
            return
        while not self._one_large.acquire(timeout=0.1):
            call.check()
        document: dict[str, Any] = {}
        try:
            document = parse(body)
            yield _Sent(document, has_booleans)
        finally:
            document.clear()
            self._one_large.release()


def _probable_signature(body: bytes | bytearray) -> str:
    """The signature that a body names, before it is parsed; a wrong guess only makes its request wait with others."""
    found = _SIGNATURE.search(body)
    return found[1].decode(errors="replace") if found else ""


class _Sent(NamedTuple):
    """The object in a body, and whether `true` or `false` may occur in it."""

    document: dict[str, Any]
    has_booleans: bool = False


def inflate(body: bytes | bytearray, limit: int, take: Callable[[int], None] = lambda size: None) -> bytearray:
    """Returns the content of a gzip body. Raises INVALID_ARGUMENT, or TooLarge if that is more than `limit` bytes.

    `take` is called with the size of each piece, and raises StatusError if it is too much.
    """
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content, rest = bytearray(), bytes(body)
    while not reader.eof:
        try:
            piece = reader.decompress(rest, _PIECE)
        except zlib.error as error:
            raise invalid(f"A request with Content-Encoding: gzip must have a gzip body. Received: {error}") from None
        if not piece and not reader.unconsumed_tail and not reader.eof:
            text = "A request with Content-Encoding: gzip must have a gzip body. Received: one that is cut off"
            raise invalid(text)
        take(len(piece))
        content += piece
        rest = reader.unconsumed_tail
        if len(content) > limit:
            raise TooLarge(limit)
    return content


def _read_arrays(sent: _Sent, spec: ModelSpec, signature: Signature) -> Arrays:
    """Returns the inputs of a Predict request. They must be complete: REST doesn't use a signature's defaults."""
    document, infos = sent.document, signature.inputs
    if not infos:
        raise invalid(f"Failed to get input map for signature: {spec.signature or 'DEFAULT'}")
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {quote(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "inputs" in document:
        return read_inputs(document["inputs"], infos, has_booleans=sent.has_booleans)
    if "instances" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {quote(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {quote(document)} No values in 'instances' array")
    return read_instances(instances, infos, has_booleans=sent.has_booleans)


def _decode(text: str, what: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise invalid(f"Failed to decode {what}:{text}") from None
