"""Calls to one model: what is sent with each request, and the error that a failed one raises. No I/O here.

`call` and all that is built on it are generators that yield the steps of `_retry` and return the result.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, TypeVar

import grpc

from keraslight_serving.client._endpoints import Endpoints
from keraslight_serving.client._retry import Caller, CallEvent, CallFailed, Retry, Steps
from keraslight_serving.client.errors import InternalError, InvalidInput, ServingError, from_rpc_error
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.methods import Method, Request, Response

Metadata = Mapping[str, str]
E = TypeVar("E", bound=ServingError)

# What describes the message and the connection belongs to the transport; gRPC would ignore it, and HTTP break.
_HEADER_NAME = re.compile(
    r"(?!grpc-|(?:te|host|connection|keep-alive|proxy-connection|upgrade|transfer-encoding|user-agent|accept-encoding|"
    r"content-(?:type|length|encoding))$)[a-z0-9_.-]+(?<!-bin)"
)
_HEADER_VALUE = re.compile(r"(?! )[ -~]*(?<! )")


@dataclass(eq=False, repr=False)  # the token must not be printed
class Calls:
    """See `ClassifierClient` for the fields."""

    endpoints: Endpoints[Any]
    model: str
    version: int | str | None
    timeout: float
    max_message_bytes: int
    retry: InitVar[Retry]
    token: str | Callable[[], str] | None
    headers: Metadata
    hooks: InitVar[Sequence[Callable[[CallEvent], None]]]

    def __post_init__(self, retry: Retry, hooks: Sequence[Callable[[CallEvent], None]]) -> None:
        # On the wire, 0 means version 0 to TensorFlow Serving, not "any".
        if isinstance(self.version, int) and self.version < 1:
            raise InvalidInput(f"`version` must be at least 1, or None for the newest. Received: {self.version}")
        if self.timeout <= 0:
            raise InvalidInput(f"`timeout` must be above 0 seconds. Received: {self.timeout}")
        self.room = self.max_message_bytes - 4096  # bytes of tensors that fit in any request; the rest takes less
        self._caller = Caller(self.endpoints, retry, hooks)

    def spec(self, signature: str = "") -> pb.ModelSpec:
        """The model, and the version if one was chosen."""
        spec = pb.ModelSpec(name=self.model, signature_name=signature)
        if isinstance(self.version, str):
            spec.version_label = self.version
        elif self.version is not None:
            spec.version.value = self.version
        return spec

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        metadata: Metadata | None,
        timeout: float | None = None,
        wait_for_ready: bool = False,
        payload: int | None = None,
    ) -> Steps[Response]:
        """Sends a request and returns the response, or raises a ServingError.

        `payload`: bytes of the tensors if known, as ByteSize takes as long as serializing them.
        """
        small, most = payload is not None and payload <= self.room, self.max_message_bytes
        if not small and (size := request.ByteSize()) > most:
            raise self.invalid(f"A request must fit in `max_message_bytes`, {most}. Received: {size} bytes")
        headers = tuple({**self._checked(self.headers), **self._checked(metadata or {})}.items())
        if self.token is not None:
            token = self.token() if callable(self.token) else self.token
            if not isinstance(token, str) or not _HEADER_VALUE.fullmatch(token):
                raise self.invalid("`token` must be text of printable ASCII characters. Received: something else")
            headers += (("authorization", f"Bearer {token}"),)
        if timeout is not None and timeout <= 0:
            raise self.invalid(f"`timeout` must be above 0 seconds. Received: {timeout}")
        steps = self._caller.call(method, request, self.model, timeout or self.timeout, headers, wait_for_ready)
        try:
            return (yield from steps)
        except CallFailed as failed:
            error, target, tries = failed.error, failed.address, failed.attempts
            if error.code() == grpc.StatusCode.CANCELLED and self.endpoints.closed is not None:
                raise self.endpoints.closed() from error
            raise from_rpc_error(
                error, target=target, model=self.model, version=self.version, attempts=tries
            ) from error

    def _checked(self, metadata: Metadata) -> dict[str, str]:
        """Headers that gRPC, asyncio's gRPC and HTTP send in the same way. Upper and lower case mean the same."""
        headers: dict[str, str] = {}
        for name, value in metadata.items():
            if not isinstance(name, str) or not _HEADER_NAME.fullmatch(lower := name.lower()) or lower in headers:
                raise self.invalid(
                    "Names in `metadata` must consist of letters, digits, -, _ and ., must be different without regard "
                    f"to case, and must not end in -bin or be the transport's own. Received: {name!r}"
                )
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise self.invalid(
                    "Values in `metadata` must be text of printable ASCII characters, without spaces at the ends. "
                    f"Received: something else for {name!r}"  # which may be a secret
                )
            headers[lower] = value
        return headers

    def error(self, kind: type[E], text: str, code: grpc.StatusCode | None = None) -> E:
        return kind(text, model=self.model, version=self.version, code=code)

    def invalid(self, text: str) -> InvalidInput:
        return self.error(InvalidInput, text)

    def internal(self, text: str) -> InternalError:
        return self.error(InternalError, text)


def reworded(error: E, text: str) -> E:
    """The same error with another text."""
    return type(error)(text, **vars(error))
