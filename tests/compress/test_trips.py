"""How often a model is read and built on the way to a file."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress
from keraslight.graph import reader


@pytest.fixture
def trips(monkeypatch):
    """Counts graphs that are read and Keras models that are built."""
    counts = {"reads": 0, "models": 0}
    read, build = reader._Reader.read, keras.Model.__init__

    def counted_read(self, *args):
        counts["reads"] += 1
        return read(self, *args)

    def counted_build(self, *args, **kwargs):
        counts["models"] += 1
        build(self, *args, **kwargs)

    monkeypatch.setattr(reader._Reader, "read", counted_read)
    monkeypatch.setattr(keras.Model, "__init__", counted_build)
    return counts


@pytest.fixture(scope="module")
def model():
    x = images = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, name="conv")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.ReLU(6.0, name="act")(x))
    return keras.Model(images, layers.Softmax()(layers.Dense(4)(layers.GlobalAveragePooling2D()(x))), name="small")


@pytest.mark.parametrize("skip", [(), "conv"])
def test_calibrate_reads_the_graph_and_builds_models_at_most_twice(model, trips, skip, tmp_path):
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    compress.calibrate(model, images, tmp_path / "int8.tflite", skip=skip)
    assert 1 <= trips["reads"] <= 2
    assert trips["models"] <= 2


def test_fuse_reads_and_builds_once(model, trips):
    compress.fuse(model)
    assert trips == {"reads": 1, "models": 1}
