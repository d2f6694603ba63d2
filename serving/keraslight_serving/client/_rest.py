"""Channels that use TensorFlow Serving's REST API, for networks that don't support gRPC, such as behind most proxies.

gRPC is much faster for arrays, which are text here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import httpx

from keraslight_serving.client._rest_messages import Ask, RestError, Translator
from keraslight_serving.client._transport import AsyncCall, Headers


class RestChannel:
    """A `Channel` over HTTP.

    `address` includes the path of the API if it is not at the root. Without `context`, the system's authorities are
    trusted. `proxies`: whether to use those of `HTTP_PROXY` and the like. `max_message_bytes` limits responses.
    """

    def __init__(self, address: str, *, context: ssl.SSLContext | None, proxies: bool, max_message_bytes: int) -> None:
        self._http = httpx.Client(**_options(address, context, proxies))
        self._max_message_bytes, self._translator = max_message_bytes, Translator()
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="keraslight-rest")  # for `future`, as in hedging

    def unary_unary(self, path: str, **_: object) -> _Call:
        return _Call(partial(self._exchange, path), self._pool)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def _exchange(
        self, path: str, request: Any, timeout: float | None = None, metadata: Headers = (), **_: bool
    ) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        steps = self._translator.call(path, request)
        try:
            ask = next(steps)
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise _too_late()
                with _as_rpc_errors(), self._http.stream(**_request(ask, metadata), timeout=left) as response:
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        _append(chunk, body, self._max_message_bytes)
                        if deadline is not None and time.monotonic() > deadline:
                            raise _too_late()  # httpx's timeout is for each chunk
                ask = steps.send((response.status_code, bytes(body)))
        except StopIteration as end:
            return end.value


class AsyncRestChannel:
    """A `Channel` for asyncio over HTTP. Same arguments as `RestChannel`."""

    def __init__(self, address: str, *, context: ssl.SSLContext | None, proxies: bool, max_message_bytes: int) -> None:
        self._http = httpx.AsyncClient(**_options(address, context, proxies))
        self._max_message_bytes, self._translator = max_message_bytes, Translator()

    def unary_unary(self, path: str, **_: object) -> AsyncCall:
        return partial(self._exchange, path)

    async def close(self) -> None:
        await self._http.aclose()

    async def _exchange(
        self, path: str, request: Any, timeout: float | None = None, metadata: Headers = (), **_: bool
    ) -> Any:
        steps = self._translator.call(path, request)
        try:
            ask = next(steps)
            async with asyncio.timeout(timeout):
                while True:
                    with _as_rpc_errors():
                        async with self._http.stream(**_request(ask, metadata), timeout=None) as response:
                            body = bytearray()
                            async for chunk in response.aiter_bytes():
                                _append(chunk, body, self._max_message_bytes)
                    ask = steps.send((response.status_code, bytes(body)))
        except StopIteration as end:
            return end.value
        except TimeoutError as error:
            raise _too_late() from error


class _Call:
    """A method of a `RestChannel`. HTTP has nothing like `wait_for_ready`, so that is ignored."""

    def __init__(self, exchange: Callable[..., Any], pool: ThreadPoolExecutor) -> None:
        self._exchange, self._pool = exchange, pool

    def __call__(self, request: Any, **options: Any) -> Any:
        return self._exchange(request, **options)

    def future(self, request: Any, **options: Any) -> Future[Any]:
        return self._pool.submit(self._exchange, request, **options)


def _append(chunk: bytes, body: bytearray, limit: int) -> None:
    body += chunk
    if len(body) > limit:
        text = f"CLIENT: Received message larger than max ({len(body)} vs. {limit})"
        raise RestError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _options(address: str, context: ssl.SSLContext | None, proxies: bool) -> dict[str, Any]:
    if not address.startswith("https:"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # empty: httpx would load all authorities for nothing
    return {
        "base_url": address,
        "verify": context or ssl.create_default_context(),
        "trust_env": proxies,
        "limits": httpx.Limits(max_connections=None),
        "follow_redirects": False,
    }


def _request(ask: Ask, metadata: Headers) -> dict[str, Any]:
    if ask.body is None:
        return {"method": "GET", "url": ask.path, "headers": metadata}
    headers = (*metadata, ("content-type", "application/json"))
    return {"method": "POST", "url": ask.path, "content": ask.body, "headers": headers}


def _too_late() -> RestError:
    return RestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


@contextlib.contextmanager
def _as_rpc_errors() -> Iterator[None]:
    """Raises errors of the transport as gRPC would."""
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as error:
        raise _too_late() from error
    except (httpx.LocalProtocolError, UnicodeEncodeError) as error:  # HTTP can't carry this header
        raise RestError(grpc.StatusCode.INVALID_ARGUMENT, f"{error}") from error
    except (httpx.TransportError, OSError) as error:  # httpx doesn't translate late TLS errors
        raise RestError(grpc.StatusCode.UNAVAILABLE, f"{error}" or type(error).__name__) from error
    except RuntimeError as error:  # the client was closed in the meantime
        raise RestError(grpc.StatusCode.CANCELLED, f"{error}") from error
    except httpx.HTTPError as error:
        raise RestError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error
