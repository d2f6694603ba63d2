"""A small servable, made with plain TensorFlow, and servers over it."""

import asyncio
import contextlib
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.client import AsyncClassifierClient, ClassifierClient
from keraslight_serving.client.testing import AsyncFakeChannel, FakeChannel
from keraslight_serving.server import ModelServer
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.testing import FakeServable
from PIL import Image

from tests.serving.helpers import Publisher, Stubs
from tests.serving_attack import Faulty

LABELS = ["cat", "dog", "eel"]
TOP_K = 2


class Tiny(tf.Module):
    """8x8x1 pixels -> conv -> dense -> 3 classes, with the signatures of a servable."""

    def __init__(self):
        generator = np.random.default_rng(7)
        self.kernel = tf.Variable(generator.normal(size=(3, 3, 1, 4)).astype(np.float32))
        self.weights = tf.Variable(generator.normal(scale=0.1, size=(256, 3)).astype(np.float32))
        self.labels = tf.constant(LABELS)

    def probabilities(self, images):
        x = tf.nn.relu(tf.nn.conv2d(images / 255, self.kernel, 1, "SAME"))
        return tf.nn.softmax(tf.reshape(x, [-1, 256]) @ self.weights)

    def decode(self, image_bytes):
        def one(data):
            image = tf.io.decode_image(data, channels=1, expand_animations=False)
            return tf.ensure_shape(tf.image.resize(image, [8, 8]), [8, 8, 1])

        return tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)

    def rank(self, probabilities):
        scores, indices = tf.math.top_k(probabilities, TOP_K)
        return tf.gather(self.labels, indices), scores, indices

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, "images")])
    def serve(self, images):
        return {"probabilities": self.probabilities(images)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def encoded(self, image_bytes):
        probabilities = self.probabilities(self.decode(image_bytes))
        classes, scores, indices = self.rank(probabilities)
        return {"classes": classes, "scores": scores, "indices": indices, "probabilities": probabilities}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs):
        features = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        classes, scores, _ = self.rank(self.probabilities(self.decode(features["image/encoded"])))
        return {"classes": classes, "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs):
        features = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        return {"outputs": tf.reduce_mean(self.decode(features["image/encoded"]), [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def pairs(self, inputs):
        return {"outputs": tf.zeros([tf.shape(inputs)[0], 2])}

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32, "images")])
    def one_image(self, images):
        x = tf.nn.relu(tf.nn.conv2d(images / 255, self.kernel, 1, "SAME"))
        return {"probabilities": tf.nn.softmax(tf.reshape(x, [1, 256]) @ self.weights)}


@pytest.fixture(autouse=True)
def _free_models():
    """Instead of the one for all tests: there are no Keras models here, and clearing takes longer than these tests."""


def save_servable(folder: Path) -> None:
    model = Tiny()
    signatures = {
        "serving_default": model.serve,
        "encoded": model.encoded,
        "classify": model.classify,
        "regress": model.regress,
        "pairs": model.pairs,
    }
    tf.saved_model.save(model, str(folder), signatures=signatures)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
    updater.replace_method_name(signature_key="classify", method_name="tensorflow/serving/classify", tags="serve")
    updater.save()
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["serving_default"])
    (folder / "model.tflite").write_bytes(converter.convert())


@pytest.fixture(scope="session")
def version_folder(tmp_path_factory) -> Path:
    """A finished version folder, to be copied."""
    folder = tmp_path_factory.mktemp("servable") / "1"
    save_servable(folder)
    return folder


@pytest.fixture(scope="session")
def one_image_tflite() -> bytes:
    """Declared for one image, with that 1 written into its reshape."""
    model = Tiny()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.one_image.get_concrete_function()], model)
    return converter.convert()


@pytest.fixture(scope="session")
def any_size_tflite() -> bytes:
    """The mean of an image of any size."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, "images")])
    def mean(images):
        return {"mean": tf.reduce_mean(images, [1, 2])}

    return tf.lite.TFLiteConverter.from_concrete_functions([mean.get_concrete_function()], tf.Module()).convert()


@pytest.fixture(scope="session")
def int8_tflite() -> bytes:
    """Quantized, with int8 in and out."""
    model = Tiny()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.serve.get_concrete_function()], model)
    generator = np.random.default_rng(1)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [generator.uniform(0, 255, (1, 8, 8, 1)).astype(np.float32)] for _ in range(4)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.fixture(scope="session")
def slow_base(tmp_path_factory) -> Path:
    """A base path for `tiny` whose one version takes its time: `turns` int32 [1] -> `done`."""

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int32, "turns")])
    def slow(turns):
        def turn(i, x):
            return i + 1, tf.tanh(x @ x)

        _, x = tf.while_loop(lambda i, x: i < turns[0], turn, [0, tf.eye(256)])
        return {"done": tf.reduce_sum(x, keepdims=True)[0]}

    base = tmp_path_factory.mktemp("slow")
    (base / "1").mkdir()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([slow.get_concrete_function()], tf.Module())
    (base / "1" / "model.tflite").write_bytes(converter.convert())
    return base


@pytest.fixture
def publish(version_folder, tmp_path):
    """Puts version folders into a base path, as one should: by renaming a finished copy."""
    return Publisher(tmp_path / "tiny", version_folder)


@pytest.fixture
def folders(tmp_path):
    """`folders("a", 1, 2)` makes version folders and returns the base path."""

    def make(model: str, *versions: int, broken: bool = False) -> Path:
        (tmp_path / model).mkdir(exist_ok=True)
        for version in versions:
            hidden = tmp_path / model / f".{version}"
            hidden.mkdir()
            if broken:
                (hidden / "broken").touch()
            hidden.rename(tmp_path / model / str(version))
        return tmp_path / model

    return make


@pytest.fixture
def repository():
    """`repository(configs)` starts one over fake servables."""
    opened = []

    def start(*configs, load=lambda name, folder, eager: FakeServable(folder), **how):
        allow = how.pop("allow_labels_anywhere", False)
        made = Repository(configs, LoadPolicy(load, **{"poll_seconds": 0.01, **how}), allow_labels_anywhere=allow)
        opened.append(made)
        made.start()
        return made

    yield start
    for made in opened:
        made.close()


@pytest.fixture(scope="session")
def server(version_folder):
    """A server with model `tiny`, version 1: `serving_default` in LiteRT, the rest in TensorFlow."""
    with ModelServer("tiny", version_folder.parent, rest_api_port=0) as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "rest"])
def address(request, server):
    """Where `server` is, over one protocol and over the other."""
    return server.address if request.param == "grpc" else server.rest_address


@pytest.fixture(scope="session")
def saved_model_server(version_folder, tmp_path_factory):
    """The same model without its model.tflite: all in TensorFlow."""
    base = tmp_path_factory.mktemp("saved_model_only")
    shutil.copytree(version_folder, base / "1", ignore=shutil.ignore_patterns("model.tflite"))
    with ModelServer("tiny", base) as server:
        yield server


@pytest.fixture(scope="session")
def stubs(server):
    stubs = Stubs(server.address)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="session")
def saved_model_stubs(saved_model_server):
    stubs = Stubs(saved_model_server.address)
    yield stubs
    stubs.channel.close()


class Blocking:
    """Makes the blocking client and its fake channel."""

    fake = FakeChannel

    def __init__(self, made: contextlib.ExitStack) -> None:
        self._made = made

    def __call__(self, *args, **options) -> ClassifierClient:
        return self._made.enter_context(ClassifierClient(*args, **options))


class InLoop:
    """An asyncio client as if it were blocking, so that one suite asks both the same."""

    def __init__(self, runner: asyncio.Runner, *args, **options) -> None:
        self._runner, self._client = runner, AsyncClassifierClient(*args, **options)

    def __getattr__(self, name: str):
        method = getattr(self._client, name)
        return lambda *args, **options: self._runner.run(method(*args, **options))

    def stream(self, *args, **options) -> list:
        async def collect():
            return [answer async for answer in self._client.stream(*args, **options)]

        return self._runner.run(collect())

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Asyncio:
    """Makes the asyncio client and its fake channel."""

    fake = AsyncFakeChannel

    def __init__(self, made: contextlib.ExitStack) -> None:
        self._runner = made.enter_context(asyncio.Runner())
        self._made = made

    def __call__(self, *args, **options) -> InLoop:
        return self._made.enter_context(InLoop(self._runner, *args, **options))


@pytest.fixture(scope="module", params=["blocking", "asyncio"])
def make(request):
    """`make(...)` is a client, `make.fake(...)` a channel for it; each test runs with both kinds.

    The clients are closed at the end of the module: one that is left to the garbage collector leaves its sockets open.
    """
    with contextlib.ExitStack() as made:
        yield (Blocking if request.param == "blocking" else Asyncio)(made)


@pytest.fixture
def connect():
    """Stubs for a server of the test's own."""
    opened = []

    def to(server: ModelServer) -> Stubs:
        opened.append(Stubs(server.address))
        return opened[-1]

    yield to
    for stubs in opened:
        stubs.channel.close()


class ServerProcess:
    """A server in a process of its own, for model `tiny`; `flags` are added to the command line."""

    def __init__(self, base: Path, log: Path, *flags: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "keraslight_serving.server", f"--model_base_path={base}", "--model_name=tiny"]
        with log.open("a") as stderr:
            self.process = subprocess.Popen(
                [*command, "--port=0", "--num_threads=1", *flags], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        line = self.process.stdout.readline()
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
        if found is None:
            self.end()
            raise RuntimeError(f"no ready line but {line!r}\n{log.read_text()}")
        self.address = found[1]
        rest = re.search(r"http://\S+", line)
        self.rest_address = rest and rest[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """`launch(base, *flags)` starts a ServerProcess, which ends with the module's last test.

    With `rest=True` it has a REST API, on a port that is free.
    """
    started = []

    def start(base: Path, *flags: str, rest: bool = False) -> ServerProcess:
        if rest:
            flags = (*flags, f"--rest_api_port={free_port()}")
        started.append(ServerProcess(base, tmp_path_factory.mktemp("log") / "stderr.txt", *flags))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def attacked(launch, version_folder, png):
    """A server process with all it can do, to be attacked."""
    return Faulty(launch(version_folder.parent, "--load_saved_model", "--rest_api_num_threads=12", rest=True), png)


@pytest.fixture
def faulty(attacked):
    """The same; it has to be well after the test."""
    yield attacked
    attacked.check()


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Four 8x8x1 images."""
    return np.random.default_rng(3).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def png(pixels) -> bytes:
    """The first of `pixels` as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[0, ..., 0]).save(buffer, "PNG")
    return buffer.getvalue()
