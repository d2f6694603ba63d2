"""Reloads and versions that come and go, through TensorFlow Serving's own stubs."""

import shutil
import threading
from typing import NamedTuple

import grpc
import numpy as np
import psutil
import pytest
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.helpers import AVAILABLE, END, Publisher, Stubs, until


def predict_request(name, images=None, version=None, label=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    tensor = request.inputs["images"]
    tensor.dtype = 1
    images = np.zeros((1, 8, 8, 1), np.float32) if images is None else images
    for size in images.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = images.tobytes()
    return request


# ---------------------------------------------------------------- reloads


@pytest.fixture(scope="module")
def reloaded(version_folder):
    """A server that was told to serve `tiny`, with a label, and `again`; its stubs; and the response."""
    base = version_folder.parent
    with ModelServer("tiny", base) as server:
        stubs = Stubs(server.address)
        request = model_management_pb2.ReloadConfigRequest()
        for name in ("tiny", "again"):
            request.config.model_config_list.config.add(name=name, base_path=str(base), model_platform="tensorflow")
        request.config.model_config_list.config[0].version_labels["stable"] = 1
        yield server, stubs, stubs.model.HandleReloadConfigRequest(request, timeout=20)
        stubs.channel.close()


def test_a_reload_is_answered_with_ok(reloaded):
    _, _, answer = reloaded
    assert (answer.status.error_code, answer.status.error_message) == (0, "")


@pytest.mark.parametrize("options", [{"name": "again"}, {"name": "tiny", "label": "stable"}], ids=repr)
def test_a_reload_adds_models_and_labels(reloaded, options):
    _, stubs, _ = reloaded
    assert stubs.prediction.Predict(predict_request(**options), timeout=5).model_spec.version.value == 1


def test_models_of_a_reload_are_listed(reloaded):
    server, _, _ = reloaded
    with ClassifierClient(server.address, "tiny") as client:
        found = {name: [version.state for version in versions] for name, versions in client.models().items()}
    assert found == {"again": ["AVAILABLE"], "tiny": ["AVAILABLE"]}


def test_models_of_a_reload_have_a_status(reloaded):
    _, stubs, _ = reloaded
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "again"
    assert [v.state for v in stubs.model.GetModelStatus(request, timeout=5).model_version_status] == [AVAILABLE]


def refusal(stubs, config):
    request = model_management_pb2.ReloadConfigRequest(config=config)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.model.HandleReloadConfigRequest(request, timeout=5)
    return caught.value.code(), caught.value.details()


def test_a_reload_without_a_list_of_models_is_rejected(reloaded):
    _, stubs, _ = reloaded
    assert refusal(stubs, None) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )


def test_a_reload_with_an_invalid_model_is_rejected(reloaded):
    _, stubs, _ = reloaded
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name="m", base_path="m", model_platform="tensorflow")
    assert refusal(stubs, config)[1] == "Expected model m to have an absolute path or URI; got base_path()=m"


# ---------------------------------------------------------------- swaps under load

CLIENTS = 8


class Load(NamedTuple):
    """What eight clients saw while versions were published, withdrawn, broken and relabelled."""

    failures: list[tuple[grpc.StatusCode, str]]
    wrong: list[predict_pb2.PredictResponse]
    answered: list[int]  # by each client
    memory: list[int]  # bytes, after each version


class Clients:
    """Threads that send requests, by turns for the latest version and for `stable`, until they are stopped."""

    def __init__(self, server, images, expected):
        self._address, self._expected = server.address, expected
        self._requests = [predict_request("tiny", images), predict_request("tiny", images, label="stable")]
        self._stop = threading.Event()
        self.failures, self.wrong, self.answered = [], [], [0] * CLIENTS
        self._threads = [threading.Thread(target=self._send, args=(client,)) for client in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, client):
        stubs = Stubs(self._address, [("grpc.use_local_subchannel_pool", 1)])
        with stubs.channel:
            while not self._stop.is_set():
                try:
                    answer = stubs.prediction.Predict(self._requests[self.answered[client] % 2], timeout=20)
                except grpc.RpcError as error:
                    self.failures.append((error.code(), error.details()))
                else:
                    if list(answer.outputs["probabilities"].float_val) != self._expected:
                        self.wrong.append(answer)
                self.answered[client] += 1


@pytest.fixture(scope="module")
def load(version_folder, tmp_path_factory, pixels):
    """Twenty versions under load: every fifth is broken, every fourth is withdrawn, the others become `stable`."""
    root = tmp_path_factory.mktemp("swaps")
    publish = Publisher(root / "tiny", version_folder)
    base, file = publish(1), root / "models.config"

    def write(stable):
        hidden = root / ".models.config"
        hidden.write_text(f"""model_config_list {{ config {{
            name: "tiny" base_path: "{base}" model_platform: "tensorflow"
            model_version_policy {{ latest {{ num_versions: 2 }} }}
            version_labels {{ key: "stable" value: {stable} }} }} }}""")
        hidden.rename(file)

    write(1)
    images, memory = pixels.astype(np.float32), []
    options = {"file_system_poll_wait_seconds": 0.02, "model_config_file_poll_wait_seconds": 0.02}
    with ModelServer(model_config_file=file, **options) as server:
        stubs = Stubs(server.address)
        first = stubs.prediction.Predict(predict_request("tiny", images), timeout=10)

        def loaded():
            request = get_model_status_pb2.GetModelStatusRequest()
            request.model_spec.name = "tiny"
            versions = stubs.model.GetModelStatus(request, timeout=10).model_version_status
            return {version.version: version.state for version in versions}

        def stable():
            request = predict_request("tiny", images, label="stable")
            return stubs.prediction.Predict(request, timeout=10).model_spec.version.value

        with Clients(server, images, list(first.outputs["probabilities"].float_val)) as clients:
            for version in range(2, 22):
                if version % 5 == 0:
                    publish(version, files={"model.tflite": b"no flatbuffer"})
                    until(lambda version=version: loaded().get(version) == END)
                    shutil.rmtree(base / str(version))
                else:
                    publish(version)
                    until(lambda version=version: loaded().get(version) == AVAILABLE)
                    if version % 4 == 0:
                        (base / str(version)).rename(base / f"withdrawn-{version}")
                        until(lambda version=version: loaded()[version] == END)
                    else:
                        write(version)
                        until(lambda version=version: stable() == version)
                memory.append(psutil.Process().memory_info().rss)
        stubs.channel.close()
    return Load(clients.failures, clients.wrong, clients.answered, memory)


def test_no_request_fails_while_versions_come_and_go(load):
    assert load.failures == []


def test_every_answer_is_right_while_versions_come_and_go(load):
    assert load.wrong == []


def test_every_client_is_answered_while_versions_come_and_go(load):
    assert min(load.answered) > 20


def test_versions_that_come_and_go_leave_no_memory_behind(load):
    assert load.memory[-1] <= 1.15 * load.memory[2]
