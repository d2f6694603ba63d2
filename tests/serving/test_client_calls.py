"""What surrounds a call: retries, deadline, hedging, endpoints, batches in flight, headers, hooks, forks, TLS."""

import asyncio
import contextlib
import io
import itertools
import multiprocessing
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future

import grpc
import numpy as np
import prometheus_client
import pytest
from keraslight_serving.client import (
    AsyncClassifierClient,
    ClassifierClient,
    ClientClosed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    Retry,
    Unavailable,
    Unsupported,
    tls,
)
from keraslight_serving.client._endpoints import Endpoints, addresses_of, channel_options, is_local
from keraslight_serving.client._retry import Attempt, Budget, Caller, CallFailed, Ended, Wait
from keraslight_serving.client.telemetry import opentelemetry_hook, prometheus_hook
from keraslight_serving.client.testing import AsyncFakeChannel, FakeChannel, FakeRpcError
from keraslight_serving.testing import serve_in_process
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image

CODE = grpc.StatusCode


# ---------------------------------------------------------------- the steps, in a time of their own


class World:
    """Carries out the steps of a call with a clock that only waiting moves.

    `script` gives for each attempt, in order, the seconds it takes and what comes of it: a status code, or None for an
    answer.
    """

    def __init__(self, script, addresses=("a:1", "b:1", "c:1"), retry=Retry()):  # noqa: B008
        self.now, self.script, self.sent, self.stopped = 0.0, list(script), [], []
        self.events, self.hanging = [], frozenset()
        self.endpoints = Endpoints(addresses, lambda _: None, clock=lambda: self.now)
        self.caller = Caller(
            self.endpoints, retry, [self.events.append], clock=lambda: self.now, random_state=random.Random(0)
        )

    def call(self, timeout=10.0):
        steps = self.caller.call(methods.PREDICT, pb.PredictRequest(), model="tiny", timeout=timeout)
        flying: dict[Attempt, tuple[float, grpc.StatusCode | None]] = {}
        tickets: dict[Attempt, int] = {}
        wait = next(steps)
        try:
            while True:
                self.stopped += [tickets[attempt] for attempt in flying if attempt not in wait.attempts]
                for attempt in wait.attempts:
                    if attempt not in tickets:
                        flying[attempt] = self._start(attempt)
                        tickets[attempt] = len(self.sent) - 1
                wait = steps.send(self._first_to_end(flying, wait))
        except StopIteration as end:
            self.stopped += [tickets[attempt] for attempt in flying]
            return end.value

    def _start(self, attempt: Attempt) -> tuple[float, grpc.StatusCode | None]:
        seconds, code = (999, None) if attempt.endpoint.address in self.hanging else self.script.pop(0)
        if seconds > attempt.timeout:
            seconds, code = attempt.timeout, CODE.DEADLINE_EXCEEDED
        self.sent.append((attempt.endpoint.address, round(self.now, 3), round(attempt.timeout, 3)))
        return self.now + seconds, code

    def _first_to_end(self, flying: dict[Attempt, tuple[float, grpc.StatusCode | None]], wait: Wait) -> Ended | None:
        until = float("inf") if wait.seconds is None else self.now + wait.seconds
        first = min(wait.attempts, key=lambda attempt: flying[attempt][0], default=None)
        if first is None or flying[first][0] > until:
            self.now = until
            return None
        self.now, code = flying.pop(first)
        error = code and FakeRpcError(code, "on purpose")
        return Ended(first, None if error else "answer", error)

    def fail(self, timeout=10.0):
        with pytest.raises(CallFailed) as caught:
            self.call(timeout)
        return caught.value


def test_an_answer_at_once():
    world = World([(0.1, None)])
    assert world.call() == "answer"
    assert world.sent == [("a:1", 0, 10)]
    (event,) = world.events
    assert (event.method, event.address, event.attempts, event.code) == ("Predict", "a:1", 1, "OK")
    assert event.seconds == pytest.approx(0.1)


def test_a_retry_goes_to_another_server_after_a_pause():
    world = World([(0.1, CODE.UNAVAILABLE), (0.1, CODE.RESOURCE_EXHAUSTED), (0.1, None)])
    assert world.call() == "answer"
    assert [address for address, *_ in world.sent] == ["a:1", "b:1", "c:1"]
    pauses = [world.sent[1][1] - 0.1, world.sent[2][1] - world.sent[1][1] - 0.1]
    assert 0 < pauses[0] <= 0.05
    assert 0 < pauses[1] <= 0.1
    assert world.events[0].attempts == 3


def test_pauses_are_drawn_from_the_whole_range():
    """Full jitter: from 0 to the longest, whose mean is half of it."""
    pauses = []
    world = World([], ["a:1"], Retry(attempts=3, first_pause=0.1, longest_pause=0.15, budget=1e6))
    for _ in range(300):
        began, world.script = world.now, [(0, CODE.UNAVAILABLE), (0, CODE.UNAVAILABLE), (0, None)]
        world.sent.clear()
        world.call()
        pauses.append((world.sent[1][1] - began, world.sent[2][1] - world.sent[1][1]))
    first, second = np.array(pauses).T
    assert (first >= -1e-3).all()
    assert first.max() <= 0.101
    assert second.max() <= 0.151  # twice the first pause, cut at `longest_pause`
    assert first.mean() == pytest.approx(0.05, abs=0.006)
    assert second.mean() == pytest.approx(0.075, abs=0.009)


@pytest.mark.parametrize("code", [CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.INTERNAL, CODE.UNAUTHENTICATED])
def test_what_another_try_can_not_mend(code):
    world = World([(0.1, code)])
    assert world.fail().attempts == 1
    assert world.events[0].code == code.name


def test_a_message_that_is_too_large_is_not_sent_again():
    channel = FakeChannel(error=CODE.RESOURCE_EXHAUSTED, details="CLIENT: Sent message larger than max (9 vs. 4)")
    with pytest.raises(Overloaded, match="larger than max") as caught:
        ClassifierClient(channel=channel).status()
    assert caught.value.attempts == 1


def test_attempts_end():
    world = World([(0, CODE.UNAVAILABLE)] * 9, retry=Retry(attempts=3))
    failed = world.fail()
    assert (failed.attempts, failed.error.code()) == (3, CODE.UNAVAILABLE)


@pytest.mark.parametrize(
    "retry", [Retry(), Retry(attempts=1), Retry(budget=0), Retry(hedge_after=2), Retry(attempts=9)]
)
@pytest.mark.parametrize("addresses", [["a:1", "b:1"], ["a:1", "b:1", "c:1"]])
@pytest.mark.parametrize("part", [0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 0.99])
def test_healthy_servers_that_need_most_of_the_time_answer_as_one_does(part, addresses, retry):
    world = World([], addresses, retry)
    for _ in range(30):
        began, world.script = world.now, [(10 * part, None)] * 9
        world.sent.clear()
        assert world.call(timeout=10) == "answer"
        assert world.now - began == pytest.approx(10 * part)
        sent = [address for address, *_ in world.sent]
        assert len(set(sent)) == len(sent) <= retry.attempts
    assert [endpoint.ejected_until for endpoint in world.endpoints] == [0] * len(addresses)
    # Half of the extra requests come from the budget's start, the others are refilled by the answers.
    assert sum(event.attempts - 1 for event in world.events) <= retry.budget + 30 * retry.refill


def test_slow_servers_are_all_used():
    """Requests to others don't take the turns of first requests."""
    first = []
    for addresses in (["a:1", "b:1"], ["a:1", "b:1", "c:1"]):
        world = World([(4, None)] * 99, addresses)
        for _ in range(6):
            world.sent.clear()
            world.call(timeout=10)
            first.append(world.sent[0][0][0])
    assert "".join(first) == "ababab" + "abcabc"


def test_a_call_is_hedged_once_and_then_by_shares():
    world = World([(99, None)] * 4, retry=Retry(hedge_after=0.5))
    with pytest.raises(CallFailed):
        world.call(timeout=8)
    assert [(address, began) for address, began, _ in world.sent] == [("a:1", 0), ("b:1", 0.5), ("c:1", 2.5)]


@pytest.mark.parametrize("timeout", [1, 2, 10])
def test_a_server_that_never_answers_keeps_only_a_quarter_of_the_time_for_itself(timeout):
    world = World([(999, None), (0.01, None)])
    assert world.call(timeout) == "answer"
    assert world.sent == [("a:1", 0, timeout), ("b:1", timeout / 4, 0.75 * timeout)]
    assert world.now == pytest.approx(timeout / 4 + 0.01)
    assert world.stopped == [0]


def test_each_quarter_of_the_time_another_server_is_tried():
    world = World([(99, None), (99, None), (1, None)])
    assert world.call(timeout=10) == "answer"
    assert world.sent == [("a:1", 0, 10), ("b:1", 2.5, 7.5), ("c:1", 5, 5)]
    assert world.now == 6


def test_a_server_that_fails_next_to_one_that_hangs_leads_to_the_third_at_once():
    world = World([(99, None), (0.5, CODE.UNAVAILABLE), (1, None)])
    assert world.call(timeout=10) == "answer"
    assert [address for address, *_ in world.sent] == ["a:1", "b:1", "c:1"]
    assert 3 < world.sent[2][1] <= 3.1


def test_a_server_that_fails_next_to_one_that_hangs_is_tried_again():
    world = World([(99, None), (0.5, CODE.UNAVAILABLE), (1, None)], ["a:1", "b:1"])
    assert world.call(timeout=10) == "answer"
    assert [address for address, *_ in world.sent] == ["a:1", "b:1", "b:1"]
    assert 4 <= world.sent[2][1] <= 6  # not while it is skipped


def test_one_that_hangs_is_skipped_after_three_requests_that_another_answered():
    world = World([(0.01, None)] * 99)
    world.hanging = {"a:1"}
    for _ in range(14):
        world.call(timeout=10)
    a, *others = world.endpoints
    assert [event.attempts for event in world.events] == [2, 1, 1] * 3 + [1] * 5
    assert a.ejections == 1
    assert [endpoint.ejections for endpoint in others] == [0, 0]
    world.now += 1
    for _ in range(3):
        world.call(timeout=10)
    assert a.ejected_until == pytest.approx(world.now + 2, abs=0.1)


def test_the_deadline_covers_all_attempts():
    world = World([(99, None)] * 9, retry=Retry(attempts=9))
    assert world.fail(timeout=10).error.code() == CODE.DEADLINE_EXCEEDED
    assert world.now == 10
    assert len(world.sent) == 3  # none twice at the same time
    assert [endpoint.troubles for endpoint in world.endpoints] == [0, 0, 0]  # the caller was in a hurry


def test_the_time_for_an_attempt_is_the_callers_choice():
    world = World([(99, None), (99, None), (0.1, None)], ["a:1", "b:1"], Retry(attempt_timeout=2))
    assert world.call(timeout=10) == "answer"
    assert [(address, left) for address, _, left in world.sent] == [("a:1", 2), ("b:1", 2), ("a:1", 2)]
    assert world.stopped == []


def test_a_single_server_has_all_of_the_time():
    world = World([(99, None)], ["a:1"])
    assert world.fail(timeout=10).attempts == 1
    assert world.now == pytest.approx(10)


def test_no_pause_that_ends_after_the_deadline():
    world = World([(9.99, CODE.UNAVAILABLE)] * 2, ["a:1"], Retry(first_pause=5, longest_pause=5))
    assert world.fail(timeout=10).attempts == 1
    assert world.now == pytest.approx(9.99)


def test_the_budget_ends_retries_and_successes_refill_it():
    world = World([(0, CODE.UNAVAILABLE)] * 4, retry=Retry(attempts=9, budget=3))
    assert world.fail().attempts == 4
    world.script = [(0, CODE.UNAVAILABLE)]
    assert world.fail().attempts == 1
    world.script = [(0, None)] * 5 + [(0, CODE.UNAVAILABLE), (0, None)]
    for _ in range(6):
        assert world.call() == "answer"


def test_the_budget_never_exceeds_its_start():
    budget = Budget(Retry(budget=1))
    for _ in range(100):
        budget.succeeded()
    assert [budget.take(), budget.take()] == [True, False]


def test_no_hedge_for_a_quick_answer():
    world = World([(0.1, None)], retry=Retry(hedge_after=0.2))
    assert world.call() == "answer"
    assert len(world.sent) == 1


def test_the_hedge_wins():
    world = World([(5, None), (0.1, None)], retry=Retry(hedge_after=0.2, attempt_timeout=9))
    assert world.call() == "answer"
    assert world.now == pytest.approx(0.3)
    assert world.sent == [("a:1", 0, 9), ("b:1", 0.2, 9)]
    assert world.stopped == [0]


def test_the_hedged_attempt_wins():
    world = World([(0.5, None), (5, None)], retry=Retry(hedge_after=0.2))
    assert world.call() == "answer"
    assert world.now == pytest.approx(0.5)
    assert world.stopped == [1]


def test_a_hedge_that_wins_is_no_trouble_of_the_other():
    world = World([(0.5, None), (0.1, None)] * 4, retry=Retry(hedge_after=0.2))
    for _ in range(4):
        assert world.call(timeout=10) == "answer"
    assert len(world.sent) == 8
    assert [endpoint.troubles for endpoint in world.endpoints] == [0, 0, 0]


def test_no_hedge_without_a_budget():
    world = World([(0.5, None)], retry=Retry(hedge_after=0.2, budget=0))
    assert world.call() == "answer"
    assert len(world.sent) == 1


def test_a_hedge_that_fails_leaves_the_other_attempt():
    world = World([(0.5, None), (0.1, CODE.UNAVAILABLE)], retry=Retry(hedge_after=0.2))
    assert world.call() == "answer"
    assert world.now == pytest.approx(0.5)


class SlowOnce(FakeChannel):
    """Never answers the first request that is sent in the background."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Future[object] | None = None

    def unary_unary(self, path: str, **serializers: Callable[..., object]) -> object:
        call = super().unary_unary(path, **serializers)

        class Slow:
            def future(_, request: object, **options: object) -> "Future[object]":
                if self.first is None:
                    self.first = Future()
                    return self.first
                return call.future(request, **options)

        return Slow()


def test_the_slower_of_two_attempts_is_cancelled():
    channel = SlowOnce()
    client = ClassifierClient(channel=channel, retry=Retry(hedge_after=0.01))
    assert client.status()[0].version == 1
    assert channel.first is not None
    assert channel.first.cancelled()


def test_the_slower_of_two_tasks_is_cancelled():
    cancelled = []

    class Slow(AsyncFakeChannel):
        def unary_unary(self, path: str, **serializers: Callable[..., object]) -> object:
            call, count = super().unary_unary(path, **serializers), itertools.count()

            async def slow(request: object, **options: object) -> object:
                try:
                    await asyncio.sleep(0 if next(count) else 60)
                except asyncio.CancelledError:
                    cancelled.append(True)
                    raise
                return await call(request, **options)

            return slow

    async def hedge() -> None:
        client = AsyncClassifierClient(channel=Slow(), retry=Retry(hedge_after=0.01))
        assert (await client.status())[0].version == 1
        await asyncio.sleep(0.01)

    asyncio.run(hedge())
    assert cancelled == [True]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attempts": 0}, "`attempts` must be at least 1. Received: 0"),
        ({"first_pause": 0}, "`first_pause` must be above 0 seconds. Received: 0"),
        ({"longest_pause": 0.01}, "`longest_pause` must be at least `first_pause`. Received: 0.01"),
        ({"budget": -1}, "`budget` must be at least 0. Received: -1"),
        ({"refill": 2}, "`refill` must be between 0 and 1. Received: 2"),
        ({"attempt_timeout": 0}, "`attempt_timeout` must be above 0 seconds, or None. Received: 0"),
        ({"hedge_after": 0}, "`hedge_after` must be above 0 seconds, or None. Received: 0"),
    ],
)
def test_retry_arguments(options, text):
    with pytest.raises(InvalidInput, match=text):
        Retry(**options)


# ---------------------------------------------------------------- endpoints


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoints(clock):
    return Endpoints(["a:1", "b:1", "c:1"], lambda _: None, clock=clock)


def test_endpoints_are_used_in_turn(endpoints):
    a, b, c = endpoints
    assert [endpoints.pick() for _ in range(4)] == [a, b, c, a]


def test_an_endpoint_that_fails_is_skipped_for_a_second(endpoints, clock):
    _, b, _ = endpoints
    endpoints.failed(b, CODE.UNAVAILABLE, clock.now)
    assert b not in [endpoints.pick() for _ in range(6)]
    clock.now = 1.0
    assert b in [endpoints.pick() for _ in range(3)]


def test_an_endpoint_that_fails_again_is_skipped_for_longer(endpoints, clock):
    _, b, _ = endpoints
    clock.now = 5.0
    for seconds in (1, 2, 4, 8, 16, 30, 30, 30):
        endpoints.failed(b, CODE.UNAVAILABLE, clock.now)
        clock.now += seconds - 0.1
        assert b not in [endpoints.pick() for _ in range(6)]
        clock.now += 0.1
        assert b in [endpoints.pick() for _ in range(3)]


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED])
@pytest.mark.parametrize("calls", [6, 7, 100])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_an_outage_with_many_calls_in_flight_counts_once(endpoints, clock, code, calls, spread):
    a, _, _ = endpoints
    clock.now = 10.0
    for _ in range(calls):
        endpoints.failed(a, code, began=9.5)
        clock.now += spread
    needed = 1 if code == CODE.UNAVAILABLE else 3
    assert a.ejected_until == pytest.approx(11.0 + (needed - 1) * spread)
    clock.now = 30.0
    endpoints.failed(a, code, began=29.0)
    assert a.ejected_until == 32.0


def test_a_request_sent_while_all_are_skipped_is_part_of_the_outage(endpoints, clock):
    for endpoint in endpoints:
        endpoints.failed(endpoint, CODE.UNAVAILABLE, clock.now)
    clock.now = 0.5
    endpoints.failed(endpoints.pick(), CODE.UNAVAILABLE, clock.now)
    assert [endpoint.ejected_until for endpoint in endpoints] == [1.0] * 3


def test_a_success_ends_the_series_of_failures(endpoints, clock):
    _, b, _ = endpoints
    for now in (0.0, 1.0):
        clock.now = now
        endpoints.failed(b, CODE.UNAVAILABLE, now)
    endpoints.succeeded(b)
    endpoints.failed(b, CODE.UNAVAILABLE, clock.now)
    assert b.ejected_until == 2.0


@pytest.mark.parametrize("code", [CODE.RESOURCE_EXHAUSTED, CODE.DEADLINE_EXCEEDED])
def test_an_endpoint_is_skipped_after_three_troubles(endpoints, clock, code):
    _, _, c = endpoints
    clock.now = 4.0
    for _ in range(2):
        endpoints.failed(c, code, clock.now)
    assert c.ejected_until == 0
    endpoints.succeeded(c)
    for _ in range(2):
        endpoints.failed(c, code, clock.now)
    assert c.ejected_until == 0
    endpoints.failed(c, code, clock.now)
    assert c.ejected_until == 5.0


def test_one_that_was_unreachable_is_skipped_at_its_first_trouble(endpoints, clock):
    _, _, c = endpoints
    endpoints.failed(c, CODE.UNAVAILABLE, clock.now)
    clock.now = 4.0
    endpoints.failed(c, CODE.DEADLINE_EXCEEDED, clock.now)
    assert c.ejected_until == 6.0


@pytest.mark.parametrize("code", [CODE.INVALID_ARGUMENT, CODE.INTERNAL, CODE.CANCELLED])
def test_an_answer_is_no_failure_of_the_endpoint(endpoints, clock, code):
    a, _, _ = endpoints
    for _ in range(9):
        endpoints.failed(a, code, clock.now)
    assert endpoints.pick() is a


def test_if_all_are_skipped_the_one_that_returns_first_is_used(endpoints, clock):
    a, b, c = endpoints
    for now, endpoint in ((0.3, a), (0.1, b), (0.2, c)):
        clock.now = now
        endpoints.failed(endpoint, CODE.UNAVAILABLE, now)
    assert endpoints.pick() is b


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("a:1", ["a:1"]),
        ("a:1, b:2", ["a:1", "b:2"]),
        (["a:1", "b:2"], ["a:1", "b:2"]),
        ("dns:///name:8500", ["dns:///name:8500"]),
        ("localhost:65535,[::1]:1", ["localhost:65535", "[::1]:1"]),
        ("dns:name, dns://8.8.8.8:53/name:8500", ["dns:name", "dns://8.8.8.8:53/name:8500"]),
        (["ipv4:10.0.0.1:1,10.0.0.2:2"], ["ipv4:10.0.0.1:1,10.0.0.2:2"]),
        (["ipv6:[::1]:8500", "unix:/tmp/a:b", "xds:///x"], ["ipv6:[::1]:8500", "unix:/tmp/a:b", "xds:///x"]),
    ],
)
def test_addresses(target, addresses):
    assert addresses_of(target) == addresses


@pytest.mark.parametrize("port", ["99999", "65536", "70000", "0", "00", "131072", "999999999"])
@pytest.mark.parametrize(
    "address",
    ["localhost:{}", "10.0.0.1:{}", "[::1]:{}", "dns:///name:{}", "ipv4:1.2.3.4:5,1.2.3.4:{}", "ipv6:[::1]:{}"],
)
def test_ports_that_there_are_not(make, address, port):
    target = address.format(port)
    with pytest.raises(InvalidInput, match=re.escape(f"must have a port from 1 to 65535. Received: {target!r}")):
        make([target])


@pytest.mark.parametrize(
    "address",
    [
        "name",
        "localhost:",
        ":8500",
        "a:b",
        "a:1:2",
        "::1:8500",
        "[::1]",
        "a:-1",
        "a: 1",
        "a b:1",
        "a/b:1",
        "u@a:1",
        "a:¹",
        "ftp://a:1",
    ],
)
def test_what_is_not_the_address_of_a_server(make, address):
    with pytest.raises(InvalidInput, match=re.escape(f"must be host:port, or several. Received: {address!r}")):
        make([address])


LOCAL = ["localhost:1", "LocalHost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/tmp/x", "dns:///localhost:1"]
LOCAL += ["dns:localhost:1", "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "dns:127.0.0.1"]
OTHERS = ["example.org:1", "10.0.0.1:1", "dns:///models:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "localhost.org:1", "[::2]:1"]
OTHERS += ["dns://10.0.0.1/localhost:1", "xds:///localhost:1", "0.0.0.0:1"]


@pytest.mark.parametrize("address", LOCAL)
def test_local_addresses(address):
    assert is_local(address)
    assert ("grpc.enable_http_proxy", 0) in channel_options(address, 9, 300)


@pytest.mark.parametrize("address", OTHERS)
def test_addresses_of_other_machines(address):
    assert not is_local(address)
    assert ("grpc.enable_http_proxy", 1) in channel_options(address, 9, 300)


# ---------------------------------------------------------------- images


class Picky(FakeChannel):
    """A model that can't decode images which end in "bad"; remembers how many images each request had."""

    def _predict(self, request):
        images = list(request.inputs["image_bytes"].string_val)
        self.sizes = [*getattr(self, "sizes", []), len(images)]
        if any(image.endswith(b"bad") for image in images):
            raise FakeRpcError(CODE.INVALID_ARGUMENT, "Can't decode")
        self.ranking = [(images[0].decode(errors="ignore")[-2:], 0.5)]
        response = super()._predict(request)
        labels = response.outputs["classes"].string_val
        for place, image in enumerate(images):
            labels[place] = image[-2:]
        return response


def jpegs(count, bad=()):
    return [b"\xff\xd8\xff" + (b"%02d" % n if n not in bad else b"bad") for n in range(count)]


def test_batches_in_order_with_failed_images_in_their_places():
    channel = Picky()
    client = ClassifierClient(channel=channel, batch_size=8, window=3)
    found = client.classify(jpegs(50, bad=(3, 17, 18)), on_error="return")
    for place, answer in enumerate(found):
        if place in (3, 17, 18):
            assert isinstance(answer, InvalidInput)
            assert f"images[{place}]: Can't decode (INVALID_ARGUMENT from the given channel" in str(answer)
        else:
            assert answer[0].label == f"{place:02d}"
    assert max(channel.sizes) == 8


def test_the_first_image_that_fails_is_raised():
    with pytest.raises(InvalidInput, match=r"images\[17\]: Can't decode"):
        ClassifierClient(channel=Picky()).classify(jpegs(50, bad=(17,)))


def test_an_image_that_can_not_be_sent_keeps_its_place():
    found = ClassifierClient(channel=Picky()).classify([b"no image", *jpegs(2)], on_error="return")
    assert "images[0] must be a JPEG" in str(found[0])
    assert [answer[0].label for answer in found[1:]] == ["00", "01"]


def test_batches_keep_within_a_message():
    channel = Picky()
    images = [b"\xff\xd8\xff" + bytes(3000) + b"%02d" % n for n in range(9)]
    found = ClassifierClient(channel=channel, max_message_bytes=4096 + 10_000).classify(images)
    assert [ranking[0].label for ranking in found] == [f"{n:02d}" for n in range(9)]
    assert max(channel.sizes) == 3


def test_a_stream_reads_no_further_than_its_window():
    read = []

    def images():
        for number, image in enumerate(jpegs(100)):
            read.append(number)
            yield image

    stream = ClassifierClient(channel=Picky(), batch_size=2, window=3).stream(images())
    answer = next(stream)
    assert (answer.source, answer.ranking[0].label, answer.error) == ("images[0]", "00", None)
    assert len(read) <= 2 * 3 + 1


def test_a_stream_that_is_closed_ends_its_threads():
    client = ClassifierClient(channel=Picky(), batch_size=2, window=3)
    stream = client.stream(jpegs(100))
    next(stream)
    before = threading.active_count()
    stream.close()
    assert threading.active_count() <= before - 1
    assert len(list(client.stream(jpegs(7)))) == 7


def test_a_directory_is_its_image_files(png, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.png", "a.PNG", "b/c.png"):
        (tmp_path / name).write_bytes(png)
    (tmp_path / "notes.txt").write_text("no image")
    answers = list(ClassifierClient(channel=FakeChannel()).stream(tmp_path))
    assert [os.path.relpath(answer.source, tmp_path) for answer in answers] == ["a.PNG", "b/c.png", "z.png"]


def test_a_directory_without_images(tmp_path):
    with pytest.raises(InvalidInput, match="There must be at least one image. Received: none"):
        ClassifierClient(channel=FakeChannel()).classify(tmp_path)


def without_encoded(response: pb.GetModelMetadataResponse) -> pb.GetModelMetadataResponse:
    signatures = pb.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    del signatures.signature_def["encoded"]
    response.metadata["signature_def"].value = signatures.SerializeToString()
    return response


class PixelsOnly(FakeChannel):
    """A model without `encoded`: class n for an image whose mean is n."""

    def __init__(self, dtype=np.float32, error=CODE.FAILED_PRECONDITION, **options):
        super().__init__(
            inputs={"images": np.zeros((1, 8, 6, 3), dtype)},
            outputs={"probabilities": np.zeros((1, 4), np.float32)},
            **options,
        )
        self._missing = error

    def _metadata(self, request):
        return without_encoded(super()._metadata(request))

    def _predict(self, request):
        if request.model_spec.signature_name == "encoded":
            raise FakeRpcError(self._missing, 'Serving signature key "encoded" not found.')
        images = to_array(request.inputs["images"])
        assert images.shape[1:] == (8, 6, 3)
        self.outputs = {"probabilities": np.eye(4, dtype=np.float32)[images.mean((1, 2, 3)).round().astype(int)]}
        return super()._predict(request)


def file(value: int, size: tuple[int, int] = (30, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images() -> list[bytes | np.ndarray]:
    """Files and arrays, of the model's size and of others."""
    return [file(2), np.full((8, 6, 3), 1, np.uint8), np.full((5, 9), 3, np.uint8), file(0, (6, 8))]


@pytest.mark.parametrize("missing", [CODE.FAILED_PRECONDITION, CODE.INVALID_ARGUMENT])
def test_without_the_signature_encoded_images_are_decoded_here(images, missing):
    channel = PixelsOnly(error=missing)
    client = ClassifierClient(channel=channel)
    assert [ranking[0].index for ranking in client.classify(images)] == [2, 1, 3, 0]
    assert client.classify(images)[0][0].label == "2"  # nobody knows the names
    requests = [r.model_spec.signature_name for r in channel.requests if isinstance(r, pb.PredictRequest)]
    assert requests == ["encoded", "serving_default", "serving_default"]  # once is enough to learn it


def test_labels_name_the_classes_of_a_model_that_does_not(images):
    client = ClassifierClient(channel=PixelsOnly(), labels=["zero", "one", "two", "three"])
    assert [ranking[0].label for ranking in client.classify(images, top_k=1)] == ["two", "one", "three", "zero"]


def test_an_image_that_can_not_be_decoded_here(png):
    found = ClassifierClient(channel=PixelsOnly()).classify([file(2), png[:40]], on_error="return")
    assert found[0][0].index == 2
    assert "images[1] must be an image that can be decoded. Received: " in str(found[1])


def test_not_as_many_labels_as_classes(images):
    with pytest.raises(InvalidInput, match="`labels` must have a label per class, 4. Received: 2"):
        ClassifierClient(channel=PixelsOnly(), labels=["a", "b"]).classify(images)


def test_arrays_that_fit_go_raw_where_the_labels_are_known(tmp_path):
    (tmp_path / "labels.txt").write_text("zero\none\ntwo\nthree\n")
    channel = PixelsOnly(np.uint8)
    client = ClassifierClient(channel=channel, labels=tmp_path / "labels.txt")
    (ranking,) = client.classify(np.full((8, 6, 3), 3, np.uint8), top_k=2)
    assert (ranking[0].label, ranking[0].score, len(ranking)) == ("three", 1.0, 2)
    sent = channel.requests[-1].inputs["images"]
    assert sent.dtype == pb.DT_UINT8
    assert len(sent.tensor_content) == 8 * 6 * 3
    assert [r.model_spec.signature_name for r in channel.requests] == ["", "serving_default"]


def test_a_model_that_takes_no_images():
    class Text(FakeChannel):
        def _metadata(self, request):
            return without_encoded(super()._metadata(request))

        def _predict(self, request):
            raise FakeRpcError(CODE.FAILED_PRECONDITION, 'Serving signature key "encoded" not found.')

    with pytest.raises(Unsupported, match="must have the signature `encoded`, or one input of shape"):
        ClassifierClient(channel=Text(inputs={"text": ["a"]})).classify(jpegs(1))


def test_a_new_version_with_other_inputs_is_noticed():
    channel = FakeChannel(inputs={"images": np.zeros((1, 8, 8, 1), np.float32)}, outputs={"y": [0.0]})
    client = ClassifierClient(channel=channel)
    client.predict({"images": np.zeros((1, 8, 8, 1), np.float32)})
    channel.inputs = {"images": np.zeros((1, 9, 9, 1), np.float32)}
    client.predict({"images": np.zeros((1, 9, 9, 1), np.float32)})  # refused by what was known; asked again
    with pytest.raises(InvalidInput, match=r"takes float32 of shape \(any, 9, 9, 1\)"):
        client.predict({"images": np.zeros((1, 8, 8, 1), np.float32)})


# ---------------------------------------------------------------- headers, hooks


def test_headers_and_tokens(make):
    channel = make.fake()
    tokens = iter(["first", "second"])
    client = make(channel=channel, metadata={"x-team": "zoo"}, token=lambda: next(tokens))
    client.status()
    client.classify(jpegs(1), metadata={"x-request-id": "7", "x-team": "shop"})
    assert channel.metadata == [
        {"x-team": "zoo", "authorization": "Bearer first"},
        {"x-team": "shop", "x-request-id": "7", "authorization": "Bearer second"},
    ]


@pytest.mark.parametrize("name", ["X-Team", "x-team", "X-TEAM", "x_Team.1"])
def test_upper_and_lower_case_headers_are_the_same(make, listen, name):
    seen = []

    def asks(request, context):
        seen.append(dict(context.invocation_metadata()))
        return good(request, context)

    with make(listen(asks), metadata={name: "zoo", "Authorization": "me"}) as client:
        client.classify(jpegs(1))
        client.classify(jpegs(1), metadata={name.swapcase(): "shop"})
    assert [(headers[name.lower()], headers["authorization"]) for headers in seen] == [("zoo", "me"), ("shop", "me")]


NAMES = ["", "x a", "x/y", "x:", ":path", "é", "x\n", "x-bin", "X-Bin", "grpc-timeout", "TE", "Host", "content-length"]
VALUES = ["a\nb", "a\0", "é", " a", "a ", "\t", "\N{SNOWMAN}", b"bytes", 3, None]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        *[({name: "a"}, f"Names in `metadata` must .* Received: {re.escape(repr(name))}") for name in (*NAMES, 3)],
        *[({"x": value}, "Values in `metadata` must .* Received: something else for 'x'") for value in VALUES],
        ({"x-a": "1", "X-A": "2"}, "must be different without regard to case.* Received: 'X-A'"),
    ],
)
def test_headers_that_can_not_be_sent(make, headers, text):
    """The same as over REST: see test_client_rest."""
    channel = make.fake()
    with pytest.raises(InvalidInput, match=text):
        make(channel=channel, metadata=headers).status()
    with pytest.raises(InvalidInput, match=text):
        make(channel=channel).classify(jpegs(1), metadata=headers)
    assert channel.requests == []


@pytest.mark.parametrize("token", ["a\nb", "é", " a", b"bytes", None])
def test_tokens_that_can_not_be_sent_are_not_shown(make, token):
    with pytest.raises(InvalidInput, match="^`token` must be text of printable ASCII .* Received: something else"):
        make(channel=make.fake(), token=lambda: token).status()


def test_tokens_are_sent_to_other_machines_only_over_tls(make):
    with pytest.raises(InvalidInput, match="sent to another machine only over TLS.* Received: example.org:443 without"):
        make("example.org:443", token="secret")
    make("localhost:1", token="fine").close()


def test_hooks_are_told_and_can_not_break_a_call(make, caplog):
    events = []

    def broken(event):
        raise RuntimeError("in the hook")

    client = make(channel=make.fake(), model="pets", hooks=[events.append, broken])
    client.classify(jpegs(2))
    assert "in the hook" in caplog.text
    (event,) = events
    assert (event.model, event.method, event.attempts, event.code) == ("pets", "Predict", 1, "OK")
    assert event.request_bytes > 10


def test_a_cancelled_call_is_told_as_such():
    world = World([(5, None)])
    steps = world.caller.call(methods.PREDICT, pb.PredictRequest(), model="tiny", timeout=10)
    steps.send(None)
    steps.close()
    assert [event.code for event in world.events] == ["CANCELLED"]


def test_prometheus():
    registry = prometheus_client.CollectorRegistry()
    channel = FakeChannel()
    client = ClassifierClient(channel=channel, model="pets", hooks=[prometheus_hook(registry)], retry=Retry(attempts=2))
    client.status()
    channel.error = CODE.UNAVAILABLE
    with pytest.raises(Unavailable):
        client.status()
    labels = {"model": "pets", "method": "GetModelStatus"}
    assert registry.get_sample_value("keraslight_client_calls_total", {**labels, "code": "OK"}) == 1
    assert registry.get_sample_value("keraslight_client_calls_total", {**labels, "code": "UNAVAILABLE"}) == 1
    assert registry.get_sample_value("keraslight_client_attempts_total", labels) == 3


def test_opentelemetry():
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    channel = FakeChannel()
    hook = opentelemetry_hook(provider.get_tracer("test"))
    client = ClassifierClient(channel=channel, model="pets", hooks=[hook], retry=Retry(attempts=1))
    client.status()
    channel.error = CODE.NOT_FOUND
    with pytest.raises(ModelNotFound):
        client.status()
    good, bad = memory.get_finished_spans()
    assert (good.name, good.attributes["rpc.grpc.status_code"], good.status.is_ok) == ("GetModelStatus", "OK", True)
    assert (bad.attributes["rpc.grpc.status_code"], bad.status.is_ok) == ("NOT_FOUND", False)
    assert 0 <= good.end_time - good.start_time < 1e9


# ---------------------------------------------------------------- life and death


def test_a_closed_client_says_so(make, server):
    client = make(server.address, "tiny")
    client.status()
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match=r"The client must be open. Received: a call after close\(\)"):
        client.status()


def _use(client, answers):
    try:
        answers.put(("answer", client.status()[0].state))
    except ClientClosed as error:
        answers.put(("error", str(error)))


@pytest.mark.parametrize(
    ("used", "expected"),
    [(True, "must be used in the process that made its first call"), (False, "AVAILABLE")],
    ids=["used before", "unused"],
)
def test_a_client_in_a_forked_process(used, expected):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    client = ClassifierClient(channel=FakeChannel())
    if used:
        client.status()
    child = context.Process(target=_use, args=(client, answers))
    child.start()
    child.join(30)
    assert expected in answers.get()[1]
    assert client.status()[0].state == "AVAILABLE"  # the parent's still works


def handler(answer):
    """Predict, answered by `answer(request, context)`."""
    predict = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(methods.PREDICT.service, {methods.PREDICT.name: predict})


@pytest.fixture
def listen():
    """Servers that answer as told."""
    servers = []

    def start(answer, credentials=None, *, own="127.0.0.1:0", options=()):
        server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        server.add_generic_rpc_handlers((handler(answer),))
        port = (
            server.add_insecure_port(own) if credentials is None else server.add_secure_port("localhost:0", credentials)
        )
        server.start()
        servers.append(server)
        return f"{own.partition(':')[0] if credentials is None else 'localhost'}:{port}"

    yield start
    for server in servers:
        server.stop(None)


def good(request, context):
    return FakeChannel([("yes", 1.0)])._predict(request)


def test_two_slow_servers_answer_as_one_does(make, listen):
    def slow(request, context):
        time.sleep(0.9)
        return good(request, context)

    with make([listen(slow), listen(slow)], timeout=1.5, labels=["yes"]) as client:
        assert client.predict({"image_bytes": [b""]}, "encoded")["classes"].tolist() == [[b"yes"]]


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_no_proxy_between_a_client_and_its_own_machine(make, listen, monkeypatch, variable):
    with socket.create_server(("127.0.0.1", 0)) as proxy:  # which never answers
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for address in (listen(good), listen(good).replace("127.0.0.1", "localhost")):
            with make(address, timeout=5) as client:
                assert client.classify(jpegs(1))[0][0].label == "yes"


class Names:
    """A DNS server with one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            data, client = self._socket.recvfrom(512)
            if not data:
                return
            end = data.index(0, 12) + 5
            found = self.addresses if data[end - 4 : end - 2] == b"\0\1" else []  # A, not AAAA
            record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4)
            head = data[:2] + b"\x85\x80" + struct.pack(">HHHH", 1, len(found), 0, 0)
            answers = [record + socket.inet_aton(address) for address in found]
            self._socket.sendto(head + data[12:end] + b"".join(answers), client)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize(("age", "noticed"), [(300, True), (0, False)])
def test_connections_that_end_make_new_servers_of_a_name_known(listen, age, noticed):
    """What the files of serving/deploy set."""
    asked = []
    options = [("grpc.max_connection_age_ms", age), ("grpc.max_connection_age_grace_ms", 5000)] if age else []
    address = listen(good, options=options)
    second = listen(lambda *call: asked.append(1) or good(*call), own=address.replace("127.0.0.1", "127.0.0.2"))
    with contextlib.closing(Names("127.0.0.1")) as names:
        target = f"dns://127.0.0.1:{names.port}/models.test:{address.rpartition(':')[2]}"
        fast = [*channel_options(target, 2**20, 300), ("grpc.dns_min_time_between_resolutions_ms", 100)]
        with grpc.insecure_channel(target, fast) as channel, ClassifierClient(channel=channel) as client:
            client.classify(jpegs(1))
            names.addresses.append(second.partition(":")[0])
            until = time.monotonic() + (10 if noticed else 0.8)
            while not asked and time.monotonic() < until:
                client.classify(jpegs(1))
                time.sleep(0.02)
    assert bool(asked) is noticed


def test_hedging_between_real_servers(make, listen):
    release = threading.Event()

    def slow(request, context):
        release.wait(10)
        return good(request, context)

    with make([listen(slow), listen(good)], retry=Retry(hedge_after=0.05), timeout=20) as client:
        began = time.monotonic()
        for _ in range(4):
            assert client.classify(jpegs(1))[0][0].label == "yes"
        assert time.monotonic() - began < 8
    release.set()


def busy(request, context):
    context.abort(CODE.RESOURCE_EXHAUSTED, "queue is full")


def test_retries_between_real_servers(make, listen):
    calls = []

    def counted(request, context):
        calls.append(1)
        busy(request, context)

    with make([listen(counted), listen(good)]) as client:
        for _ in range(8):
            assert client.classify(jpegs(1))[0][0].label == "yes"
    assert len(calls) == 3  # and then it is skipped


def test_retries_of_a_real_server_end(make, listen):
    client = make(listen(busy), retry=Retry(attempts=3, first_pause=0.01))
    with client, pytest.raises(Overloaded, match=r"queue is full \(RESOURCE_EXHAUSTED .* after 3 attempts\)") as caught:
        client.classify(jpegs(1))
    assert caught.value.attempts == 3


def test_a_deadline_of_a_real_server(make, listen):
    def asleep(request, context):
        time.sleep(1)
        return good(request, context)

    with make(listen(asleep), timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.classify(jpegs(1))
        assert time.monotonic() - began < 0.9


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A folder with self-signed certificates and keys of localhost and of client."""
    folder = tmp_path_factory.mktemp("signed")
    for name, *options in (("localhost", "-addext", "subjectAltName=DNS:localhost"), ("client",)):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*command, *files, *options], check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def pair(signed):
    """The server's key and certificate."""
    return (signed / "localhost.key").read_bytes(), (signed / "localhost.pem").read_bytes()


def test_tls(make, listen, signed, pair):
    seen = []

    def asks(request, context):
        seen.append(dict(context.invocation_metadata()).get("authorization"))
        return good(request, context)

    address = listen(asks, grpc.ssl_server_credentials([pair]))
    with make(address, credentials=tls(signed / "localhost.pem"), token="secret") as client:
        assert client.classify(jpegs(1))[0][0].label == "yes"
    assert seen == ["Bearer secret"]


def test_tls_with_a_certificate_that_nobody_trusts(make, listen, pair):
    address = listen(good, grpc.ssl_server_credentials([pair]))
    with make(address, credentials=tls(), retry=Retry(attempts=1)) as client, pytest.raises(Unavailable):
        client.classify(jpegs(1))


@pytest.fixture
def mutual(listen, signed, pair):
    """The address of a server that asks for the client's certificate."""
    ca = (signed / "client.pem").read_bytes()
    return listen(good, grpc.ssl_server_credentials([pair], ca, require_client_auth=True))


def test_mutual_tls(make, mutual, signed, pair):
    ours = tls(pair[1], signed / "client.pem", signed / "client.key")
    with make(mutual, credentials=ours) as client:
        assert client.classify(jpegs(1))[0][0].label == "yes"


def test_mutual_tls_without_a_certificate(make, mutual, pair):
    with (
        make(mutual, credentials=tls(pair[1]), retry=Retry(attempts=1)) as client,
        pytest.raises(Unavailable),
    ):
        client.classify(jpegs(1))


def test_a_key_without_its_certificate():
    with pytest.raises(InvalidInput, match="must be given together. Received: `key` alone"):
        tls(key=b"x")


def test_a_certificate_that_can_not_be_read():
    with pytest.raises(InvalidInput, match="'nowhere.pem' must be a PEM file. Received: No such file"):
        tls("nowhere.pem")


# ---------------------------------------------------------------- for users' tests


@pytest.mark.parametrize("folder", ["version folder", "folder of versions"])
def test_serve_in_process(version_folder, png, folder):
    servable = version_folder if folder == "version folder" else version_folder.parent
    with serve_in_process(servable, "tiny") as client:
        assert client.classify(png)[0][0].label in ("cat", "dog", "eel")


def test_serve_in_process_stops_its_server(version_folder):
    events = []
    with serve_in_process(version_folder, "tiny", hooks=[events.append]) as client:
        client.status()
    gone = ClassifierClient(events[0].address, "tiny", timeout=0.5)
    with gone, pytest.raises((Unavailable, DeadlineExceeded)):
        gone.status()


def test_the_fixture(version_folder, tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["keraslight_serving.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_it(serve_in_process):\n"
        f"    client = serve_in_process({str(version_folder)!r}, 'tiny')\n"
        "    assert client.status()[0].version == 1\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_model_not_found_is_no_reason_to_retry(make, server):
    with make(server.address, "other") as client, pytest.raises(ModelNotFound) as caught:
        client.status()
    assert caught.value.attempts == 1
