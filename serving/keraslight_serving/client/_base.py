"""What both clients are made of."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from keraslight_serving.client._calls import Calls
from keraslight_serving.client._endpoints import Endpoints, addresses_of, channel_options, is_local, is_url
from keraslight_serving.client._model import Model
from keraslight_serving.client._rankings import Rankings
from keraslight_serving.client._retry import CallEvent, Retry
from keraslight_serving.client._tensors import Tensors
from keraslight_serving.client._tls import Tls
from keraslight_serving.client.errors import ClientClosed, InvalidInput, Unsupported

KEEPALIVE = 310.0


class BaseClient(ABC):
    """The arguments, the endpoints, and when they may be used. See `ClassifierClient`."""

    def __init__(
        self,
        target: str | Sequence[str] = "localhost:8500",
        model: str = "digits",
        *,
        version: int | str | None = None,
        timeout: float = 10.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        batch_size: int = 8,
        window: int = 4,
        labels: Sequence[str] | str | os.PathLike | None = None,
        credentials: Tls | grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        metadata: Mapping[str, str] | None = None,
        hooks: Sequence[Callable[[CallEvent], None]] = (),
        keepalive: float = KEEPALIVE,
        max_message_bytes: int = 64 * 2**20,
        channel: Any = None,
    ) -> None:
        if window < 1:
            raise InvalidInput(f"`window` must be at least 1. Received: {window}")
        if keepalive <= 0:
            raise InvalidInput(f"`keepalive` must be above 0 seconds. Received: {keepalive}")
        self._own_channel = channel is None
        options = channel_options(max_message_bytes, keepalive)
        if channel is not None:
            endpoints = Endpoints(["the given channel"], lambda _: channel)
        else:
            addresses = addresses_of(target)
            safe = all(is_local(a) or a.startswith("https://") or (credentials and not is_url(a)) for a in addresses)
            if token is not None and not safe:
                raise InvalidInput(
                    "A token is sent to another machine only over TLS: give `credentials`, see `tls`, or https://. "
                    f"Received: {', '.join(addresses)} without"
                )
            urls = [address for address in addresses if is_url(address)]
            if urls:
                _rest()
                _check_rest_credentials(urls, credentials)

            def open_channel(address: str) -> Any:
                if not is_url(address):
                    usable = credentials.for_grpc() if isinstance(credentials, Tls) else credentials
                    return self._open_channel(address, usable, options)
                context = credentials.for_http() if isinstance(credentials, Tls) else None
                return self._rest_channel(_rest())(
                    address, context=context, proxies=not is_local(address), max_message_bytes=max_message_bytes
                )

            endpoints = Endpoints(addresses, open_channel)
        if isinstance(labels, str | os.PathLike):
            labels = Path(labels).read_text(encoding="utf-8").splitlines()
        self._window = window
        self._endpoints = endpoints
        self._calls = Calls(
            endpoints,
            model,
            version=version,
            timeout=timeout,
            max_message_bytes=max_message_bytes,
            retry=retry,
            token=token,
            metadata=metadata,
            hooks=hooks,
        )
        self._model = Model(self._calls)
        self._tensors = Tensors(self._calls, self._model)
        self._rankings = Rankings(self._calls, self._model, self._tensors, batch_size=batch_size, labels=labels)
        self._closed = False
        self._process: int | None = None  # the one that opened a channel

    @abstractmethod
    def _open_channel(self, address: str, credentials: Any, options: list) -> Any:
        """A gRPC channel of the client's kind; without credentials, an open one."""

    @abstractmethod
    def _rest_channel(self, rest: ModuleType) -> Callable[..., Any]:
        """The client's class in `_rest`."""

    def _check_usable(self) -> None:
        """gRPC's threads don't come along into a forked process: a call there would wait forever."""
        if self._closed:
            raise self._calls.closed("The client must be open. Received: a call after close()")
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise self._calls.closed(
                "A client must be used in the process that made its first call: make one in each worker. "
                f"Received: a call in process {os.getpid()}, a fork of {self._process}"
            )

    def _close(self) -> list[Any]:
        """The channels to be closed, by whoever may."""
        self._closed = True
        if not self._own_channel or self._process != os.getpid():
            return []

        def error() -> ClientClosed:
            return self._calls.closed("The client must be open. Received: close() during the call")

        return self._endpoints.close(error)


def _rest() -> ModuleType:
    """The module that needs httpx, which only who gives a URL has to install."""
    try:
        from keraslight_serving.client import _rest
    except ModuleNotFoundError as error:
        raise Unsupported(f"REST needs httpx: pip install 'keraslight[rest]'. Received: {error}") from error
    return _rest


def _check_rest_credentials(urls: Sequence[str], credentials: Any) -> None:
    if credentials is None:
        return
    if not isinstance(credentials, Tls):
        raise InvalidInput(f"`credentials` for a URL must come from `tls`. Received: {type(credentials).__name__}")
    for url in urls:
        if not url.startswith("https:"):
            raise InvalidInput(f"`credentials` are for https://. Received: {url!r}")
