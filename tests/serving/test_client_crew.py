"""The threads of the blocking client: order, errors, and nothing left behind."""

import threading
import time

import pytest
from keraslight_serving.client._crew import Crew


@pytest.mark.parametrize("helpers", [0, 1, 5])
def test_results_come_in_order_whoever_is_done_first(helpers):
    def work(number):
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    with Crew(work, helpers) as crew:
        for number in range(20):
            crew.give(number)
        assert len(crew) == 20
        assert [crew.take() for _ in range(20)] == [number * number for number in range(20)]
        assert not crew


def test_without_helpers_the_calling_thread_does_it_all():
    with Crew(lambda _: threading.current_thread(), 0) as crew:
        crew.give(None)
        assert crew.take() is threading.current_thread()


def test_helpers_work_at_the_same_time():
    together = threading.Barrier(4, timeout=10)  # raises unless four threads meet
    with Crew(lambda _: together.wait(), 3) as crew:
        for _ in range(4):
            crew.give(None)
        assert sorted(crew.take() for _ in range(4)) == [0, 1, 2, 3]


def test_an_error_is_raised_in_its_turn():
    with Crew(lambda number: 1 // number, 2) as crew:
        for number in (1, 0, 1):
            crew.give(number)
        assert crew.take() == 1
        with pytest.raises(ZeroDivisionError):
            crew.take()
        assert crew.take() == 1


def test_leaving_drops_what_nobody_has_begun_and_ends_the_threads():
    before = set(threading.enumerate())
    begun, go = [], threading.Event()

    def work(number):
        begun.append(number)
        go.wait(10)

    def interrupted():
        with Crew(work, 2) as crew:
            for number in range(50):
                crew.give(number)
            while len(begun) < 2:
                time.sleep(0.001)
            threading.Timer(0.1, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) == 2
    assert {thread for thread in threading.enumerate() if thread.name == "keraslight-client"} <= before
