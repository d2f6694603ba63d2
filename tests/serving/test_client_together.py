"""Several blocking calls in one thread: their order, their pauses, and what is given up."""

import threading
import time
from concurrent.futures import Future

import grpc
import pytest
from keraslight_serving.client import ClassifierClient, Retry
from keraslight_serving.client._retry import Next, Start
from keraslight_serving.client._together import Together
from keraslight_serving.client.testing import FakeChannel, FakeRpcError


class Line:
    """An endpoint whose answers come when the test says so."""

    def __init__(self):
        self.futures = {}

    def call(self, method):
        return self

    def future(self, request, **_):
        self.futures[request] = Future()
        return self.futures[request]

    def __call__(self, request, **_):
        return f"at once {request}"


def asking(line, request):
    yield Start(line, None, request, 1.0, ())
    ended = yield Next(None)
    if ended.error is not None:
        raise ended.error
    return ended.response


def test_results_come_in_order_whichever_ends_first():
    line = Line()
    with Together() as together:
        for request in "abc":
            together.give(asking(line, request))
        assert (len(together), together.unfinished, together.ready()) == (3, 3, False)
        line.futures["b"].set_result("B")
        together.wait()
        assert (together.unfinished, together.ready()) == (2, False)
        line.futures["c"].set_exception(FakeRpcError(grpc.StatusCode.ABORTED, "no"))
        line.futures["a"].set_result("A")
        assert [together.take(), together.take()] == ["A", "B"]
        with pytest.raises(FakeRpcError, match="no"):
            together.take()
        assert not together


def test_a_pause_of_one_call_holds_up_no_other():
    line = Line()

    def pausing():
        yield Next(0.3)
        return "rested"

    began = time.monotonic()
    with Together() as together:
        together.give(pausing())
        together.give(asking(line, "a"))
        line.futures["a"].set_result("A")
        together.wait()
        assert together.unfinished == 1
        assert time.monotonic() - began < 0.3
        assert [together.take(), together.take()] == ["rested", "A"]
        assert time.monotonic() - began >= 0.3


def test_only_a_call_that_is_alone_blocks():
    line = Line()
    with Together() as together:
        together.give(asking(line, "a"), alone=True)
        assert together.take() == "at once a"
    assert not line.futures


def test_leaving_gives_up_what_has_not_ended():
    line, closed = Line(), []

    def guarded():
        try:
            yield from asking(line, "a")
        finally:
            closed.append(True)

    with Together() as together:
        together.give(guarded())
    assert closed
    assert line.futures["a"].cancelled()


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
    """What fails while the generator rests is sent again meanwhile, or the deadline would be over."""
    channel = FakeChannel(error=grpc.StatusCode.UNAVAILABLE)

    def images():
        yield from [b"\xff\xd8\xff"] * 4  # two are on their way when the next one is asked for
        time.sleep(0.1)
        channel.error = None
        time.sleep(1.5)
        yield b"\xff\xd8\xff"

    client = ClassifierClient(channel=channel, batch_size=1, window=8, timeout=1.0, retry=Retry(attempts=50))
    assert [ranking[0].label for ranking in client.classify(images())] == ["cat"] * 5
