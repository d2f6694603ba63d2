"""How a server process ends: drained by one signal, at once by two, killed and started again."""

import signal
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keraslight_serving.client import ClassifierClient, Retry, ServingError
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor

CALLERS = 8
ROWS = 600  # a request of some milliseconds, so that the signal meets several in flight
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def predict_call(channel):
    method = methods.PREDICT
    return channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)


def request(images):
    message = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    message.inputs["images"].CopyFrom(to_tensor(images, content=True))
    return message


def probabilities(response):
    return to_array(response.outputs["probabilities"])


@pytest.fixture(scope="module")
def asked(server):
    """Requests, all different, and their right answers."""
    images = np.random.default_rng(11).uniform(0, 255, (CALLERS, ROWS, 8, 8, 1)).astype(np.float32)
    requests = [request(batch) for batch in images]
    with grpc.insecure_channel(server.address) as channel:
        answers = [probabilities(predict_call(channel)(message, timeout=60)) for message in requests]
    return list(zip(requests, answers, strict=True))


def hammer(address, asked):
    """Calls from 8 threads, each over its own connection, each until an error. Returns threads, right, wrong, codes."""
    right, wrong, codes, lock = [0], [], [], threading.Lock()

    def call(message, answer):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = predict_call(channel)
            while True:
                try:
                    found = probabilities(predict(message, timeout=60))
                except grpc.RpcError as error:
                    with lock:
                        codes.append(error.code())
                    return
                with lock:
                    right[0] += 1
                    if not np.array_equal(found, answer):
                        wrong.append(found)

    threads = [threading.Thread(target=call, args=pair) for pair in asked]
    for thread in threads:
        thread.start()
    return threads, right, wrong, codes


def test_sigterm_under_load_loses_no_accepted_request(version_folder, launch, asked):
    server = launch(version_folder.parent, "--grace_seconds=30")
    threads, right, wrong, codes = hammer(server.address, asked)
    while right[0] < 3 * CALLERS:
        time.sleep(0.01)
    before = right[0]
    assert server.stop() == 0
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert right[0] >= before
    assert wrong == []
    assert codes == [UNAVAILABLE] * CALLERS


def slow_call(channel, seconds):
    """A request that takes about so many seconds on this machine, once it has begun."""

    def started(turns):
        message = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
        message.inputs["turns"].CopyFrom(to_tensor(np.array([turns], np.int32)))
        return predict_call(channel).future(message, timeout=seconds + 120)

    started(10).result()
    began = time.monotonic()
    started(200).result()
    call = started(int(200 * seconds / (time.monotonic() - began)))
    time.sleep(0.5)
    assert not call.done()
    return call


def test_health_says_so_before_the_port_closes_and_requests_in_flight_finish(slow_base, launch, asked):
    server = launch(slow_base, "--grace_seconds=60")
    with grpc.insecure_channel(server.address) as channel:
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="tiny"))
        assert next(states).status == health_pb2.HealthCheckResponse.SERVING
        slow = slow_call(channel, 3)
        server.process.send_signal(signal.SIGTERM)
        assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
        states.cancel()
        with grpc.insecure_channel(server.address) as late, pytest.raises(grpc.RpcError) as caught:
            predict_call(late)(asked[0][0], timeout=20)
        assert caught.value.code() == UNAVAILABLE
        assert slow.result().outputs["done"].float_val
    assert server.process.wait(60) == 0


def test_a_second_signal_ends_the_server_at_once(slow_base, launch):
    server = launch(slow_base, "--grace_seconds=300")
    with grpc.insecure_channel(server.address) as channel:
        slow = slow_call(channel, 100)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None  # it waits for the request
        assert server.stop() == 128 + signal.SIGTERM
        assert isinstance(slow.exception(30), grpc.RpcError)


def test_a_request_that_outlasts_the_grace_does_not_keep_the_server(slow_base, launch):
    server = launch(slow_base, "--grace_seconds=0.2")
    with grpc.insecure_channel(server.address) as channel:
        slow = slow_call(channel, 100)
        assert server.stop(signal.SIGINT) == 0
        assert isinstance(slow.exception(30), grpc.RpcError)
    assert "Grace period expired with requests still running; exiting" in server.log.read_text()


def test_killed_and_started_again_at_the_same_port(version_folder, launch, asked):
    server = launch(version_folder.parent)
    port = server.address.rpartition(":")[2]
    images = np.zeros((1, 8, 8, 1), np.float32)
    failures, answers, stop = [], [], threading.Event()

    def ask():
        with ClassifierClient(server.address, "tiny", timeout=30, retry=Retry(attempts=50, budget=1000)) as client:
            while not stop.is_set():
                try:
                    answers.append(client.predict({"images": images})["probabilities"])
                except ServingError as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    while len(answers) < 50:
        time.sleep(0.01)
    server.end()
    again = launch(version_folder.parent, f"--port={port}")
    assert again.address == server.address
    count = len(answers)
    while len(answers) < count + 50:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
    assert len({answer.tobytes() for answer in answers}) == 1
