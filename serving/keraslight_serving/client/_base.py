"""What both clients are made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from keraslight_serving.client._core import Core
from keraslight_serving.client._endpoints import Endpoints, addresses_of, channel_options, is_local
from keraslight_serving.client._retry import CallEvent, Retry
from keraslight_serving.client.errors import InvalidInput

KEEPALIVE = 310.0


class BaseClient:
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
        credentials: grpc.ChannelCredentials | None = None,
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
            if token is not None and credentials is None and not all(map(is_local, addresses)):
                raise InvalidInput(
                    "A token is sent to another machine only over TLS: give `credentials`, see `tls`. "
                    f"Received: {', '.join(addresses)} without"
                )
            endpoints = Endpoints(addresses, lambda address: self._open_channel(address, credentials, options))
        if isinstance(labels, str | os.PathLike):
            labels = Path(labels).read_text(encoding="utf-8").splitlines()
        self._window = window
        self._endpoints = endpoints
        self._core = Core(
            endpoints,
            model,
            version=version,
            timeout=timeout,
            max_message_bytes=max_message_bytes,
            batch_size=batch_size,
            labels=labels,
            retry=retry,
            token=token,
            metadata=metadata,
            hooks=hooks,
        )
        self._closed = False
        self._process: int | None = None  # the one that opened a channel

    def _open_channel(self, address: str, credentials: Any, options: list) -> Any:
        raise NotImplementedError

    def _check_usable(self) -> None:
        """gRPC's threads don't come along into a forked process: a call there would wait forever."""
        if self._closed:
            raise self._core.closed("The client must be open. Received: a call after close()")
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise self._core.closed(
                "A client must be used in the process that made its first call: make one in each worker. "
                f"Received: a call in process {os.getpid()}, a fork of {self._process}"
            )

    def _close(self) -> list[Any]:
        """The channels to be closed, by whoever may."""
        self._closed = True
        if not self._own_channel or self._process != os.getpid():
            return []
        return [channel for endpoint in self._endpoints if (channel := endpoint.take_channel()) is not None]


def tls(
    ca: str | os.PathLike | bytes | None = None,
    certificate: str | os.PathLike | bytes | None = None,
    key: str | os.PathLike | bytes | None = None,
) -> grpc.ChannelCredentials:
    """Credentials for a server with TLS.

    Args:
        ca: the certificates to trust, PEM, as a path or bytes. None: the system's.
        certificate, key: of this client, for a server that asks for one (mutual TLS); both or neither.

    Returns:
        What `ClassifierClient(credentials=...)` takes.

    Raises:
        InvalidInput: a file can't be read, or one of `certificate` and `key` is missing.
    """
    if (certificate is None) != (key is None):
        given = "certificate" if key is None else "key"
        raise InvalidInput(f"`certificate` and `key` must be given together. Received: `{given}` alone")

    def read(source: str | os.PathLike | bytes | None) -> bytes | None:
        if source is None or isinstance(source, bytes):
            return source
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{os.fspath(source)!r} must be a PEM file. Received: {error.strerror}") from error

    return grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
