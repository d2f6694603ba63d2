"""A start that fails gives back all that it took: threads, files, and the ports that were open already."""

import socket
import threading
import time

import numpy as np
import psutil
import pytest
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.telemetry.tfrecord import to_record
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor


@pytest.fixture
def base(publish):
    """A base path whose warmup request starts the threads of the batches, as all servers here have them."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["images"].CopyFrom(to_tensor(np.zeros((1, 8, 8, 1), np.float32)))
    log = pb.PredictionLog()
    log.predict_log.request = request.SerializeToString()
    folder = publish(1)
    (folder / "1" / "assets.extra").mkdir(exist_ok=True)
    (folder / "1" / "assets.extra" / "tf_serving_warmup_requests").write_bytes(to_record(log.SerializeToString()))
    return folder


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def fail_to_start(base, tmp_path, **options) -> ModelServer:
    (tmp_path / "metrics").mkdir(exist_ok=True)
    server = ModelServer("tiny", base, enable_batching=True, metrics_directory=tmp_path / "metrics", **options)
    with pytest.raises(StartError):
        server.start()
    return server


def check_nothing_stays(attempt) -> None:
    attempt()  # what is made once in a process, whoever asks first
    threads, files = set(threading.enumerate()), psutil.Process().num_fds()
    for _ in range(3):
        attempt()
    deadline = time.monotonic() + 10  # grpc's own threads take a moment to end
    while (more := set(threading.enumerate()) - threads) or psutil.Process().num_fds() > files:
        assert time.monotonic() < deadline, (more, psutil.Process().num_fds(), files)
        time.sleep(0.05)


def test_no_version_that_loads(base, tmp_path):
    with (base / "1" / "assets.extra" / "tf_serving_warmup_requests").open("ab") as file:
        file.write(to_record(b"\xff"))  # after one that runs
    check_nothing_stays(lambda: fail_to_start(base, tmp_path))


def test_the_port_is_taken(base, tmp_path, taken):
    check_nothing_stays(lambda: fail_to_start(base, tmp_path, port=taken, rest_api_port=0))


def test_the_port_of_rest_is_taken(base, tmp_path, taken):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    check_nothing_stays(lambda: fail_to_start(base, tmp_path, port=port, rest_api_port=taken))
    with ModelServer("tiny", base, port=port) as server:  # the one for gRPC was open, and is free again
        assert server.port == port


def test_the_unix_socket_can_not_be_made(base, tmp_path):
    check_nothing_stays(lambda: fail_to_start(base, tmp_path, grpc_socket_path=tmp_path / "missing" / "socket"))


@pytest.mark.parametrize("option", ["ssl_config_file", "auth_token_file", "monitoring_config_file"])
def test_a_file_that_can_not_be_read(base, tmp_path, option):
    check_nothing_stays(lambda: fail_to_start(base, tmp_path, **{option: tmp_path / "missing"}))


def test_a_model_config_file_that_can_not_be_read(tmp_path):
    def start():
        with pytest.raises(StartError):
            ModelServer(model_config_file=tmp_path / "missing", enable_batching=True, metrics_directory=tmp_path)

    check_nothing_stays(start)


def test_a_server_that_failed_is_not_started_again(base, tmp_path):
    server = fail_to_start(base, tmp_path, ssl_config_file=tmp_path / "missing")
    with pytest.raises(RuntimeError, match="A server can be started once"):
        server.start()


def test_a_server_that_stopped_is_not_started_again(base):
    with ModelServer("tiny", base) as server:
        server.stop()
        with pytest.raises(RuntimeError, match="A server can be started once"):
            server.start()
