"""grpc.health.v1: what load balancers and Kubernetes ask."""

import shutil
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keraslight_serving.server import ModelServer

State = health_pb2.HealthCheckResponse


@pytest.fixture
def ask():
    """`ask(server, service)` is the state that it reports."""
    channels = {}

    def check(server, service=""):
        channel = channels.setdefault(server.address, grpc.insecure_channel(server.address))
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status

    yield check
    for channel in channels.values():
        channel.close()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_the_server_and_its_services(server, ask):
    for service in ("", "ModelService", "PredictionService", "tiny"):
        assert ask(server, service) == State.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, "other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_model_without_a_version_is_not_serving(publish, ask):
    base = publish(1)
    with ModelServer("tiny", base, file_system_poll_wait_seconds=0.05) as server:
        assert ask(server, "tiny") == State.SERVING
        shutil.rmtree(base / "1")
        until(lambda: ask(server, "tiny") == State.NOT_SERVING)
        assert ask(server) == State.SERVING  # it could serve again
        publish(2)
        until(lambda: ask(server, "tiny") == State.SERVING)


def test_a_server_that_stops_says_so_first(publish):
    server = ModelServer("tiny", publish(1)).start()
    with grpc.insecure_channel(server.address) as channel:
        states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="tiny"))
        assert next(states).status == State.SERVING
        stopping = threading.Thread(target=server.stop, args=(5,))
        stopping.start()
        assert next(states).status == State.NOT_SERVING
        states.cancel()
        stopping.join(10)
        assert not stopping.is_alive()
