"""Versions that come, go and fail, under requests."""

import shutil
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from keraslight_serving.client import ClassifierClient, ModelNotFound
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.testing import FakeServable
from keraslight_serving.wire import serving_pb2 as pb

from tests.serving.helpers import until

IMAGE = np.zeros((1, 8, 8, 1), np.float32)


def states(client):
    return {status.version: status.state for status in client.status()}


@pytest.fixture
def serve():
    """Servers and clients of a test's own, closed after it."""
    opened = []

    def start(base: Path) -> ClassifierClient:
        server = ModelServer("tiny", base, file_system_poll_wait_seconds=0.05).start()
        client = ClassifierClient(server.address, "tiny")
        opened.extend([server.stop, client.close])
        return client

    yield start
    for close in reversed(opened):
        close()


def test_a_new_version_takes_over_without_a_failed_request(publish, serve):
    client = serve(publish(1))
    served, failures, stop = set(), [], threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                client.predict({"images": IMAGE})
                served.add(client.metadata().version)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: served == {1})
        publish(2)
        until(lambda: served == {1, 2})
        until(lambda: states(client) == {1: "END", 2: "AVAILABLE"})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_new_version_that_is_broken_leaves_the_old_one_alone(publish, serve, caplog):
    base = publish(1)
    client = serve(base)
    publish(2, files={"model.tflite": b"no flatbuffer"})
    until(lambda: states(client).get(2) == "END")
    assert client.predict({"images": IMAGE})
    newest, oldest = client.status()
    assert "is not a valid Flatbuffer" in newest.error
    assert (oldest.version, oldest.state, oldest.error) == (1, "AVAILABLE", "")
    assert "Can't load tiny version 2" in caplog.text


def test_a_broken_version_is_tried_again_once_its_files_change(publish, serve, version_folder):
    base = publish(1)
    client = serve(base)
    publish(2, files={"model.tflite": b"half a file"})
    until(lambda: states(client).get(2) == "END")
    shutil.copy(version_folder / "model.tflite", base / "2")
    until(lambda: states(client) == {1: "END", 2: "AVAILABLE"})


def test_going_back_by_removing_the_new_version(publish, serve):
    base = publish(1)
    publish(2)
    client = serve(base)
    assert states(client) == {2: "AVAILABLE"}
    shutil.rmtree(base / "2")
    until(lambda: states(client) == {1: "AVAILABLE", 2: "END"})
    with pytest.raises(ModelNotFound, match=r"Servable not found for request: Specific\(tiny, 2\)"):
        ClassifierClient(str(client._endpoints), "tiny", version=2).predict({"images": IMAGE})


def test_without_versions_nothing_is_served_and_without_a_base_path_all_stays(publish, serve):
    base = publish(1)
    client = serve(base)
    base.rename(base.with_name("away"))
    time.sleep(0.3)
    assert client.predict({"images": IMAGE})
    base.mkdir()
    until(lambda: states(client) == {1: "END"})
    with pytest.raises(ModelNotFound, match=r"Servable not found for request: Latest\(tiny\)"):
        client.predict({"images": IMAGE})
    (base.with_name("away") / "1").rename(base / "1")
    until(lambda: states(client) == {1: "AVAILABLE"})


def test_where_tensorflow_is_in_use_the_next_version_loads_it_before_it_serves(publish, serve, png):
    client = serve(publish(1))
    client.classify(png)
    publish(2, files={"variables/variables.index": b"broken"})
    until(lambda: states(client).get(2) == "END")
    assert client.classify(png)
    assert states(client)[1] == "AVAILABLE"


def test_overwriting_what_is_loaded_changes_nothing(publish, serve):
    base = publish(1)
    client = serve(base)
    expected = client.predict({"images": IMAGE})["probabilities"]
    (base / "1" / "model.tflite").write_bytes(b"")
    for _ in range(3):
        np.testing.assert_array_equal(client.predict({"images": IMAGE})["probabilities"], expected)


# ---------------------------------------------------------------- at the start


def test_a_restart_passes_over_a_broken_version(publish, serve):
    publish(1)
    base = publish(2, files={"model.tflite": b"no flatbuffer"})
    assert states(serve(base)) == {1: "AVAILABLE", 2: "END"}


def test_names_that_are_no_version_are_ignored(publish, serve):
    base = publish(1)
    for name in (".hidden", "latest", "2.bak", "-3", "1e3", str(2**63)):
        (base / name).mkdir()
    (base / "4").write_bytes(b"a file")
    assert states(serve(base)) == {1: "AVAILABLE"}


def test_leading_zeros_are_part_of_a_number(publish, serve):
    base = publish(1)
    (base / "1").rename(base / "00000123")
    assert states(serve(base)) == {123: "AVAILABLE"}


def _start_error(base):
    with pytest.raises(StartError) as caught:
        ModelServer("tiny", base).start()
    return str(caught.value)


def test_a_base_path_that_is_missing_stops_the_start(tmp_path):
    assert _start_error(tmp_path / "nowhere") == (
        f"`model_base_path` must be an existing folder. Received: {tmp_path / 'nowhere'}"
    )


def test_a_base_path_without_versions_stops_the_start(tmp_path):
    assert _start_error(tmp_path).startswith("`model_base_path` must hold a version folder")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "does not appear to contain a SavedModel bundle (should have a file called `saved_model.pb`)"),
        (b"\xff\xff", "as binary proto"),
        (pb.SavedModel().SerializeToString(), "Could not find meta graph def matching supplied tags: { serve }"),
    ],
    ids=["no SavedModel", "no proto", "no graph to serve"],
)
def test_a_version_that_can_not_be_read_stops_the_start(tmp_path, content, text):
    (tmp_path / "1").mkdir()
    if content is not None:
        (tmp_path / "1" / "saved_model.pb").write_bytes(content)
    assert text in _start_error(tmp_path)


def test_a_saved_model_without_tflite_is_loaded_at_the_start(publish):
    base = publish(1, without=("model.tflite",), files={"variables/variables.index": b"broken"})
    assert "Model 'tiny' must have a version that loads. Received: version 1: " in _start_error(base)


def test_a_taken_port(publish):
    base = publish(1)
    with ModelServer("tiny", base) as server, pytest.raises(StartError, match="must be able to listen on its address"):
        ModelServer("tiny", base, port=server.port).start()


def test_a_server_has_no_port_before_its_start():
    with pytest.raises(RuntimeError, match="has a port once it is started"):
        _ = ModelServer("tiny", ".").port


# ---------------------------------------------------------------- the repository alone


def repository_of(base_path, load) -> Repository:
    return Repository([ModelConfig("m", base_path)], LoadPolicy(load, poll_seconds=0.01))


def test_a_version_is_unloaded_when_its_last_request_is_done(tmp_path):
    (tmp_path / "1").mkdir()
    repository = repository_of(tmp_path, lambda name, folder, eager: FakeServable(folder))
    repository.start()
    spec = ModelSpec("m")

    def now():
        return {status.version: status.state for status in repository.status(spec)}

    with repository.acquire(spec) as (number, old):
        assert number == 1
        (tmp_path / "2").mkdir()
        until(lambda: now() == {2: pb.ModelVersionStatus.AVAILABLE, 1: pb.ModelVersionStatus.UNLOADING})
        with repository.acquire(spec) as (number, _):
            assert number == 2
        assert not old.closed
    until(lambda: now() == {2: pb.ModelVersionStatus.AVAILABLE, 1: pb.ModelVersionStatus.END})
    assert old.closed
    repository.close()
    assert now()[2] == pb.ModelVersionStatus.END


def test_a_failed_version_is_not_tried_at_every_poll(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "broken").touch()
    tried = []

    def load(name, folder, eager):
        tried.append(folder.name)
        return FakeServable(folder)

    repository = repository_of(tmp_path, load)
    repository.start()
    time.sleep(0.2)
    assert tried == ["2", "1"]
    failed = repository.status(ModelSpec("m"))[0]
    assert (failed.status.error_code, failed.status.error_message) == (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        "broken on purpose",
    )
    repository.close()
