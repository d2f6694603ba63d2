"""One request until it is answered: retries, hedging, deadline. No I/O here; a driver carries out the steps.

The logic is a generator, so that the blocking and the asyncio client run the same: it yields a `Start`, `Next` or
`Stop` and is sent what came of it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from keraslight_serving.client._endpoints import Endpoint, Endpoints
from keraslight_serving.client.errors import InvalidInput

logger = logging.getLogger("keraslight_serving.client")


class Start(NamedTuple):
    """Send the request to an endpoint, without waiting. The driver answers with a ticket."""

    endpoint: Endpoint
    method: Any
    request: Any
    timeout: float
    metadata: Sequence[tuple[str, str]]
    wait_for_ready: bool = False


class Next(NamedTuple):
    """Wait for the first open request that ends, at most so many seconds; with none open, just wait.

    The driver answers with an `Ended`, or None if the time is over.
    """

    seconds: float | None


class Stop(NamedTuple):
    """Cancel an open request; nobody waits for it any more."""

    ticket: Any


class Ended(NamedTuple):
    """A request that ended: with a response, or an RpcError."""

    ticket: Any
    response: Any
    error: grpc.RpcError | None


Steps = Generator[Start | Next | Stop, Any, Any]


@dataclass(frozen=True)
class Retry:
    """When a request that failed is sent again. Classifying twice does no harm, so all calls may be.

    UNAVAILABLE and RESOURCE_EXHAUSTED are worth another try, and an attempt that ran out of its own share of the time;
    another endpoint is asked if there is one. The pause before attempt n is drawn evenly from 0 to
    `min(longest_pause, first_pause * 2 ** (n - 2))` seconds ("full jitter"), so that clients that failed together do
    not come back together.

    The budget keeps retries from drowning a server that is down: it holds `budget` retries, each takes one of them,
    and each success gives `refill` back.

    Attributes:
        attempts: how often a request is sent at most, at least 1; 1 switches retries off.
        first_pause: seconds, above 0.
        longest_pause: seconds, at least `first_pause`.
        budget: how many retries all calls of a client may have in advance, at least 0.
        refill: what a success gives back, 0..1.
        attempt_timeout: seconds for one attempt. None: a quarter of the call's timeout with several endpoints, all of
            it with one.
        hedge_after: seconds after which an unanswered request is sent to a second endpoint too, whose answer is taken
            if it comes first. None: never. Counts as an attempt and takes from the budget.

    Raises:
        InvalidInput: a number is out of range.
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
    """How many retries are left to a client. Threads share it."""

    def __init__(self, retry: Retry) -> None:
        self._left, self._most, self._refill = retry.budget, retry.budget, retry.refill
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there is one more; takes it."""
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
    """What became of a call, for hooks.

    Attributes:
        method: `Predict`, `GetModelStatus` ...
        model: the model's name.
        address: the endpoint that answered last.
        attempts: how often the request was sent.
        seconds: from the call to its end, pauses included.
        request_bytes: size of the request.
        code: "OK", the gRPC status of the last attempt, or "CANCELLED" where nobody waited for the end.
    """

    method: str
    model: str
    address: str
    attempts: int
    seconds: float
    request_bytes: int
    code: str


class CallFailed(Exception):
    """The end of a call without an answer, with what an error's text needs."""

    def __init__(self, error: grpc.RpcError, address: str, attempts: int) -> None:
        super().__init__(str(error))
        self.error, self.address, self.attempts = error, address, attempts


_RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Caller:
    """Makes calls over a client's endpoints.

    Args:
        endpoints: where to.
        retry: how often.
        clock, random_state: seams for tests.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        retry: Retry,
        hooks: Sequence[Callable[[CallEvent], None]] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        random_state: random.Random | None = None,
    ) -> None:
        self._endpoints, self._retry, self._hooks, self._clock = endpoints, retry, hooks, clock
        self._random = random_state or random.Random()
        self._budget = Budget(retry)

    def call(
        self,
        method: Any,
        request: Any,
        *,
        model: str,
        timeout: float,
        metadata: Sequence[tuple[str, str]] = (),
        wait_for_ready: bool = False,
    ) -> Steps:
        """Sends a request until there is an answer, and returns it. Hooks are told of `model`.

        Raises:
            CallFailed: none came: the last error cannot be mended by another try, or there is no time for one.
        """
        began = self._clock()
        state = _State(began + timeout)
        code = "CANCELLED"  # unless it ends
        try:
            response = yield from self._attempts(state, method, request, metadata, wait_for_ready)
            code = "OK"
            return response
        except CallFailed as failed:
            code = failed.error.code().name
            raise
        finally:
            if self._hooks and state.attempts:
                event = CallEvent(
                    method.name,
                    model,
                    state.address,
                    state.attempts,
                    self._clock() - began,
                    request.ByteSize(),
                    code,
                )
                for hook in self._hooks:
                    try:
                        hook(event)
                    except Exception:
                        logger.exception("A hook of the client failed")

    def _attempts(self, state: _State, method: Any, request: Any, metadata: Sequence, wait_for_ready: bool) -> Steps:
        retry = self._retry
        open_: dict[Any, tuple[Endpoint, bool]] = {}
        tried: list[Endpoint] = []

        def start() -> tuple[Start, tuple[Endpoint, bool]]:
            left = max(state.deadline - self._clock(), 0.001)
            share = retry.attempt_timeout
            if share is None:
                share = left / 4 if len(self._endpoints) > 1 else left
            endpoint = self._endpoints.pick(avoid=tried)
            tried.append(endpoint)
            if len(tried) >= len(self._endpoints):
                tried.pop(0)  # its turn may come again
            state.attempts += 1
            state.address = endpoint.address
            seconds = min(share, left)
            return Start(endpoint, method, request, seconds, metadata, wait_for_ready), (endpoint, seconds < left)

        while True:
            attempt, what = start()
            open_[(yield attempt)] = what
            hedge = retry.hedge_after if retry.attempts > state.attempts else None
            while open_:
                ended = yield Next(hedge)
                if ended is None:
                    hedge = None
                    if self._budget.take():
                        attempt, what = start()
                        open_[(yield attempt)] = what
                    continue
                endpoint, cut_short = open_.pop(ended.ticket)
                if ended.error is None:
                    self._endpoints.succeeded(endpoint)
                    self._budget.succeeded()
                    for ticket in open_:
                        yield Stop(ticket)
                    return ended.response
                error, address = ended.error, endpoint.address
                again = self._worth_another(error, cut_short)
                self._endpoints.failed(endpoint, error.code(), cut_short)
                logger.debug("%s at %s: attempt %d: %s", method.name, address, state.attempts, error.code().name)
                if not again:
                    for ticket in open_:
                        yield Stop(ticket)
                    raise CallFailed(error, address, state.attempts)
            if state.attempts >= retry.attempts:
                raise CallFailed(error, address, state.attempts)
            longest = min(retry.longest_pause, retry.first_pause * 2 ** (state.attempts - 1))
            pause = self._random.uniform(0, longest)
            if self._clock() + pause >= state.deadline or not self._budget.take():
                raise CallFailed(error, address, state.attempts)
            yield Next(pause)

    @staticmethod
    def _worth_another(error: grpc.RpcError, cut_short: bool) -> bool:
        code = error.code()
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in (error.details() or "").lower():
            return False  # it would be as large the next time
        return code in _RETRYABLE or (code == grpc.StatusCode.DEADLINE_EXCEEDED and cut_short)


class _State:
    """Of one call."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.attempts = 0
        self.address = ""
