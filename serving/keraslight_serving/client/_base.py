"""What both clients have in common."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal

import grpc

from keraslight_serving.client._calls import Calls
from keraslight_serving.client._endpoints import C, Endpoints, addresses_of, channel_options, is_local, is_url
from keraslight_serving.client._model import Model
from keraslight_serving.client._rankings import Rankings
from keraslight_serving.client._retry import CallEvent, Retry
from keraslight_serving.client._tls import Tls
from keraslight_serving.client._types import Answer, Classification
from keraslight_serving.client.errors import ClientClosed, InvalidInput, Unsupported
from keraslight_serving.labels import check_labels, read_labels

OnError = Literal["raise", "return"]
Outcome = list[Classification] | InvalidInput


class BaseClient(Generic[C]):
    """The arguments, the endpoints, and whether they may be used. See `ClassifierClient`."""

    _aio: ClassVar[bool]  # whether the channels are for asyncio

    def __init__(
        self,
        target: str | Sequence[str] = "localhost:8500",
        model: str = "default",
        *,
        version: int | str | None = None,
        timeout: float = 10.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        batch_size: int = 8,
        window: int = 4,
        labels: Sequence[str] | str | os.PathLike[str] | None = None,
        credentials: Tls | grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        metadata: Mapping[str, str] | None = None,
        hooks: Sequence[Callable[[CallEvent], None]] = (),
        keepalive: float = 310.0,
        max_message_bytes: int = 64 * 2**20,
        channel: C | None = None,
    ) -> None:
        if window < 1:
            raise InvalidInput(f"`window` must be at least 1. Received: {window}")
        if keepalive <= 0:
            raise InvalidInput(f"`keepalive` must be above 0 seconds. Received: {keepalive}")

        def open_channel(address: str) -> Any:
            if is_url(address):
                from keraslight_serving.client import _rest

                kind: Any = _rest.AsyncRestChannel if self._aio else _rest.RestChannel
                context = credentials.for_http() if isinstance(credentials, Tls) else None
                proxies = not is_local(address)
                return kind(address, context=context, proxies=proxies, max_message_bytes=max_message_bytes)
            api: Any = grpc.aio if self._aio else grpc
            options = channel_options(address, max_message_bytes, keepalive)
            if credentials is None:
                return api.insecure_channel(address, options=options)
            usable = credentials.for_grpc() if isinstance(credentials, Tls) else credentials
            return api.secure_channel(address, usable, options=options)

        if channel is not None:
            endpoints = Endpoints(["the given channel"], lambda _: channel)
        else:
            addresses = addresses_of(target)
            _check_security(addresses, credentials, token)
            endpoints = Endpoints(addresses, open_channel)
        if labels is not None:
            try:
                labels = read_labels(labels) if isinstance(labels, str | os.PathLike) else check_labels(labels)
            except ValueError as error:
                raise InvalidInput(str(error)) from error
        self._own_channel, self._window, self._endpoints = channel is None, window, endpoints
        headers = dict(metadata or {})
        self._calls = Calls(endpoints, model, version, timeout, max_message_bytes, retry, token, headers, hooks)
        self._model = Model(self._calls)
        self._rankings = Rankings(self._calls, self._model, batch_size=batch_size, labels=labels)
        self._closed = False
        self._process: int | None = None  # the one that opened a channel

    def _check_usable(self) -> None:
        """Fails early in forked processes, which lack gRPC's threads, so that calls would hang."""
        if self._closed:
            raise self._calls.error(ClientClosed, "The client must be open. Received: a call after close()")
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise self._calls.error(
                ClientClosed,
                "A client must be used in the process that made its first call: make one in each worker. "
                f"Received: a call in process {os.getpid()}, a fork of {self._process}",
            )

    def _close(self) -> list[C]:
        """Closes the endpoints; returns their open channels, for the caller to close."""
        self._closed = True
        if not self._own_channel or self._process != os.getpid():
            return []
        text = "The client must be open. Received: close() during the call"
        return self._endpoints.close(lambda: self._calls.error(ClientClosed, text))

    def _check_on_error(self, on_error: OnError) -> None:
        if on_error not in ("raise", "return"):
            raise self._calls.invalid(f'`on_error` must be "raise" or "return". Received: {on_error!r}')

    def _check_some(self, found: list[Outcome]) -> list[Outcome]:
        if not found:
            raise self._calls.invalid("There must be at least one image. Received: none")
        return found


def outcome(answer: Answer, on_error: OnError) -> Outcome:
    """The ranking of an image, or its error, returned or raised."""
    if answer.error is not None and on_error == "raise":
        raise answer.error
    return answer.error or answer.ranking


def _check_security(
    addresses: Sequence[str], credentials: Tls | grpc.ChannelCredentials | None, token: str | Callable[[], str] | None
) -> None:
    safe = all(is_local(a) or a.startswith("https://") or (credentials and not is_url(a)) for a in addresses)
    if token is not None and not safe:
        raise InvalidInput(
            "A token is sent to another machine only over TLS: give `credentials`, see `tls`, or https://. "
            f"Received: {', '.join(addresses)} without"
        )
    urls = [address for address in addresses if is_url(address)]
    if urls:
        try:
            import httpx  # noqa: F401 - only REST needs it
        except ModuleNotFoundError as error:
            raise Unsupported(f"REST needs httpx: pip install 'keraslight[rest]'. Received: {error}") from error
        if credentials is not None and not isinstance(credentials, Tls):
            raise InvalidInput(f"`credentials` for a URL must come from `tls`. Received: {type(credentials).__name__}")
        plain = [url for url in urls if not url.startswith("https:")]
        if credentials is not None and plain:
            raise InvalidInput(f"`credentials` are for https://. Received: {plain[0]!r}")
