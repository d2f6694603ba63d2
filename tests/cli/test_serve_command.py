"""`keraslight serve`, as a process: what it finds, shows and serves, and how it ends."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.client import ClassifierClient, ModelNotFound

from keraslight.cli.serve import find_models
from keraslight.errors import InvalidArgumentError

COMMAND = [sys.executable, "-c", "from keraslight.cli import main; main()", "serve"]


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A version folder that doubles 4 numbers, as a .tflite file alone."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def double(x):
        return {"y": 2 * x}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()], tf.Module())
    folder = tmp_path_factory.mktemp("double") / "1"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder


class Serving:
    """The command while it runs."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"COLUMNS": "300", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        )
        self.shown = ""
        for line in self.process.stdout:
            self.shown += line
            if ready := re.search(r"^(.*): listening on (127\.0\.0\.1:\d+)", line):
                self.names, self.address = ready[1], ready[2]
                return
        raise RuntimeError(self.shown + self.process.stderr.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate(timeout=30)

    def ask(self, model, **options):
        with ClassifierClient(self.address, model, timeout=60, **options) as client:
            return client.predict({"x": np.ones((1, 4), np.float32)})["y"].tolist()


def test_every_model_of_a_folder(version, tmp_path):
    for path in ("a/1", "a/3", "b/12", "no model/x"):
        shutil.copytree(version, tmp_path / path)
    with socket.create_server(("127.0.0.1", 0)) as found:
        rest = found.getsockname()[1]
    with Serving(tmp_path, "--workers", 2, "--rest-port", rest) as serving:
        rows = {tuple(cell.strip() for cell in re.split("[│┃]", line)[1:-1]) for line in serving.shown.splitlines()}
        assert ("a", "1 3", "LiteRT", str(tmp_path / "a")) in rows
        assert ("b", "12", "LiteRT", str(tmp_path / "b")) in rows
        assert "no model" not in serving.shown
        assert serving.names == "a, b"
        assert serving.ask("a", version=3) == serving.ask("b") == [[2, 2, 2, 2]]
        answered = httpx.post(f"http://127.0.0.1:{rest}/v1/models/b:predict", json={"instances": [[1, 2, 3, 4]]})
        assert answered.json() == {"predictions": [[2.0, 4.0, 6.0, 8.0]]}
        assert f" and http://127.0.0.1:{rest}" in serving.shown
        with pytest.raises(ModelNotFound):
            serving.ask("a", version=1)
        shutil.copytree(version, tmp_path / "c" / "1")  # a model that comes later
        until = time.monotonic() + 30
        while True:
            try:
                assert serving.ask("c") == [[2, 2, 2, 2]]
                break
            except ModelNotFound:
                assert time.monotonic() < until
                time.sleep(0.1)
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(60) == 0


def test_the_folder_s_own_configuration_as_the_exporter_writes_it(version, tmp_path):
    for path in ("a/1", "a/2", "unnamed/1"):
        shutil.copytree(version, tmp_path / path)

    def configure(label):
        text = f"""model_config_list {{ config {{
          name: "a" base_path: "/models/a" model_platform: "tensorflow"
          model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
          version_labels {{ key: "stable" value: {label} }}
        }} }}"""
        (tmp_path / "models.config").write_text(text)

    configure(1)
    with Serving(tmp_path) as serving:
        assert serving.names == "a"
        with ClassifierClient(serving.address, "a", timeout=60) as client:
            assert {status.version for status in client.status()} == {1, 2}
        assert serving.ask("a", version="stable") == [[2, 2, 2, 2]]
        configure(2)
        until = time.monotonic() + 30
        with ClassifierClient(serving.address, "a", version="stable", timeout=60) as client:
            while client.metadata().version != 2:
                assert time.monotonic() < until
                time.sleep(0.1)
        shutil.rmtree(tmp_path / "a" / "1")
        with ClassifierClient(serving.address, "a", timeout=60) as client:
            while {status.version: status.state for status in client.status()}[1] != "END":
                assert time.monotonic() < until
                time.sleep(0.1)
        assert serving.ask("a", version="stable") == [[2, 2, 2, 2]]


def test_one_model_or_one_version_of_it(version, tmp_path):
    shutil.copytree(version, tmp_path / "digits" / "5")
    found = {"digits": tmp_path / "digits"}
    assert find_models(tmp_path) == find_models(tmp_path / "digits") == find_models(tmp_path / "digits" / "5") == found


def test_nothing_to_serve_says_what_to_do(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgumentError, match="keraslight export RUN --to empty/digits.*empty, which holds none"):
        find_models(tmp_path / "empty")
    with pytest.raises(InvalidArgumentError, match="nowhere, which is not a folder"):
        find_models(tmp_path / "nowhere")
    done = subprocess.run([*COMMAND, str(tmp_path / "empty")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("InvalidArgumentError: A model must be a folder with a version folder")


def test_a_configuration_that_can_not_be_read(version, tmp_path):
    shutil.copytree(version, tmp_path / "a" / "1")
    (tmp_path / "models.config").write_text("model_config_list { config { nam")
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(version, tmp_path):
    shutil.copytree(version, tmp_path / "a" / "1")
    with Serving(tmp_path) as serving:
        port = serving.address.rpartition(":")[2]
        command = [*COMMAND, str(tmp_path), "--port", port, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 255
    assert "\nFailed to start server. Error: The server must be able to listen on its address." in done.stderr
    [found] = json.loads(done.stdout)
    assert found == {"name": "a", "versions": [1], "runs_in": "LiteRT", "folder": str(tmp_path / "a")}
