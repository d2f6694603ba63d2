"""Auxiliary heads are for training: files, comparisons and explanations are of the main output."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keraslight.analysis import grad_cam, latency
from keraslight.export import litert_parity, litert_runner, onnx_runner, save_servable, to_litert, to_onnx
from keraslight.graph import remember_task, remembered_task, without_auxiliary

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """A net with two heads, named as those of GoogLeNet are."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    maps = layers.Conv2D(6, 3, activation="relu", name="conv")(images)
    heads = {
        name: layers.Dense(4, activation="softmax", name=name)(layers.GlobalAveragePooling2D()(maps))
        for name in ("auxiliary_4a", "classifier")
    }
    return keras.Model(images, heads, name="net")


@pytest.fixture(scope="module")
def wanted(model):
    return np.asarray(model(IMAGES, training=False)["classifier"])


def test_litert(model, wanted, tmp_path):
    file = to_litert(model, tmp_path / "net.tflite")
    found = np.concatenate([litert_runner(file)(image[None]) for image in IMAGES])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert litert_parity(model, file, IMAGES).largest_difference < 1e-5


def test_onnx(model, wanted, tmp_path):
    file = to_onnx(model, tmp_path / "net.onnx", check_images=IMAGES)
    np.testing.assert_allclose(onnx_runner(file)(IMAGES), wanted, atol=1e-5)


def test_servable(model, tmp_path):
    version = save_servable(model, tmp_path / "net", labels=list("abcd"))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    answers = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(answers["probabilities"], model(pixels, training=False)["classifier"], atol=1e-5)


def test_analysis(model, wanted):
    assert grad_cam(model, IMAGES[0]).class_index == wanted[0].argmax()
    assert [row.engine for row in latency(model, engines=("keras",), repeats=1)] == ["keras"]


def test_the_task_stays(model):
    model = keras.Model(model.input, model.output)
    remember_task(model, "multi-label")
    assert remembered_task(without_auxiliary(model)) == "multi-label"
