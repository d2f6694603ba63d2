"""Sends one request until it is answered: retries, hedging, deadline. No I/O here.

The logic is a generator, so that both clients share it: it yields a `Wait`, which the clients carry out, each in its
own way (`_blocking` and `AsyncClassifierClient._run`), sending back the `Ended` attempt, or None when the time is up.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import grpc

from keraslight_serving.client._endpoints import Endpoint, Endpoints
from keraslight_serving.client._transport import Headers
from keraslight_serving.client.errors import InvalidInput
from keraslight_serving.wire.methods import Method, Request, Response

logger = logging.getLogger("keraslight_serving.client")

T = TypeVar("T")

_SHARES = 4  # of the call's timeout: an unanswered request goes to another endpoint after each


@dataclass(eq=False, slots=True)
class Attempt:
    """A request to one endpoint, sent at `began`. `cut_short`: its timeout is not all the time that is left."""

    endpoint: Endpoint[Any]
    method: Method[Any, Any]
    request: Any
    timeout: float
    metadata: Headers
    wait_for_ready: bool
    cut_short: bool
    began: float = 0.0

    def send(self, by: Callable[..., T]) -> T:
        """Sends the request by a `Call`, its `future`, or an `AsyncCall`."""
        return by(self.request, timeout=self.timeout, metadata=self.metadata, wait_for_ready=self.wait_for_ready)


class Wait(NamedTuple):
    """Wait for the first of these attempts to end, but no longer than `seconds`, if given; without attempts, sleep.

    Attempts that are not in flight yet must be started, and those in flight that are not listed any more cancelled.
    """

    attempts: tuple[Attempt, ...]
    seconds: float | None


class Ended(NamedTuple):
    """An attempt that ended: with a response, or an RpcError."""

    attempt: Attempt
    response: Any
    error: grpc.RpcError | None


Steps = Generator[Wait, Ended | None, T]


@dataclass(frozen=True)
class Retry:
    """When a failed request is sent again. Classifying has no side effects, so every call may be repeated.

        Retry()                          # up to 4 attempts, with pauses of up to 0.05, 0.1 and 0.2 seconds
        Retry(attempts=1)                # never send a request twice
        Retry(attempt_timeout=2)         # give each server 2 seconds, then try the next
        Retry(hedge_after=0.2)           # after 0.2 seconds without a response, send it to a second server, too
        Retry(attempts=50, budget=1000)  # keep trying through a long outage

    Requests are retried, on another endpoint if there is one, after UNAVAILABLE and RESOURCE_EXHAUSTED, and if an
    attempt used up its `attempt_timeout`. With several endpoints and no `attempt_timeout`, a request that is unanswered
    after a quarter of the call's timeout is also sent to another endpoint, and so on after each further quarter. None
    of them is cancelled before the first response, so servers may take most of the timeout.

    The pause before attempt n is drawn uniformly from 0 to `min(longest_pause, first_pause * 2 ** (n - 2))` seconds
    ("full jitter"), so that clients that failed together don't return together. The budget keeps retries from
    overwhelming a server that is down: it starts with `budget` retries, each retry takes one, and each success returns
    `refill`.

    Attributes:
        attempts: Times a request is sent at most, at least 1, which turns retries and hedging off.
        first_pause: Longest pause before the second attempt, in seconds (above 0).
        longest_pause: Limit of all pauses, in seconds (at least `first_pause`).
        budget: Retries that all calls of a client may use in advance, at least 0.
        refill: Part of a retry that a success returns to the budget, 0 to 1.
        attempt_timeout: Seconds per attempt, after which it is cancelled. None: all that is left of the call's timeout.
        hedge_after: Seconds after which an unanswered request is also sent to a second endpoint; the first response
            wins. Counts as an attempt and uses the budget. None: a quarter of the call's timeout with several
            endpoints and no `attempt_timeout`, otherwise never.

    Raises:
        InvalidInput: A number is out of range.
    """

    attempts: int = 4
    first_pause: float = 0.05
    longest_pause: float = 1.0
    budget: float = 20.0
    refill: float = 0.2
    attempt_timeout: float | None = None
    hedge_after: float | None = None

    def __post_init__(self) -> None:
        checks = (
            ("attempts", "at least 1", self.attempts >= 1),
            ("first_pause", "above 0 seconds", self.first_pause > 0),
            ("longest_pause", "at least `first_pause`", self.longest_pause >= self.first_pause),
            ("budget", "at least 0", self.budget >= 0),
            ("refill", "between 0 and 1", 0 <= self.refill <= 1),
            ("attempt_timeout", "above 0 seconds, or None", self.attempt_timeout is None or self.attempt_timeout > 0),
            ("hedge_after", "above 0 seconds, or None", self.hedge_after is None or self.hedge_after > 0),
        )
        for name, rule, holds in checks:
            if not holds:
                raise InvalidInput(f"`{name}` must be {rule}. Received: {getattr(self, name)}")


class Budget:
    """The retries that a client has left. Threads may share it."""

    def __init__(self, retry: Retry) -> None:
        self._left, self._most, self._refill = retry.budget, retry.budget, retry.refill
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Takes a retry; False if none is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._left = min(self._left + self._refill, self._most)


@dataclass(frozen=True)
class CallEvent:
    """The outcome of a call, for hooks.

    Attributes:
        method: gRPC method, such as `Predict` or `GetModelStatus`.
        model: Name of the model.
        address: Endpoint of the last attempt.
        attempts: Times the request was sent.
        seconds: Duration of the call, pauses included.
        request_bytes: Size of the request.
        code: "OK", the gRPC status of the last attempt, or "CANCELLED" if the caller stopped waiting.
    """

    method: str
    model: str
    address: str
    attempts: int
    seconds: float
    request_bytes: int
    code: str


class CallFailed(Exception):
    """A call got no response."""

    def __init__(self, error: grpc.RpcError, address: str, attempts: int) -> None:
        super().__init__(str(error))
        self.error, self.address, self.attempts = error, address, attempts


@dataclass(eq=False)
class Caller:
    """Makes calls to the endpoints of a client. `clock` and `random_state`, the source of the jitter, are for tests."""

    endpoints: Endpoints[Any]
    retry: Retry
    hooks: Sequence[Callable[[CallEvent], None]] = ()
    clock: Callable[[], float] = time.monotonic
    random_state: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._budget = Budget(self.retry)

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        model: str,
        timeout: float,
        metadata: Headers = (),
        wait_for_ready: bool = False,
    ) -> Steps[Response]:
        """Returns the response, or raises CallFailed if retrying can't help or there is no time or budget left for it.

        `model` is for hooks.
        """
        began = self.clock()
        sent: list[Attempt] = []
        code = "CANCELLED"  # unless it ends
        try:
            steps = self._attempts(sent, timeout, method, request, metadata, wait_for_ready)
            response: Response = yield from steps
            code = "OK"
            return response
        except CallFailed as failed:
            code = failed.error.code().name
            raise
        finally:
            if self.hooks and sent:
                seconds, size = self.clock() - began, request.ByteSize()
                event = CallEvent(method.name, model, sent[-1].endpoint.address, len(sent), seconds, size, code)
                for hook in self.hooks:
                    try:
                        hook(event)
                    except Exception:
                        logger.exception("A hook of the client failed")

    def _attempts(
        self, sent: list[Attempt], timeout: float, method: Method[Any, Any], request: Any, headers: Headers, wait: bool
    ) -> Steps[Any]:
        """Keeps at most one attempt in flight per endpoint, and returns the first response.

        An attempt has a share of the time for itself, a quarter of the call's. Cancelling it then would fail all calls
        to servers that need longer, so another endpoint is tried next to it. The share is none of the endpoint's
        failures either, unless the other endpoint, which got the request later, answers first.
        """
        retry, others = self.retry, len(self.endpoints) - 1
        deadline = self.clock() + timeout
        share = timeout / _SHARES if others and retry.attempt_timeout is None else None
        flying: list[Attempt] = []
        due: float | None = None  # when an attempt starts next to those in flight

        def start(endpoint: Endpoint[Any]) -> None:
            nonlocal due
            now = self.clock()
            left = max(deadline - now, 0.001)
            seconds = min(retry.attempt_timeout or left, left)
            alone = [alone for alone in (None if flying else retry.hedge_after, share) if alone is not None]
            due = now + min(alone) if alone else None
            sent.append(Attempt(endpoint, method, request, seconds, headers, wait, seconds < left, now))
            flying.append(sent[-1])

        def pick() -> Endpoint[Any]:
            recent = [attempt.endpoint for attempt in sent[-others:]]
            return self.endpoints.pick(avoid=recent, busy=[attempt.endpoint for attempt in flying])

        start(pick())
        while True:
            if len(sent) >= retry.attempts:
                due = None
            ended = yield Wait(tuple(flying), None if due is None else max(due - self.clock(), 0.0))
            if ended is None:
                due = None if share is None else self.clock() + share
                endpoint = pick()
                # If all others are ejected or in flight: none gets a request twice at the same time.
                busy = others and any(attempt.endpoint is endpoint for attempt in flying)
                if not busy and self._budget.take():
                    start(endpoint)
                continue
            attempt, response, error = ended
            flying.remove(attempt)
            if error is None:
                self.endpoints.succeeded(attempt.endpoint)
                self._budget.succeeded()
                for slow in flying:
                    if share is not None and attempt.began - slow.began > share / 2:  # not merely hedged
                        self.endpoints.failed(slow.endpoint, grpc.StatusCode.DEADLINE_EXCEEDED, slow.began)
                return response
            code, address = error.code(), attempt.endpoint.address
            logger.debug("%s at %s: attempt %d: %s", method.name, address, len(sent), code.name)
            if code != grpc.StatusCode.DEADLINE_EXCEEDED or attempt.cut_short:
                self.endpoints.failed(attempt.endpoint, code, attempt.began)
            if not _worth_retrying(error, attempt.cut_short):
                raise CallFailed(error, address, len(sent))
            pause = self.random_state.uniform(0, min(retry.longest_pause, retry.first_pause * 2 ** (len(sent) - 1)))
            if flying:  # their shares first
                if share is not None:
                    due = max(self.clock() + pause, *(other.began + share for other in flying))
                continue
            late = self.clock() + pause >= deadline
            if len(sent) >= retry.attempts or late or not self._budget.take():
                raise CallFailed(error, address, len(sent))
            yield Wait((), pause)
            start(pick())


def _worth_retrying(error: grpc.RpcError, cut_short: bool) -> bool:
    code = error.code()
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "message larger than max" not in (error.details() or "").lower()  # the next one would be as large
    return code == grpc.StatusCode.UNAVAILABLE or (code == grpc.StatusCode.DEADLINE_EXCEEDED and cut_short)
