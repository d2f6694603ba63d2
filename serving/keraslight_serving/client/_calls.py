"""Calls to one model: what is sent with each request, and the error that a failed one raises. No I/O here.

`call` and all that is built on it are generators that yield the steps of `_retry` and return the result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from keraslight_serving.client._endpoints import Endpoints
from keraslight_serving.client._retry import Caller, CallEvent, CallFailed, Retry, Steps
from keraslight_serving.client.errors import ClientClosed, InternalError, InvalidInput, ServingError, from_rpc_error
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.methods import Method, Request, Response

Metadata = Mapping[str, str]
E = TypeVar("E", bound=ServingError)

_AROUND = 4096  # bytes of a request besides its tensors, at most


class Calls:
    """See `ClassifierClient` for the arguments."""

    def __init__(
        self,
        endpoints: Endpoints[Any],
        model: str,
        *,
        version: int | str | None,
        timeout: float,
        max_message_bytes: int,
        retry: Retry,
        token: str | Callable[[], str] | None,
        metadata: Metadata | None,
        hooks: Sequence[Callable[[CallEvent], None]],
    ) -> None:
        # On the wire, 0 means version 0 to TensorFlow Serving, not "any".
        if isinstance(version, int) and version < 1:
            raise InvalidInput(f"`version` must be at least 1, or None for the newest. Received: {version}")
        if timeout <= 0:
            raise InvalidInput(f"`timeout` must be above 0 seconds. Received: {timeout}")
        self.model, self.version = model, version
        self.room = max_message_bytes - _AROUND  # bytes of tensors that fit in any request
        self._timeout, self._max_message_bytes = timeout, max_message_bytes
        self._token, self._headers = token, dict(metadata or {})
        self._endpoints = endpoints
        self._caller = Caller(endpoints, retry, hooks)

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
        """Sends a request and returns the response.

        Args:
            method: Method to call.
            request: Its request.
            metadata: Headers of this call, in addition to the client's.
            timeout: Seconds. None: the client's timeout.
            wait_for_ready: Whether to wait for a server that can't be reached yet, until the deadline.
            payload: Bytes of the tensors if known, as ByteSize takes as long as serializing them.

        Raises:
            ServingError: The request failed; see `errors`.
        """
        small = payload is not None and payload <= self.room
        if not small and (size := request.ByteSize()) > self._max_message_bytes:
            raise self.invalid(
                f"A request must fit in `max_message_bytes`, {self._max_message_bytes}. Received: {size} bytes"
            )
        headers = tuple({**self._headers, **(metadata or {})}.items())
        if self._token is not None:
            token = self._token() if callable(self._token) else self._token
            headers += (("authorization", f"Bearer {token}"),)
        if timeout is not None and timeout <= 0:
            raise self.invalid(f"`timeout` must be above 0 seconds. Received: {timeout}")
        seconds = timeout or self._timeout
        steps = self._caller.call(
            method, request, model=self.model, timeout=seconds, metadata=headers, wait_for_ready=wait_for_ready
        )
        try:
            return (yield from steps)
        except CallFailed as failed:
            error, target, tries = failed.error, failed.address, failed.attempts
            if error.code() == grpc.StatusCode.CANCELLED and self._endpoints.closed is not None:
                raise self._endpoints.closed() from error
            raise from_rpc_error(
                error, target=target, model=self.model, version=self.version, attempts=tries
            ) from error

    def invalid(self, text: str) -> InvalidInput:
        return InvalidInput(text, model=self.model, version=self.version)

    def internal(self, text: str) -> InternalError:
        return InternalError(text, model=self.model, version=self.version)

    def closed(self, text: str) -> ClientClosed:
        return ClientClosed(text, model=self.model, version=self.version)


def reworded(error: E, text: str) -> E:
    """The same error with another text."""
    return type(error)(text, **vars(error))
