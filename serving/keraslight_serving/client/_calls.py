"""Calls to one model: what goes along with a request, and which error comes of one that failed. No I/O here.

`call`, like all that is built on it, is a generator that yields the steps of `_retry` and returns the result; the
blocking and the asyncio client carry out the steps in their own ways.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from keraslight_serving.client._endpoints import Endpoints
from keraslight_serving.client._retry import Caller, CallEvent, CallFailed, Retry, Steps
from keraslight_serving.client.errors import ClientClosed, InternalError, InvalidInput, from_rpc_error
from keraslight_serving.wire import methods
from keraslight_serving.wire import serving_pb2 as pb

Metadata = Mapping[str, str]

_AROUND = 4096  # bytes of a request that surround its tensors, at most


class Calls:
    """See `ClassifierClient` for the arguments; `clock` and `random_state` are seams for tests."""

    def __init__(
        self,
        endpoints: Endpoints,
        model: str,
        *,
        version: int | str | None,
        timeout: float,
        max_message_bytes: int,
        retry: Retry,
        token: str | Callable[[], str] | None,
        metadata: Metadata | None,
        hooks: Sequence[Callable[[CallEvent], None]],
        clock: Callable[[], float] = time.monotonic,
        random_state: random.Random | None = None,
    ) -> None:
        # TensorFlow Serving takes a 0 on the wire for a version of that number, not for "any".
        if isinstance(version, int) and version < 1:
            raise InvalidInput(f"`version` must be at least 1, or None for the newest. Received: {version}")
        if timeout <= 0:
            raise InvalidInput(f"`timeout` must be above 0 seconds. Received: {timeout}")
        self.model, self.version, self.clock = model, version, clock
        self._timeout, self._max_message_bytes = timeout, max_message_bytes
        self._token, self._sent_along = token, dict(metadata or {})
        self._endpoints = endpoints
        self._caller = Caller(endpoints, retry, hooks, clock=clock, random_state=random_state)

    @property
    def room(self) -> int:
        """Bytes of tensors that fit in a request, whatever else is in it."""
        return self._max_message_bytes - _AROUND

    def spec(self, signature: str = "") -> pb.ModelSpec:
        """The model, and the version where one was chosen."""
        spec = pb.ModelSpec(name=self.model, signature_name=signature)
        if isinstance(self.version, str):
            spec.version_label = self.version
        elif self.version is not None:
            spec.version.value = self.version
        return spec

    def call(
        self,
        method: methods.Method,
        request: Any,
        metadata: Metadata | None,
        timeout: float | None = None,
        wait_for_ready: bool = False,
        payload: int | None = None,
    ) -> Steps:
        """Sends a request, and returns its response.

        Args:
            metadata: headers of this call, beside the client's.
            timeout: seconds, instead of the client's.
            wait_for_ready: a server that can't be reached yet is no error before the deadline.
            payload: the bytes of the tensors where they are known: ByteSize costs as much as serializing them.

        Raises:
            ServingError: the one of `errors` for what went wrong.
        """
        small = payload is not None and payload <= self.room
        if not small and (size := request.ByteSize()) > self._max_message_bytes:
            raise self.invalid(
                f"A request must fit in `max_message_bytes`, {self._max_message_bytes}. Received: {size} bytes"
            )
        sent_along = list({**self._sent_along, **(metadata or {})}.items())
        if self._token is not None:
            token = self._token() if callable(self._token) else self._token
            sent_along.append(("authorization", f"Bearer {token}"))
        if timeout is not None and timeout <= 0:
            raise self.invalid(f"`timeout` must be above 0 seconds. Received: {timeout}")
        try:
            return (
                yield from self._caller.call(
                    method,
                    request,
                    model=self.model,
                    timeout=timeout or self._timeout,
                    metadata=sent_along,
                    wait_for_ready=wait_for_ready,
                )
            )
        except CallFailed as failed:
            if failed.error.code() == grpc.StatusCode.CANCELLED and self._endpoints.closed is not None:
                raise self._endpoints.closed() from failed.error
            raise from_rpc_error(
                failed.error,
                target=failed.address,
                model=self.model,
                version=self.version,
                attempts=failed.attempts,
            ) from failed.error

    def invalid(self, text: str) -> InvalidInput:
        return InvalidInput(text, model=self.model, version=self.version)

    def internal(self, text: str) -> InternalError:
        return InternalError(text, model=self.model, version=self.version)

    def closed(self, text: str) -> ClientClosed:
        return ClientClosed(text, model=self.model, version=self.version)
