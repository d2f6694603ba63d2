"""Channels that speak TensorFlow Serving's REST API: for where gRPC can't go, such as through most proxies.

They are used like a grpc.Channel, as far as the client uses one. gRPC is the quicker way by far for arrays, which are
text here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import httpx

from keraslight_serving.client._rest_messages import Ask, Asking, RestError, Translator

_THREADS = 32  # for the calls of one channel in the background: those of hedging

Metadata = Sequence[tuple[str, str]] | None


class RestChannel:
    """Stands in for a grpc.Channel.

    Args:
        address: `http://host:port` or `https://host:port`, and a path where the API is not at the top.
        context: what to trust with https; None: the system's authorities.
        proxies: whether to heed `HTTP_PROXY` and its like.
        max_message_bytes: the largest answer.
    """

    def __init__(self, address: str, *, context: ssl.SSLContext | None, proxies: bool, max_message_bytes: int) -> None:
        self._http = httpx.Client(**_options(address, context, proxies))
        self._max_message_bytes = max_message_bytes
        self._translator = Translator()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="keraslight-rest")

    def unary_unary(self, path: str, **_: object) -> _Call:
        """As grpc.Channel's: a callable that makes the call, with `future` for one in the background."""
        return _Call(lambda *arguments: self._exchange(path, *arguments), self._pool)

    def close(self) -> None:
        """Closes the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def _exchange(self, path: str, request: Any, timeout: float | None, metadata: Metadata) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        steps = self._translator.call(path, request)
        answered = None
        while True:
            ask, response = _step(steps, answered)
            if ask is None:
                return response
            with _as_rpc_errors():
                answered = self._ask(ask, metadata, deadline)

    def _ask(self, ask: Ask, metadata: Metadata, deadline: float | None) -> tuple[int, bytes]:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise _too_late()
        with self._http.stream(**_request(ask, metadata), timeout=left) as response:
            body = _Body(self._max_message_bytes)
            for chunk in response.iter_bytes():
                body.add(chunk)
                if deadline is not None and time.monotonic() > deadline:
                    raise _too_late()  # httpx's own limit is for each piece
            return response.status_code, body.content()


class AsyncRestChannel:
    """Stands in for a grpc.aio.Channel. Arguments as of `RestChannel`."""

    def __init__(self, address: str, *, context: ssl.SSLContext | None, proxies: bool, max_message_bytes: int) -> None:
        self._http = httpx.AsyncClient(**_options(address, context, proxies))
        self._max_message_bytes = max_message_bytes
        self._translator = Translator()

    def unary_unary(self, path: str, **_: object) -> Callable:
        """As grpc.aio.Channel's: a coroutine function that makes the call."""

        async def call(
            request: Any, timeout: float | None = None, metadata: Metadata = None, wait_for_ready: bool = False
        ) -> Any:
            try:
                async with asyncio.timeout(timeout):
                    return await self._exchange(path, request, metadata)
            except TimeoutError as error:
                raise _too_late() from error

        return call

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _exchange(self, path: str, request: Any, metadata: Metadata) -> Any:
        steps = self._translator.call(path, request)
        answered = None
        while True:
            ask, response = _step(steps, answered)
            if ask is None:
                return response
            with _as_rpc_errors():
                async with self._http.stream(**_request(ask, metadata), timeout=None) as response:
                    body = _Body(self._max_message_bytes)
                    async for chunk in response.aiter_bytes():
                        body.add(chunk)
                    answered = response.status_code, body.content()


class _Call:
    def __init__(self, exchange: Callable, pool: ThreadPoolExecutor) -> None:
        self._exchange, self._pool = exchange, pool

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Metadata = None, wait_for_ready: bool = False
    ) -> Any:
        return self._exchange(request, timeout, metadata)

    def future(
        self, request: Any, timeout: float | None = None, metadata: Metadata = None, wait_for_ready: bool = False
    ) -> Future:
        return self._pool.submit(self._exchange, request, timeout, metadata)


class _Body:
    """What has come of an answer."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit:
            raise RestError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"CLIENT: Received message larger than max ({self._size} vs. {self._limit})",
            )
        self._chunks.append(chunk)

    def content(self) -> bytes:
        return b"".join(self._chunks)


def _step(steps: Asking, answered: tuple[int, bytes] | None) -> tuple[Ask | None, Any]:
    """What to ask next, or else the result."""
    try:
        return steps.send(answered), None
    except StopIteration as end:
        return None, end.value


def _options(address: str, context: ssl.SSLContext | None, proxies: bool) -> dict[str, Any]:
    if not address.startswith("https:"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody: httpx would read all authorities for nothing
    return {
        "base_url": address,
        "verify": context or ssl.create_default_context(),
        "trust_env": proxies,
        "limits": httpx.Limits(max_connections=None),
        "follow_redirects": False,
    }


def _request(ask: Ask, metadata: Metadata) -> dict[str, Any]:
    headers = [*(metadata or ()), *([] if ask.body is None else [("content-type", "application/json")])]
    method = "GET" if ask.body is None else "POST"
    return {"method": method, "url": ask.path, "content": ask.body, "headers": headers}


def _too_late() -> RestError:
    return RestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


@contextlib.contextmanager
def _as_rpc_errors() -> Iterator[None]:
    """Raises what gRPC would for errors of the transport."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise _too_late() from error
    except (httpx.LocalProtocolError, UnicodeEncodeError) as error:  # a header that HTTP can't carry
        raise RestError(grpc.StatusCode.INVALID_ARGUMENT, f"{error}") from error
    except (httpx.TransportError, OSError) as error:  # httpx lets errors of TLS that come late pass as they are
        raise RestError(grpc.StatusCode.UNAVAILABLE, f"{error}" or type(error).__name__) from error
    except RuntimeError as error:  # the connections were closed meanwhile
        raise RestError(grpc.StatusCode.CANCELLED, f"{error}") from error
    except httpx.HTTPError as error:
        raise RestError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error
