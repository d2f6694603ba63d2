"""The client while servers die, hang, come back, change their version or are too busy: real processes on loopback."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from keraslight_serving.client import ClassifierClient, Retry
from keraslight_serving.server import ModelServer
from keraslight_serving.wire import methods, serving_pb2 as pb

IMAGES = 2000
TIMEOUT = 8.0  # seconds a request, on a machine that may be busy; an attempt has a quarter of it


class Process:
    """A model server in a process of its own; `restart` starts it again at the same address."""

    def __init__(self, base, port=0):
        flags = [f"--port={port}", "--model_name=tiny", f"--model_base_path={base}", "--num_threads=1"]
        self.base = base
        self._process = subprocess.Popen(
            [sys.executable, "-m", "keraslight_serving.server", *flags, "--file_system_poll_wait_seconds=0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = re.search(r"listening on (127\.0\.0\.1:\d+)", self._process.stdout.readline())[1]

    def send(self, signal_):
        self._process.send_signal(signal_)

    def end(self):
        self._process.kill()
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def base(version_folder, tmp_path_factory):
    """A model without its SavedModel's signatures in use: raw pixels, so that no server imports TensorFlow."""
    base = tmp_path_factory.mktemp("faults") / "tiny"
    shutil.copytree(version_folder, base / "1")
    return base


@pytest.fixture(scope="module")
def healthy(base):
    """Two servers that nothing happens to."""
    servers = [Process(base), Process(base)]
    yield [server.address for server in servers]
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (IMAGES, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(base, images):
    """The answers of a server that nothing happens to, in one request."""
    with ModelServer("tiny", base) as server, ClassifierClient(server.address, "tiny", timeout=60) as client:
        return client.predict({"images": images.astype(np.float32)})["probabilities"].argmax(axis=1).tolist()


def killed(third):
    third.send(signal.SIGKILL)


def paused(third):
    third.send(signal.SIGSTOP)


def restarted(third):
    third.end()
    time.sleep(0.2)
    third.__init__(third.base, third.address.rpartition(":")[2])


def swapped(third):
    """Version 2 takes over from version 1."""
    shutil.copytree(third.base / "1", third.base / ".2")
    (third.base / ".2").rename(third.base / "2")
    time.sleep(0.5)
    shutil.rmtree(third.base / "1")


def classify_while(client, images, happen):
    """All answers. `happen()` begins after a quarter of the images and is over before the last quarter."""
    thread = threading.Thread(target=happen)

    def in_turn():
        for place, image in enumerate(images):
            if place == len(images) // 4:
                thread.start()
            if place == 3 * len(images) // 4:
                thread.join()
            yield image

    return list(client.stream(in_turn(), top_k=1))


def open_files():
    return len(os.listdir("/proc/self/fd"))


def client_threads():
    return sum(not thread.name.startswith("busy") for thread in threading.enumerate())


def settled(count, most, seconds=10):
    """Whether a count comes down to what it was: gRPC closes in the background."""
    until = time.monotonic() + seconds
    while count() > most and time.monotonic() < until:
        time.sleep(0.05)
    return count() <= most


def check(addresses, images, expected, happen):
    files, threads = open_files(), client_threads()
    events = []
    with ClassifierClient(
        addresses,
        "tiny",
        timeout=TIMEOUT,
        batch_size=4,
        window=4,
        labels=["cat", "dog", "eel"],
        retry=Retry(attempts=5, budget=100),
        hooks=[events.append],
    ) as client:
        found = classify_while(client, images, happen)
    assert [answer.source for answer in found] == [f"images[{n}]" for n in range(len(images))]
    assert [answer.error for answer in found] == [None] * len(images)
    assert [answer.ranking[0].index for answer in found] == expected
    seconds = [event.seconds for event in events]
    assert np.percentile(seconds, 99) <= TIMEOUT
    assert settled(open_files, files), "file descriptors leak"
    assert settled(client_threads, threads), "threads leak"
    return events


@pytest.mark.parametrize("fault", [killed, paused, restarted, swapped])
def test_every_image_is_answered_once_and_right(fault, base, healthy, images, expected, tmp_path):
    own = tmp_path / "tiny"
    shutil.copytree(base, own)
    third = Process(own)
    try:
        events = check([*healthy, third.address], images, expected, lambda: fault(third))
        if fault in (killed, paused):
            assert max(event.attempts for event in events) > 1  # the fault was felt
        else:
            with ClassifierClient(third.address, "tiny", timeout=TIMEOUT) as client:
                assert client.status()[0].state == "AVAILABLE"
    finally:
        third.end()


def test_one_of_three_is_always_too_busy(healthy, images, expected):
    refused = []

    def busy(request, context):
        refused.append(1)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full")

    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            busy,
            request_deserializer=method.request.FromString,
            response_serializer=pb.PredictResponse.SerializeToString,
        )
        for method in (methods.PREDICT, methods.GET_MODEL_METADATA)
    }
    server = grpc.server(futures.ThreadPoolExecutor(2, thread_name_prefix="busy"))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(methods.PREDICT.service, handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        check([*healthy, address], images, expected, lambda: None)
    finally:
        server.stop(None)
    assert 3 <= len(refused) < len(images) / 4 / 3  # asked less often than in turn


def test_one_of_three_accepts_and_never_answers(healthy, images, expected):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:
        events = check([*healthy, f"127.0.0.1:{hole.getsockname()[1]}"], images, expected, lambda: None)
    assert max(event.attempts for event in events) > 1
