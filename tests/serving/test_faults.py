"""Bad clients, bad files, too much work and a bad clock: the server process answers on, right, and nothing leaks."""

import contextlib
import re
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor

from tests.serving_attack import (
    DATA,
    END_STREAM,
    HEADERS,
    IMAGES,
    PREFACE,
    Code,
    answer,
    connect,
    frame,
    outcome,
    predict,
    read_frames,
)

# ---------------------------------------------------------------- connections


def test_a_client_that_trickles_its_request(faulty):
    message = predict(IMAGES[:1]).SerializeToString()
    body = b"\0" + struct.pack(">I", len(message)) + message
    slow = [connect(faulty) for _ in range(30)]
    for place in range(0, len(body), 16):
        last = END_STREAM if place + 16 >= len(body) else 0
        for connection in slow:
            connection.sendall(frame(DATA, last, 1, body[place : place + 16]))
        if place % 160 == 0:
            began = time.monotonic()
            answer(faulty.channel, methods.PREDICT, predict(IMAGES), timeout=20)
            assert time.monotonic() - began < 10
    for connection in slow:
        frames = read_frames(connection, HEADERS)
        data = b"".join(payload for kind, payload in frames if kind == DATA)
        found = to_array(pb.PredictResponse.FromString(data[5:]).outputs["probabilities"])
        np.testing.assert_allclose(found, np.frombuffer(faulty.expected[0], np.float32).reshape(2, 3)[:1], atol=1e-6)
        connection.close()


def test_clients_that_disconnect_in_mid_request(faulty):
    for n in range(100):
        connection = connect(faulty)
        if n % 2:
            connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 1000) + bytes(n)))
        if n % 3 == 0:  # a reset rather than an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def test_the_operator_can_bound_calls_whose_message_never_comes(version_folder):
    arguments = "grpc.max_connection_age_ms=300,grpc.max_connection_age_grace_ms=300"
    over = threading.Event()

    def nothing():
        over.wait()
        yield from ()

    own = [("grpc.use_local_subchannel_pool", 1)]  # else both channels share a connection
    with (
        ModelServer("tiny", version_folder.parent, grpc_channel_arguments=arguments) as server,
        grpc.insecure_channel(server.address, own) as silent,
        grpc.insecure_channel(server.address, own) as busy,
    ):
        try:
            waiting = silent.stream_unary(methods.PREDICT.path, bytes, bytes).future(nothing(), timeout=60)
            for _ in range(200):  # over several connections, without an error
                answer(busy, methods.PREDICT, predict(IMAGES[:1]))
                time.sleep(0.01)
            assert waiting.code() is grpc.StatusCode.UNAVAILABLE
            assert waiting.details() == "max connection age"
        finally:
            over.set()


def test_two_gib_announced_and_never_sent(faulty):
    before = faulty.memory()
    waiting = [connect(faulty) for _ in range(30)]
    for connection in waiting:
        connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 2**31 - 1) + b"some"))
    answer(faulty.channel, methods.PREDICT, predict(IMAGES), timeout=20)
    time.sleep(0.5)
    assert faulty.memory() - before < 100
    for connection in waiting:
        connection.close()


def test_more_than_2_gib_announced(faulty):
    with connect(faulty) as connection:
        connection.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", 2**32 - 1) + b"some"))
        trailers = b"".join(payload for kind, payload in read_frames(connection, HEADERS) if kind == HEADERS)
        assert b"larger than max" in trailers


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000), PREFACE + bytes(range(256)) * 9])
def test_connections_that_do_not_speak_grpc(faulty, noise):
    host, port = faulty.address.split(":")
    for _ in range(10):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(noise)
            while connection.recv(65536):  # until it is closed
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483647\r\n\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{",
        b"GET /v1/models/" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        b"\0" * 1000,
        PREFACE,
    ],
    ids=["2 GiB", "minus one", "4 GiB chunk", "no length", "long URL", "many headers", "zeros", "HTTP/2"],
)
def test_http_that_is_none_or_never_ends(faulty, sent):
    host, port = faulty.rest_address.removeprefix("http://").split(":")
    before = faulty.memory()
    waiting = []
    for _ in range(20):
        waiting.append(socket.create_connection((host, int(port)), timeout=30))
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            waiting[-1].sendall(sent)
    assert httpx.get(f"{faulty.rest_address}/v1/models/tiny", timeout=20).status_code == 200
    assert faulty.memory() - before < 100
    for connection in waiting:
        connection.close()


# ---------------------------------------------------------------- too much work


def slow_request(turns):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["turns"].CopyFrom(to_tensor(np.array([turns], np.int32)))
    return request


def test_more_requests_than_can_be_run_before_their_deadline(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(methods.PREDICT.path)
        request = slow_request(300).SerializeToString()
        began = time.monotonic()
        waiting = [call.future(request, timeout=6) for _ in range(700)]
        codes = Counter(outcome(one)[0] for one in waiting)
        assert time.monotonic() - began < 40
        assert set(codes) == {Code.OK, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
        # What nobody waits for any more is not run: 700 requests would take minutes.
        began = time.monotonic()
        answer(channel, methods.PREDICT, slow_request(1))
        assert time.monotonic() - began < 15


def test_a_full_batch_queue_refuses(launch, slow_base, tmp_path):
    parameters = tmp_path / "batching.config"
    parameters.write_text(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 2 } num_batch_threads { value: 1 }"
    )
    server = launch(slow_base, "--enable_batching", f"--batching_parameters_file={parameters}")
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(methods.PREDICT.path)
        waiting = [call.future(slow_request(300).SerializeToString(), timeout=60) for _ in range(20)]
        outcomes = Counter(outcome(one) for one in waiting)
        assert answer(channel, methods.PREDICT, slow_request(1))
    assert {code for code, _ in outcomes} == {Code.OK, Code.UNAVAILABLE}
    assert all("The batch scheduling queue" in text and "full" in text for code, text in outcomes if text)


def test_a_request_without_a_deadline_waits_its_turn(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(methods.PREDICT.path)
        waiting = [call.future(slow_request(20).SerializeToString()) for _ in range(60)]
        assert {outcome(one)[0] for one in waiting} == {Code.OK}


def test_cancelled_requests_make_room(launch, slow_base):
    server = launch(slow_base)
    with grpc.insecure_channel(server.address) as channel:
        method = methods.PREDICT
        call = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        waiting = [call.future(slow_request(500), timeout=600) for _ in range(200)]
        time.sleep(0.5)
        for one in waiting:
            one.cancel()
        began = time.monotonic()
        assert answer(channel, method, slow_request(1)).outputs["done"]
        assert time.monotonic() - began < 30


# ---------------------------------------------------------------- files


def test_truncated_and_unreadable_files_beside_a_good_version(launch, version_folder, tmp_path):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    server = launch(base, "--file_system_poll_wait_seconds=0.05", "--max_num_load_retries=0")
    lite, saved = (version_folder / name for name in ("model.tflite", "saved_model.pb"))
    number = 1
    with ClassifierClient(server.address, "tiny", timeout=60) as client:
        expected = client.predict({"images": IMAGES})["probabilities"]
        for file in (lite, saved):
            content = file.read_bytes()
            for part in (0, 1, 100, len(content) // 2, len(content) - 1):
                number += 1
                shutil.copytree(version_folder, tmp_path / "copy")
                (tmp_path / "copy" / file.name).write_bytes(content[:part])
                (tmp_path / "copy").rename(base / str(number))
        number += 1
        (base / str(number)).symlink_to(tmp_path / "nowhere")  # found, and not to be read
        number += 1
        (base / str(number)).mkdir()
        (base / str(number) / "model.tflite").symlink_to(tmp_path / "nowhere")
        number += 1
        (base / str(number)).mkdir()
        (base / str(number) / "model.tflite").mkdir()  # a folder in a file's place
        number += 1
        shutil.copytree(version_folder, tmp_path / "copy")
        (tmp_path / "copy").rename(base / str(number))
        until = time.monotonic() + 60
        while client.status()[0].version != number or client.status()[0].state != "AVAILABLE":
            np.testing.assert_array_equal(client.predict({"images": IMAGES})["probabilities"], expected)
            assert time.monotonic() < until, client.status()
        np.testing.assert_array_equal(client.predict({"images": IMAGES})["probabilities"], expected)
        states = Counter(status.state for status in client.status())
    assert states["AVAILABLE"] == 1
    assert server.process.poll() is None


def test_a_base_path_that_is_a_file_for_a_while(launch, version_folder, tmp_path):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    server = launch(base, "--file_system_poll_wait_seconds=0.05")
    with ClassifierClient(server.address, "tiny", timeout=60) as client:
        base.rename(tmp_path / "away")
        base.write_text("no folder")
        time.sleep(0.3)
        assert client.predict({"images": IMAGES})
        base.unlink()
        shutil.copytree(version_folder, tmp_path / "away" / "2")
        (tmp_path / "away").rename(base)
        until = time.monotonic() + 30
        while client.status()[0].version != 2 or client.status()[0].state != "AVAILABLE":
            assert time.monotonic() < until, client.status()
            time.sleep(0.05)
    assert server.log.read_text().count("Can't read the folder") == 1


# ---------------------------------------------------------------- time


def test_no_code_of_the_server_asks_for_the_time_of_day():
    folder = Path(methods.__file__).parent.parent / "server"
    files = [file for file in folder.rglob("*.py") if file.name != "request_log.py"]  # which dates requests
    assert len(files) > 10
    for file in files:
        assert not re.search(r"\btime\.time\(|\bdatetime\.(now|today|utcnow)\(", file.read_text()), file


def test_the_clock_jumps_while_requests_and_versions_come(version_folder, tmp_path, monkeypatch):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    real, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    seen, failures, stop = set(), [], threading.Event()
    with ModelServer("tiny", base, file_system_poll_wait_seconds=0.05) as server:
        channel = grpc.insecure_channel(server.address)

        def ask():
            while not stop.is_set():
                try:  # without a deadline: grpc's client sets those by the time of day
                    seen.add(answer(channel, methods.PREDICT, predict(IMAGES), timeout=None).model_spec.version.value)
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version, jump in ((2, 86_400.0), (3, -86_400.0), (4, 0.0)):
            shift[0] = jump
            shutil.copytree(version_folder, base / f".{version}")
            (base / f".{version}").rename(base / str(version))
            until = time.monotonic() + 20
            while version not in seen and time.monotonic() < until:
                time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        channel.close()
    assert failures == []
    assert seen == {1, 2, 3, 4}
