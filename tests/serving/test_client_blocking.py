"""Several blocking calls in one thread: their order, their pauses, and what is given up."""

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from keraslight_serving.client import ClassifierClient, Retry
from keraslight_serving.client._blocking import run, run_in_order
from keraslight_serving.client._retry import Attempt, Ended, Wait
from keraslight_serving.client.testing import FakeChannel, FakeRpcError

Futures = dict[str, "Future[str]"]


class Line:
    """An endpoint; `then(futures)` is called after each request, to answer some of those sent so far."""

    def __init__(self, then: Callable[[Futures], None] = lambda futures: None) -> None:
        self.futures: Futures = {}
        self._then = then

    def call(self, method: object) -> "Line":
        return self

    def future(self, request: str, **_: object) -> "Future[str]":
        self.futures[request] = Future()
        self._then(self.futures)
        return self.futures[request]

    def __call__(self, request: str, **_: object) -> str:
        return f"at once {request}"


def attempt(line: Line, request: str) -> Attempt:
    return Attempt(line, None, request, 1.0, (), False, False)


def asking(line: Line, request: str) -> Generator[Wait, Ended | None, Any]:
    ended = yield Wait((attempt(line, request),), None)
    assert ended is not None
    if ended.error is not None:
        raise ended.error
    return ended.response


def test_results_come_in_order_whichever_ends_first():
    def then(futures):
        if len(futures) == 3:
            futures["b"].set_result("B")
            futures["c"].set_exception(FakeRpcError(grpc.StatusCode.ABORTED, "no"))
            futures["a"].set_result("A")

    line = Line(then)
    results = run_in_order((asking(line, request) for request in "abc"), 3)
    assert [next(results), next(results)] == ["A", "B"]
    with pytest.raises(FakeRpcError, match="no"):
        next(results)
    assert list(results) == []


def test_a_call_that_has_ended_makes_room_for_the_next_before_its_turn():
    def then(futures):
        if len(futures) == 2:
            futures["b"].set_result("B")
        elif len(futures) == 3:
            futures["a"].set_result("A")
            futures["c"].set_result("C")

    line = Line(then)
    assert list(run_in_order((asking(line, request) for request in "abc"), 2)) == ["A", "B", "C"]


def test_a_pause_of_one_call_holds_up_no_other():
    line, ended = Line(lambda futures: futures["a"].set_result("A")), []

    def pausing():
        yield Wait((), 0.3)
        return "rested"

    def noting():
        result = yield from asking(line, "a")
        ended.append(time.monotonic())
        return result

    began = time.monotonic()
    assert list(run_in_order([pausing(), noting()], 2)) == ["rested", "A"]
    assert ended[0] - began < 0.3
    assert time.monotonic() - began >= 0.3


def test_a_call_that_is_alone_blocks():
    line = Line()
    assert run(asking(line, "a")) == "at once a"
    assert not line.futures


def test_one_of_several_calls_does_not_block():
    line = Line(lambda futures: futures["a"].set_result("A"))
    assert list(run_in_order([asking(line, "a")], 1)) == ["A"]


def test_an_attempt_that_is_waited_for_no_more_is_cancelled():
    line = Line(lambda futures: futures["b"].set_result("B") if "b" in futures else None)

    def hedging():
        first, second = attempt(line, "a"), attempt(line, "b")
        assert (yield Wait((first,), 0.01)) is None
        ended = yield Wait((first, second), None)
        assert (yield Wait((), 0)) is None
        assert line.futures["a"].cancelled()
        return ended.response

    assert run(hedging()) == "B"


def test_leaving_gives_up_what_has_not_ended():
    line, closed = Line(lambda futures: futures["a"].set_result("A") if len(futures) == 2 else None), []

    def guarded():
        try:
            yield from asking(line, "b")
        finally:
            closed.append(True)

    results = run_in_order([asking(line, "a"), guarded()], 2)
    assert next(results) == "A"
    results.close()
    assert closed
    assert line.futures["b"].cancelled()


class Counting(FakeChannel):
    """Answers a little later, from another thread, and counts what is on its way."""

    def __init__(self):
        super().__init__()
        self.flying = self.most = 0
        self._lock = threading.Lock()

    def unary_unary(self, path, **serializers):
        exchange = super().unary_unary(path, **serializers)
        channel = self

        class Call:
            def future(self, request, **options):
                done = Future()
                with channel._lock:
                    channel.flying += 1
                    channel.most = max(channel.most, channel.flying)

                def answer():
                    with channel._lock:
                        channel.flying -= 1
                    done.set_result(exchange(request, **options))

                threading.Timer(0.005, answer).start()
                return done

        return Call()


def test_classify_keeps_a_window_of_requests_on_their_way():
    channel = Counting()
    client = ClassifierClient(channel=channel, batch_size=1, window=3)
    found = client.classify([b"\xff\xd8\xff"] * 20)
    assert [ranking[0].label for ranking in found] == ["cat"] * 20
    assert channel.most == 3


def test_a_slow_source_of_images_holds_up_no_retry():
    """Requests that fail while the generator rests are retried meanwhile; afterwards the deadline would be over."""
    channel = FakeChannel(error=grpc.StatusCode.UNAVAILABLE)

    def images():
        yield from [b"\xff\xd8\xff"] * 4  # two are on their way when the next one is asked for
        time.sleep(0.1)
        channel.error = None
        time.sleep(1.5)
        yield b"\xff\xd8\xff"

    client = ClassifierClient(channel=channel, batch_size=1, window=8, timeout=1.0, retry=Retry(attempts=50))
    assert [ranking[0].label for ranking in client.classify(images())] == ["cat"] * 5
