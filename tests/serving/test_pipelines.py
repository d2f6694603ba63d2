"""Every signature of an exported servable, in both engines."""

import io
import json
import logging
import shutil
import struct
import subprocess
import sys
import time
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.client import ClassifierClient, InvalidInput
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.running.servable import Servable
from PIL import Image

from keraslight.export import save_servable
from keraslight.export._inference import inference_graph
from keraslight.export.litert.convert import convert_graph
from keraslight.graph import read

SHAPE = (8, 12, 3)
LABELS = ["ant", "bée\u2028", "cat", "dog"]
SIGNATURES = ("serving_default", "serving_uint8", "encoded", "classify")


def build():
    keras.utils.set_random_seed(0)
    images = keras.Input(SHAPE, name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(len(LABELS), activation="softmax", kernel_initializer="normal")(x))


@pytest.fixture(scope="module")
def images():
    """Flat pictures, so that they survive any codec and resizing."""
    colours = np.random.default_rng(0).integers(0, 256, (5, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (5, *SHAPE)).copy()


@pytest.fixture(scope="module")
def versions(tmp_path_factory, images):
    """The same model as float and as int8 model.tflite."""
    base = tmp_path_factory.mktemp("net") / "net"
    model = build()
    float_version = save_servable(model, base, labels=LABELS, version=1, max_pixels=10_000)
    int8_version = base / "2"
    shutil.copytree(float_version, int8_version)
    convert_graph(
        inference_graph(read(model)),
        int8_version / "model.tflite",
        quantization="int8",
        representative_data=images.astype(np.float32),
        batch_size=None,
    )
    return {"float": float_version, "int8": int8_version}


def load(folder, engine="auto"):
    return Servable.load(folder, threads=1, interpreters=2, eager=False, engine=engine)


def png(image):
    return tf.io.encode_png(image).numpy()


def example(file):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature})).SerializeToString()


def request(signature, images):
    """(alias, value) of the same images for any signature."""
    files = [png(image) for image in images]
    return {
        "serving_default": ("images", images.astype(np.float32)),
        "serving_uint8": ("images", images),
        "encoded": ("image_bytes", np.array(files, object)),
        "classify": ("inputs", np.array([example(file) for file in files], object)),
    }[signature]


def ask(servable, signature, images, outputs=None):
    alias, value = request(signature, images)
    servable.check(signature, {alias: value})
    outputs = outputs or sorted(servable.signatures[signature].outputs)
    return servable.run(signature, {alias: value}, outputs, Call())


@pytest.mark.parametrize("signature", SIGNATURES)
def test_both_engines_give_the_same(versions, images, signature):
    fast, full = load(versions["float"]), load(versions["float"], "tensorflow")
    found, wanted = ask(fast, signature, images), ask(full, signature, images)
    assert set(found) == set(wanted) == set(full.signatures[signature].outputs)
    for alias, array in wanted.items():
        assert (found[alias].dtype, found[alias].shape) == (array.dtype, array.shape)
        if array.dtype == np.float32:
            np.testing.assert_allclose(found[alias], array, atol=1e-4)
        else:
            np.testing.assert_array_equal(found[alias], array)
    assert not fast._saved_model or fast.saved_model_loaded == (signature in ("encoded", "classify"))


def test_all_signatures_of_an_int8_version_run_the_int8_network(versions, images):
    servable = load(versions["int8"])
    plain = ask(servable, "serving_default", images)["probabilities"]
    full = ask(load(versions["int8"], "tensorflow"), "serving_default", images)["probabilities"]
    assert 1e-4 < np.abs(plain - full).max() < 0.1, "int8 differs from float32, so that this test can tell them apart"
    np.testing.assert_array_equal(ask(servable, "serving_uint8", images)["probabilities"], plain)
    encoded = ask(servable, "encoded", images)
    np.testing.assert_array_equal(encoded["probabilities"], plain)
    # int8 has ties in plenty: they come in the order of the classes, as TensorFlow has them
    scores, indices = tf.math.top_k(plain, len(LABELS))
    np.testing.assert_array_equal(encoded["indices"], indices)
    np.testing.assert_array_equal(encoded["scores"], scores)
    np.testing.assert_array_equal(encoded["classes"], np.array([label.encode() for label in LABELS], object)[indices])
    classified = ask(servable, "classify", images)
    for alias in ("classes", "scores"):
        np.testing.assert_array_equal(classified[alias], encoded[alias])


def test_only_what_is_asked_for_is_answered(versions, images):
    servable = load(versions["float"])
    assert set(ask(servable, "encoded", images, ["scores"])) == {"scores"}
    assert set(ask(servable, "encoded", images, ["probabilities"])) == {"probabilities"}
    assert list(ask(servable, "serving_uint8", images, ["logits", "probabilities"])) == ["logits", "probabilities"]


def test_engine_litert_serves_what_needs_no_tensorflow(versions, images):
    servable = load(versions["float"], "litert")
    assert set(servable.signatures) == {"serving_default", "serving_uint8"}
    assert not servable.saved_model_loaded
    wanted = ask(servable, "serving_default", images)["probabilities"]
    np.testing.assert_array_equal(ask(servable, "serving_uint8", images)["probabilities"], wanted)


@pytest.mark.parametrize(("signature", "alias"), [("encoded", "image_bytes"), ("classify", "inputs")])
def test_a_bad_file_is_named_by_its_index(versions, images, signature, alias):
    server = ModelServer("net", versions["float"].parent)
    with server, ClassifierClient(server.address, "net", timeout=60) as client:
        _, value = request(signature, images)
        value[3] = b"no image" if signature == "encoded" else example(b"no image")
        with pytest.raises(InvalidInput, match=rf"`{alias}` must each be a JPEG.*others at index\] \[3\]"):
            client.predict({alias: value}, signature=signature)


def bomb(side=60_000):
    """A PNG of 70 bytes that claims side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_decompression_bomb_is_refused_before_it_is_decoded(versions, images):
    """60,000 x 60,000 x 3 bytes would be 10.8 GB."""
    servable = load(versions["float"])
    ask(servable, "encoded", images)
    began = time.monotonic()
    files = np.array([png(images[0]), bomb()], object)
    with pytest.raises(Exception, match=r"images of at most 10000 pixels. Received: larger ones at index\] \[1\]"):
        servable.run("encoded", {"image_bytes": files}, ["scores"], Call())
    assert time.monotonic() - began < 5


NO_TENSORFLOW = """
import sys
import numpy as np
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer

with ModelServer("net", sys.argv[1]) as server, ClassifierClient(server.address, "net", timeout=60) as client:
    answers = client.predict({"images": np.zeros((2, 8, 12, 3), np.uint8)}, signature="serving_uint8")
    assert answers["probabilities"].shape == (2, 4)
    assert "tensorflow" not in sys.modules and "keraslight" not in sys.modules
    print("done")
"""


def test_bytes_need_no_tensorflow(versions):
    command = [sys.executable, "-c", NO_TENSORFLOW, str(versions["float"].parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda steps: steps.update(network="nowhere"), "KeyError('nowhere')"),
        (lambda steps: steps.update(decode="serving_default"), "`decode` must take the inputs of encoded"),
        (lambda steps: steps.update(rank="none"), "KeyError('none')"),
        (lambda steps: steps.update(rank=["logits"]), "TypeError"),
        (lambda steps: steps.pop("rank"), "`network` and `rank` must give all outputs"),
        (lambda steps: steps.pop("decode"), "`network` must take float32"),
    ],
    ids=["network", "decode", "rank", "no string", "no rank", "no decode"],
)
def test_a_pipeline_that_does_not_fit_runs_in_tensorflow(versions, images, tmp_path, caplog, change, text):
    folder = tmp_path / "1"
    shutil.copytree(versions["float"], folder)
    info = folder / "assets.extra/keraslight.json"
    content = json.loads(info.read_text())
    change(content["pipelines"]["encoded"])
    info.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        servable = load(folder)
    assert "pipeline encoded is left out and runs in TensorFlow" in caplog.text
    assert text in caplog.text
    wanted = ask(servable, "serving_default", images)["probabilities"]
    np.testing.assert_allclose(ask(servable, "encoded", images)["probabilities"], wanted, atol=1e-4)


def test_a_pipeline_with_another_number_of_labels_is_left_out(versions, tmp_path, caplog):
    folder = tmp_path / "1"
    shutil.copytree(versions["float"], folder)
    labels = folder / "assets/labels.txt"
    labels.write_bytes(b"".join(labels.read_bytes().splitlines(keepends=True)[:-1]))
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "`rank` must be float32 scores of 3 classes. Received: " in caplog.text


def test_a_description_that_is_no_json_is_no_obstacle(versions, tmp_path, caplog):
    folder = tmp_path / "1"
    shutil.copytree(versions["float"], folder)
    for content in (b"[", b"[]", b"\xff", b'{"pipelines": 3}'):
        (folder / "assets.extra/keraslight.json").write_bytes(content)
        caplog.clear()
        assert "encoded" in load(folder).signatures
        assert "its pipelines run in TensorFlow" in caplog.text


def test_jpeg_is_decoded_as_in_the_saved_model(versions, images):
    buffer = io.BytesIO()
    Image.fromarray(images[0].repeat(4, 0).repeat(4, 1)).save(buffer, "JPEG")
    files = np.array([buffer.getvalue()], object)
    found = load(versions["float"]).run("encoded", {"image_bytes": files}, ["probabilities"], Call())
    wanted = load(versions["float"], "tensorflow").run("encoded", {"image_bytes": files}, ["probabilities"], Call())
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"], atol=1e-4)
