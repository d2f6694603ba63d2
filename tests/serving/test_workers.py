"""--workers=2: processes behind one port, with one view of the versions."""

import os
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keraslight_serving.client import ClassifierClient, Retry
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.settings import Settings
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.workers.supervisor import Supervisor, worker_settings
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor

from tests.serving.helpers import until

IMAGES = np.random.default_rng(1).uniform(0, 255, (3, 8, 8, 1)).astype(np.float32)


def children(pid):
    """The workers among a process's children; multiprocessing has a helper of its own."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread's
        found.extend(child for child in file.read_text().split() if b"spawn_main" in cmdline(child))
    return sorted(map(int, found))


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it just ended
        return b""


def connections(address, count=12):
    """Channels with a connection each, so that the kernel deals them out to the workers."""
    return [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), ("grpc.channel_id", n)])
        for n in range(count)
    ]


def call(channel, method, request):
    stub = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
    return stub(request, timeout=60)


def predict(channel):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["images"].CopyFrom(to_tensor(IMAGES))
    response = call(channel, methods.PREDICT, request)
    return response.model_spec.version.value, to_array(response.outputs["probabilities"])


def outcome(channel):
    try:
        predict(channel)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def states(channel):
    request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="tiny"))
    return {
        status.version: status.state for status in call(channel, methods.GET_MODEL_STATUS, request).model_version_status
    }


@pytest.fixture(scope="module")
def base(version_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("workers") / "tiny"
    shutil.copytree(version_folder, base / "1")
    return base


@pytest.fixture(scope="module")
def two(launch, base):
    return launch(base, "--workers=2", "--file_system_poll_wait_seconds=0.1", "--grace_seconds=30")


@pytest.fixture(scope="module")
def expected(version_folder):
    with ModelServer("tiny", version_folder.parent) as server, ClassifierClient(server.address, "tiny") as client:
        return client.predict({"images": IMAGES})["probabilities"]


def activity(pid):
    """How busy a worker was: how often its threads have waited."""
    files = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read_text(), re.M)[1]) for file in files)


def test_both_workers_answer_and_alike(two, expected):
    workers = children(two.process.pid)
    assert len(workers) == 2
    before = [activity(pid) for pid in workers]
    for channel in connections(two.address):
        with channel:
            for _ in range(40):
                version, found = predict(channel)
                assert version == 1
                np.testing.assert_array_equal(found, expected)
    assert all(activity(pid) - count > 40 for pid, count in zip(workers, before, strict=True))


def test_both_workers_tell_the_state_of_the_version(two):
    for channel in connections(two.address):
        with channel:
            assert states(channel) == {1: pb.ModelVersionStatus.AVAILABLE}


def test_both_workers_are_healthy(two):
    for channel in connections(two.address):
        with channel:
            request = health_pb2.HealthCheckRequest(service="tiny")
            health = health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
            assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_all_change_to_a_new_version_and_pass_over_a_broken_one(two, base, version_folder, expected):
    channels = connections(two.address)
    seen, failures, stop = [], [], threading.Event()

    def hammer(channel):
        while not stop.is_set():
            try:
                began = time.monotonic()
                version, found = predict(channel)
                seen.append((began, time.monotonic(), version))
                np.testing.assert_array_equal(found, expected)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=hammer, args=(channel,)) for channel in channels[:6]]
    for thread in threads:
        thread.start()
    try:
        shutil.copytree(version_folder, base / ".2")
        (base / ".2" / "model.tflite").write_bytes(b"broken")
        (base / ".2").rename(base / "2")
        until(lambda: [states(channel).get(2) for channel in channels] == [pb.ModelVersionStatus.END] * len(channels))
        shutil.copytree(version_folder, base / ".3")
        (base / ".3").rename(base / "3")
        done = {1: pb.ModelVersionStatus.END, 2: pb.ModelVersionStatus.END, 3: pb.ModelVersionStatus.AVAILABLE}
        until(lambda: [states(channel) for channel in channels] == [done] * len(channels))
        time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {version for _, _, version in seen} == {1, 3}
    # Once version 3 has answered, version 1 does so for no longer than a message takes to reach the other worker.
    first_new = min(end for _, end, version in seen if version == 3)
    last_old = max(began for began, _, version in seen if version == 1)
    assert last_old - first_new < 1
    for channel in channels:
        channel.close()


def test_a_worker_that_dies_is_replaced_and_the_other_goes_on(two, expected):
    workers = children(two.process.pid)
    channels = connections(two.address)
    for channel in channels:
        predict(channel)
    os.kill(workers[0], signal.SIGKILL)
    codes = [outcome(channel) for channel in channels]
    assert codes.count(grpc.StatusCode.OK) >= 1
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    for channel in channels:
        channel.close()
    until(lambda: len(children(two.process.pid)) == 2 and workers[0] not in children(two.process.pid))
    with ClassifierClient(two.address, "tiny", timeout=60, retry=Retry(attempts=20)) as client:
        np.testing.assert_array_equal(client.predict({"images": IMAGES})["probabilities"], expected)
    until(lambda: "is process" in two.log.read_text())
    new = next(pid for pid in children(two.process.pid) if pid not in workers)
    before = activity(new)
    for channel in connections(two.address, 24):
        with channel:
            assert predict(channel)[0] == 3
    assert activity(new) - before > 10


def test_sigterm_drains_all(two):
    workers = children(two.process.pid)
    codes, channels = [], connections(two.address, 8)

    def ask(channel):
        while (code := outcome(channel)) == grpc.StatusCode.OK:
            pass
        codes.append(code)

    threads = [threading.Thread(target=ask, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert codes == []
    os.kill(workers[0], signal.SIGTERM)  # as a terminal's Ctrl-C, which all processes hear
    assert two.stop() == 0
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 8
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


def test_workers_end_with_their_supervisor(launch, base):
    server = launch(base, "--workers=2")
    workers = children(server.process.pid)
    assert len(workers) == 2
    server.end()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def test_there_is_at_least_one_worker(base):
    with pytest.raises(ValueError, match="`workers` must be at least 1. Received: 0"):
        Supervisor(0, Settings("tiny", base))


def test_a_taken_port_stops_the_start(base):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError, match="must be able to listen on"):
        Supervisor(2, Settings("tiny", base, port=taken.getsockname()[1])).start()


def test_batching_parameters_are_read_before_any_worker_starts(base, tmp_path):
    settings = Settings("tiny", base, enable_batching=True, batching_parameters_file=tmp_path / "missing")
    with pytest.raises(ValueError, match="Invalid protobuf file: '.*missing'"):
        Supervisor(2, settings)


def test_a_start_without_a_version_leaves_no_workers(tmp_path):
    supervisor = Supervisor(1, Settings("tiny", tmp_path))
    with pytest.raises(StartError, match="`model_base_path` must hold a version folder"):
        supervisor.start()
    assert supervisor.pids == []


@pytest.mark.parametrize(
    ("cpus", "workers", "given", "expected"),
    [
        (2, 2, {}, (1, 1)),
        (16, 2, {}, (4, 2)),
        (8, 1, {}, (4, 2)),
        (4, 8, {}, (1, 1)),
        (4, 1, {"num_threads": 2}, (2, 2)),
        (8, 2, {"num_interpreters": 3}, (2, 3)),
        (32, 2, {}, (4, 4)),
    ],
)
def test_workers_share_the_cpus(monkeypatch, cpus, workers, given, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cpus))
    found = worker_settings(Settings("tiny", ".", **given), workers)
    assert (found.num_threads, found.num_interpreters) == expected


def test_all_workers_die_while_a_version_comes(publish):
    base = publish(1)
    options = {"file_system_poll_wait_seconds": 0.05, "load_retry_interval_micros": 100_000}
    supervisor = Supervisor(2, Settings("tiny", base, **options)).start()
    try:
        before = supervisor.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        publish(2)
        with ClassifierClient(supervisor.address, "tiny", timeout=60, retry=Retry(attempts=100, budget=1000)) as client:
            until(lambda: client.predict({"images": IMAGES}) and client.metadata().version == 2)
        until(lambda: len(supervisor.pids) == 2)
        assert not set(before) & set(supervisor.pids)
    finally:
        supervisor.stop(1)


def test_a_request_that_takes_its_time_holds_up_no_later_version(slow_base, tmp_path):
    base = tmp_path / "tiny"
    shutil.copytree(slow_base, base)
    options = {"file_system_poll_wait_seconds": 0.05, "num_threads": 1}
    supervisor = Supervisor(2, Settings("tiny", base, **options)).start()
    try:
        with grpc.insecure_channel(supervisor.address) as channel:
            request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
            request.inputs["turns"].CopyFrom(to_tensor(np.array([1_000_000], np.int32)))
            stub = channel.unary_unary(methods.PREDICT.path, methods.PREDICT.request.SerializeToString)
            waiting = stub.future(request, timeout=20)
            time.sleep(0.5)
            for version in (2, 3):
                shutil.copytree(base / "1", base / ".copy")
                (base / ".copy").rename(base / str(version))
                until(lambda version=version: states(channel).get(version) == pb.ModelVersionStatus.AVAILABLE, 10)
            assert states(channel)[1] == pb.ModelVersionStatus.UNLOADING
            assert not waiting.done()
            waiting.cancel()
    finally:
        supervisor.stop(1)


# ---------------------------------------------------------------- several models


@pytest.fixture(scope="module")
def config_file(version_folder, tmp_path_factory):
    """Models `tiny`, versions 1 and 2, label `old` for 1; and `other`."""
    root = tmp_path_factory.mktemp("several")
    for version in ("tiny/1", "tiny/2", "other/7", "third/1"):
        shutil.copytree(version_folder, root / version)
    file = root / "models.config"
    file.write_text(
        f"""model_config_list {{
          config {{ name: "tiny" base_path: "{root}/tiny" model_platform: "tensorflow"
                    model_version_policy {{ all {{}} }} version_labels {{ key: "old" value: 1 }} }}
          config {{ name: "other" base_path: "{root}/other" model_platform: "tensorflow" }}
        }}"""
    )
    return file


@pytest.fixture(scope="module")
def several(config_file):
    options = {"model_config_file": config_file, "file_system_poll_wait_seconds": 0.1, "num_threads": 1}
    supervisor = Supervisor(2, Settings(**options)).start()
    yield supervisor
    supervisor.stop()


def version_of(channel, model, **choice):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name=model, **choice))
    request.inputs["images"].CopyFrom(to_tensor(IMAGES))
    return call(channel, methods.PREDICT, request).model_spec.version.value


def reload_request(root, *models):
    request = pb.ReloadConfigRequest()
    for name in models:
        request.config.model_config_list.config.add(name=name, base_path=str(root / name), model_platform="tensorflow")
    return request


@pytest.mark.parametrize(
    ("model", "choice", "version"),
    [("tiny", {}, 2), ("tiny", {"version_label": "old"}, 1), ("other", {}, 7)],
    ids=repr,
)
def test_all_workers_know_models_versions_and_labels(several, model, choice, version):
    for channel in connections(several.address):
        with channel:
            assert version_of(channel, model, **choice) == version


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"version_label": "new"}, "Unrecognized servable version label: new"),
        ({"version": {"value": 3}}, "Servable not found for request: Specific(tiny, 3)"),
    ],
    ids=repr,
)
def test_all_workers_reject_unknown_versions_and_labels(several, choice, text):
    for channel in connections(several.address):
        with channel, pytest.raises(grpc.RpcError) as caught:
            version_of(channel, "tiny", **choice)
        assert caught.value.details() == text


def test_all_workers_list_models_and_their_versions(several):
    for channel in connections(several.address):
        with channel:
            assert len(states(channel)) == 2
            listed = call(channel, methods.LIST_MODELS, pb.ListModelsRequest()).model
            assert [(one.name, len(one.model_version_status)) for one in listed] == [("other", 1), ("tiny", 2)]


@pytest.fixture
def channels(several):
    opened = connections(several.address)
    yield opened
    for channel in opened:
        channel.close()


def test_a_reload_that_one_worker_receives_is_everywhere(channels, config_file):
    call(channels[0], methods.HANDLE_RELOAD_CONFIG, reload_request(config_file.parent, "tiny", "third"))
    assert [version_of(channel, "third") for channel in channels] == [1] * len(channels)
    listed = call(channels[1], methods.LIST_MODELS, pb.ListModelsRequest()).model
    assert [one.name for one in listed] == ["third", "tiny"]


def test_a_worker_rejects_an_invalid_reload(channels, config_file):
    with pytest.raises(grpc.RpcError) as caught:
        call(channels[1], methods.HANDLE_RELOAD_CONFIG, reload_request(config_file.parent, "tiny", "tiny"))
    assert caught.value.details() == "Illegal to list model tiny multiple times in config list"


def test_a_reload_ends_when_its_caller_leaves(several, channels, config_file):
    stub = channels[2].unary_unary(
        methods.HANDLE_RELOAD_CONFIG.path, methods.HANDLE_RELOAD_CONFIG.request.SerializeToString
    )
    waiting = stub.future(reload_request(config_file.parent, "tiny", "nowhere"), timeout=60)  # waits for a folder
    until(lambda: "nowhere" in several.repository.models)
    assert any("(_run)" in thread.name for thread in threading.enumerate())  # the supervisor's
    waiting.cancel()
    until(lambda: not any("(_run)" in thread.name for thread in threading.enumerate()))
    assert [version_of(channel, "tiny") for channel in channels] == [2] * len(channels)


# ---------------------------------------------------------------- operations


def test_metrics_of_all_workers_are_added_up(publish, tmp_path):
    config = tmp_path / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    options = {"rest_api_port": 0, "monitoring_config_file": config}
    supervisor = Supervisor(2, Settings("tiny", publish(1), **options)).start()
    url = f"{supervisor.rest_address}/monitoring/prometheus/metrics"
    try:
        channels = connections(supervisor.address)
        for _ in range(2):
            for channel in channels:
                predict(channel)
        merged = Metrics(supervisor.metrics_directory)
        wanted = b':tensorflow:serving:request_count{model_name="tiny",status="OK"} 24'
        until(lambda: wanted in merged.render(), 10)  # each worker writes every second
        for _ in range(8):  # connections that the kernel deals out to both
            assert wanted in httpx.get(url).content
        os.kill(supervisor.pids[0], signal.SIGKILL)
        assert wanted in merged.render()  # nothing that was counted is forgotten
        merged.close()
        for channel in channels:
            channel.close()
    finally:
        supervisor.stop(1)
    assert not Path(supervisor.metrics_directory).exists()


def test_a_unix_socket_tokens_and_a_request_log(publish, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret")
    config = tmp_path / "models.config"
    config.write_text(
        f"""model_config_list {{ config {{ name: "tiny" base_path: "{publish(1)}" model_platform: "tensorflow"
            logging_config {{
                log_collector_config {{ type: "file" filename_prefix: "{tmp_path / "log"}" }}
                sampling_config {{ sampling_rate: 1 }}
            }} }} }}"""
    )
    options = {"grpc_socket_path": tmp_path / "grpc.sock", "auth_token_file": tokens}
    supervisor = Supervisor(2, Settings(model_config_file=config, **options)).start()
    try:
        for address in (supervisor.address, f"unix:{tmp_path / 'grpc.sock'}"):
            with grpc.insecure_channel(address) as channel:
                assert outcome(channel) == grpc.StatusCode.UNAUTHENTICATED
            with ClassifierClient(address, "tiny", token="secret") as client:
                assert client.predict({"images": IMAGES})
    finally:
        supervisor.stop(1)
    assert sum(path.stat().st_size > 3 * 64 * 4 for path in tmp_path.glob("log*.tfrecord")) >= 1


def test_tls_files_that_can_not_be_used(publish, tmp_path):
    with pytest.raises(StartError, match="`ssl_config_file` must be a readable text file. Received: "):
        Supervisor(2, Settings("tiny", publish(1), ssl_config_file=tmp_path / "no")).start()
