"""`keraslight classify` and `keraslight load-test`, and the function behind the latter."""

import asyncio
import json
import re
import time

import numpy as np
import pytest
from keraslight_serving.client import AsyncClassifierClient, InvalidInput
from keraslight_serving.client.load_test import LoadReport, load_test
from keraslight_serving.client.testing import AsyncFakeChannel, FakeRpcError
from typer.testing import CliRunner

from keraslight.cli.app import app

runner = CliRunner()


def ask(*arguments):
    return runner.invoke(app, [str(a) for a in arguments])


def test_classify_a_folder_with_a_broken_image(server, png, tmp_path):
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(png)
    (tmp_path / "b.png").write_bytes(png[:40])
    common = (tmp_path, "--server", server.address, "--model", "tiny", "--timeout", 60)
    done = ask("classify", *common, "--json", "--top", 1)
    assert done.exit_code == 2
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert lines[0]["classes"][0]["label"] in ("cat", "dog", "eel")
    assert set(lines[0]["classes"][0]) == {"label", "score", "index"}
    assert f"images[1] ('{tmp_path / 'b.png'}')" in done.stderr
    (tmp_path / "b.png").unlink()
    done = ask("classify", *common, "--version", 1, "--thumbnails")
    assert done.exit_code == 0
    assert "a.png" in done.stdout
    assert "%" in done.stdout


def test_classify_errors(png, tmp_path):
    (tmp_path / "a.png").write_bytes(png)
    done = ask("classify", tmp_path / "a.png", "--server", "127.0.0.1:1", "--timeout", 2)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Unavailable: " in done.stderr
    done = ask("classify", tmp_path / "a.png", "--server", "nowhere")
    assert "InvalidInput: `target` must be host:port" in done.stderr


@pytest.mark.parametrize("loop", [("--concurrency", 2), ("--rate", 50)])
def test_load_test(loop, server, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png)
    plot = tmp_path / "latencies.png"
    common = (tmp_path / "a.png", "--server", server.address, "--model", "tiny", "--timeout", 60, "--seconds", 0.5)
    done = ask("load-test", *common, *loop, "--json", "--plot", plot)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["answers"] > 3
    assert report["errors"] == {}
    assert 0 < report["milliseconds"]["p50"] <= report["milliseconds"]["p99"] <= report["milliseconds"]["p100"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = ask("load-test", *common, *loop)
    assert "answers per second" in table.stdout
    assert "p99.9" in table.stdout


def measure(channel, **options):
    async def run():
        async with AsyncClassifierClient(channel=channel) as client:
            return await load_test(client, [b"\xff\xd8\xff"], **options)

    return asyncio.run(run())


def test_the_open_loop_does_not_leave_out_those_who_wait():
    """A server that stalls once: those who come meanwhile wait, and that is measured."""

    class Stalls(AsyncFakeChannel):
        count = 0

        def _predict(self, request):
            self.count += 1
            if self.count == 20:
                time.sleep(0.4)  # the whole loop, as a server with one worker
            return super()._predict(request)

    report = measure(Stalls(), rate=200, seconds=0.8, seed=1)
    waited = (report.latencies > 0.05).mean()
    assert 0.25 < waited < 0.75  # about half a run's requests were due in the stall
    assert len(report.latencies) == pytest.approx(160, rel=0.25)
    assert report.errors == {}


def test_failed_requests_are_counted():
    import grpc

    class Fails(AsyncFakeChannel):
        count = 0

        def _predict(self, request):
            self.count += 1
            if self.count % 2 == 0:
                raise FakeRpcError(grpc.StatusCode.INTERNAL, "on purpose")
            return super()._predict(request)

    report = measure(Fails(), concurrency=2, seconds=0.1)
    assert report.errors["InternalError"] == pytest.approx(len(report.latencies), abs=2)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ({}, {0: 0.01, 25: 0.2575, 50: 0.505, 90: 0.901, 99: 0.9901, 100: 1.0}),
        ({"DeadlineExceeded": 1}, {50: 0.51, 90: 0.91, 99: 1.0, 99.9: np.inf, 100: np.inf}),
        ({"DeadlineExceeded": 20, "Unavailable": 5}, {50: 0.63, 80: 1.0, 80.1: np.inf, 90: np.inf, 100: np.inf}),
        ({"Overloaded": 300}, {25: 1.0, 25.1: np.inf, 50: np.inf}),
    ],
)
def test_percentiles_of_a_hundred_known_latencies_and_failures(failures, expected):
    latencies = np.random.default_rng(0).permutation(np.arange(1, 101) / 100)
    report = LoadReport(10.0, latencies, failures)
    assert report.percentiles(tuple(expected)) == pytest.approx(expected)
    assert report.rate == 10


def test_percentiles_if_all_fail():
    assert LoadReport(1.0, np.array([]), {"Unavailable": 3}).percentiles((0.1, 50)) == {0.1: np.inf, 50: np.inf}


def test_the_command_shows_percentiles_that_failed(monkeypatch, png, tmp_path):
    (tmp_path / "a.png").write_bytes(png)
    reports = iter([{"Unavailable": 2}, {"Unavailable": 2}, {"Unavailable": 98}])

    async def run(*_, **options):
        errors = next(reports)
        return LoadReport(1.0, np.arange(1.0, 101 - sum(errors.values())) / 1000, errors)

    monkeypatch.setattr("keraslight_serving.client.load_test.load_test", run)
    plot = tmp_path / "latencies.png"
    done = ask("load-test", tmp_path / "a.png", "--json")
    assert done.exit_code == 2
    found = json.loads(done.stdout, parse_constant=pytest.fail)["milliseconds"]
    assert found == {"p50": 50.5, "p90": 90.1, "p95": 95.05, "p99": None, "p99.9": None, "p100": None}
    table = ask("load-test", tmp_path / "a.png", "--plot", plot).stdout
    assert re.search(r"p95 +│ 95\.05 ms", table)
    assert re.search(r"p99 +│ failed", table)
    assert re.search(r"slowest +│ failed", table)
    assert ask("load-test", tmp_path / "a.png", "--plot", plot).exit_code == 2


def test_load_test_arguments():
    for name in ("rate", "concurrency", "seconds"):
        with pytest.raises(InvalidInput, match=f"`{name}` must be above 0. Received: 0"):
            measure(AsyncFakeChannel(), **{name: 0})
    report = LoadReport(1.0, np.array([]), {})
    assert report.rate == 0
    assert np.isnan(report.percentiles()[50])
