"""The ASGI application: bodies, threads, deadlines, and headers.

Whatever waits for a client waits in the event loop, where it costs only a socket. A thread is used from the moment the
body is complete until the answer is ready; the answer is sent from the loop again.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import grpc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from keraslight_serving.server.base.budget import SMALL, Budget
from keraslight_serving.server.base.call import Call, expired
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.rest._handler import Asked, TooLarge, http_status, inflate, read_url
from keraslight_serving.server.rest._json import error_body
from keraslight_serving.server.telemetry.logging import REQUEST_ID, request_id

logger = logging.getLogger("keraslight_serving.server")

MAX_BODY = 100 * 2**20  # bytes, as sent and inflated
IDLE_SECONDS = 30.0  # pause that a client may make in the middle of a body
QUICK = ("status", "metadata")  # only look something up, and have threads of their own

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type, Authorization",
}
_NOT_FOUND = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"

# Counts a request under /v1/ once it is answered, in the event loop, so it must neither block nor raise. Takes the
# URL's model and API (empty if malformed), the code (CANCELLED if the client has left), and seconds since the headers.
Observe = Callable[[str, str, grpc.StatusCode, float], None]


class Answers(Protocol):
    """What answers requests: `Handler`."""

    def answer(self, asked: Asked, body: bytes | bytearray, call: Call) -> str:
        """Returns the JSON that answers a request with an inflated body; called by several threads at once."""


class _Answer(NamedTuple):
    code: grpc.StatusCode
    status: int  # HTTP's
    body: bytes


class RestApp:
    """TensorFlow Serving's REST API.

    `handler` answers `threads` requests at once, each within `timeout` seconds after the body has arrived (None: no
    limit). `cors`: whether web pages of other origins may send requests. `metrics` returns the text of the page at
    `metrics_path`, which is open to all, as in most installations of Prometheus. `authorize` raises StatusError for an
    Authorization header (empty if there is none) that is not allowed. `observe` is called after each request under
    /v1/. A body has at most `max_body` bytes, both as sent and inflated, and arrives within `body_timeout` seconds
    (None: no limit). Large bodies together have at most the bytes of `budget`, and those of one address half of them.
    """

    def __init__(
        self,
        handler: Answers,
        *,
        timeout: float | None,
        threads: int,
        cors: bool = False,
        metrics: Callable[[], bytes] | None = None,
        metrics_path: str = "/monitoring/prometheus/metrics",
        authorize: Callable[[str], None] | None = None,
        observe: Observe | None = None,
        max_body: int = MAX_BODY,
        body_timeout: float | None = 120.0,
        budget: Budget | None = None,
    ) -> None:
        self._handler, self._timeout, self._max_body = handler, timeout, max_body
        self._cors = _CORS if cors else {}
        self._metrics, self._metrics_path = metrics, metrics_path
        self._authorize, self._observe = authorize, observe
        self._body_timeout, self._budget = body_timeout, budget or Budget(2**30)
        self._of_peers: dict[str, int] = {}  # bytes by address; changed only in the event loop
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rest")
        self._quick_pool = ThreadPoolExecutor(2, thread_name_prefix="rest-quick")
        # Scrapes must not queue behind requests: metrics matter most when the server is busy.
        self._metrics_pool = ThreadPoolExecutor(1, thread_name_prefix="metrics") if metrics else None

    def close(self) -> None:
        """Starts no more requests. Those that are running end unobserved."""
        for pool in filter(None, (self._pool, self._quick_pool, self._metrics_pool)):
            pool.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace")
        response: Response | None
        if self._metrics is not None and path == self._metrics_path:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._metrics_pool, _metrics_page, self._metrics)
        elif path[:4].lower() != "/v1/":
            response = Response(_NOT_FOUND, 404, media_type="text/html")
        else:
            response = await self._under_v1(request, path)
        if response is not None:
            await response(scope, receive, send)

    async def _under_v1(self, request: Request, path: str) -> Response | None:
        """Returns None if the client has left."""
        began = time.monotonic()
        name = request_id(request.headers.get(REQUEST_ID))
        asked: Asked | None = None
        answer: _Answer | None = None
        try:
            if request.method == "OPTIONS":
                answer = _preflight(request)
            else:
                asked = read_url(request.method, path)
                if self._authorize is not None:
                    self._authorize(request.headers.get("authorization", ""))
                answer = await self._ask(request, asked, name)
        except StatusError as error:
            answer = _error(error)
        except asyncio.CancelledError:  # the grace for requests in flight is over
            answer = _error(StatusError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down"))
        except ClientDisconnect:
            pass
        if self._observe is not None and request.method != "OPTIONS":
            model, api = (asked.spec.name, asked.api) if asked else ("", "")
            code = answer.code if answer else grpc.StatusCode.CANCELLED
            self._observe(model, api, code, time.monotonic() - began)
        if answer is None:
            return None
        if answer.code is not grpc.StatusCode.OK:
            logger.debug("%s %s: %s", request.method, path, answer.body)
        kind = {"Content-Type": "application/json"} if answer.body else {}
        return Response(answer.body, answer.status, {**kind, REQUEST_ID: name, **self._cors})

    async def _ask(self, request: Request, asked: Asked, name: str) -> _Answer | None:
        with _Share(self._budget, self._of_peers, "" if request.client is None else request.client.host) as share:
            body = await self._read(request, share)
            return await self._in_thread(request, asked, body, name)

    async def _read(self, request: Request, share: "_Share") -> bytearray:
        """Returns the body as it was sent."""
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > self._max_body):
            raise TooLarge(self._max_body)
        body = bytearray()  # not a list of chunks, whose memory would not be returned to the system
        more, until = True, None if self._body_timeout is None else time.monotonic() + self._body_timeout
        while more:
            seconds = IDLE_SECONDS if until is None else min(IDLE_SECONDS, until - time.monotonic())
            try:
                async with asyncio.timeout(seconds):
                    message = await request.receive()
            except TimeoutError:
                rule = f"without a pause of {IDLE_SECONDS:g} seconds. Received: one"
                if seconds < IDLE_SECONDS:
                    rule = f"within {self._body_timeout:g} seconds. Received: {len(body)} bytes of it"
                text = f"A request's body must come {rule}"
                raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise TooLarge(self._max_body)
            share.grow_to(len(body))
        return body

    async def _in_thread(self, request: Request, asked: Asked, body: bytearray, name: str) -> _Answer | None:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        gone = threading.Event()
        peer = "" if request.client is None else f"{request.client.host}:{request.client.port}"
        call = Call(name, "REST", deadline, lambda: not gone.is_set(), peer)
        gzip = "gzip" in request.headers.get("content-encoding", "").lower()
        pool = self._quick_pool if asked.api in QUICK else self._pool
        working = asyncio.get_running_loop().run_in_executor(pool, self._answer, asked, body, gzip, call)
        leaving = asyncio.ensure_future(request.receive())  # after the body, only a disconnect can come
        waiting: set[asyncio.Future[Any]] = {working, leaving}
        try:
            done, _ = await asyncio.wait(waiting, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not working.done():
                gone.set()  # a thread can't be stopped, but it checks this before it runs a model
                working.cancel()
        if working in done:
            return working.result()
        return None if done else _error(expired())

    def _answer(self, asked: Asked, body: bytearray, gzip: bool, call: Call) -> _Answer:
        """Turns whatever goes wrong into an answer, so that no request can take down its thread or the server."""
        inflated = 0

        def take(size: int) -> None:
            nonlocal inflated
            self._budget.take(size)
            inflated += size

        try:
            call.check()  # it may have waited long for this thread
            if gzip:
                body = inflate(body, self._max_body, take)
            text = self._handler.answer(asked, body, call)
            return _Answer(grpc.StatusCode.OK, 200, text.encode(errors="replace"))
        except StatusError as error:
            return _error(error)
        except RecursionError:
            return _error(invalid("The document is nested too deeply"))
        except Exception as error:
            logger.exception("%s of %s failed", asked.api, asked.spec.name)
            return _error(StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"))
        finally:
            self._budget.give(inflated)


class _Share:
    """What one body takes of the budget, and of its sender's half of it; nothing while it is small."""

    def __init__(self, budget: Budget, of_peers: dict[str, int], peer: str) -> None:
        self._budget, self._of_peers, self._peer = budget, of_peers, peer
        self._size = 0

    def __enter__(self) -> "_Share":
        return self

    def grow_to(self, size: int) -> None:
        """Raises RESOURCE_EXHAUSTED if that is too much."""
        more = size - self._size
        if size < SMALL or not more:
            return
        held = self._of_peers.get(self._peer, 0)
        if held + more > max(self._budget.most // 2, size):  # a body that is allowed can be sent alone
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"The bodies of one sender must have at most {self._budget.most // 2} bytes. Received: more; try again",
            )
        self._budget.take(more)
        self._of_peers[self._peer] = held + more
        self._size = size

    def __exit__(self, *_: object) -> None:
        self._budget.give(self._size)
        left = self._of_peers.get(self._peer, 0) - self._size
        if left:
            self._of_peers[self._peer] = left
        else:
            self._of_peers.pop(self._peer, None)


def _metrics_page(metrics: Callable[[], bytes]) -> Response:
    try:
        return Response(metrics(), media_type="text/plain")
    except Exception:
        logger.exception("The metrics page failed")
        return Response(status_code=500, media_type="text/plain")


def _preflight(request: Request) -> _Answer:
    if re.search("https?://", request.headers.get("origin", "")):
        return _Answer(grpc.StatusCode.OK, 200, b"")
    return _error(StatusError(grpc.StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight"))


def _error(error: StatusError) -> _Answer:
    return _Answer(error.code, http_status(error), error_body(error.text))
