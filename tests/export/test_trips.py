"""How often a trip reads a model's graph and builds a Keras model."""

import functools
from collections import Counter

import keras
import numpy as np
import pytest

from keraslight.export import save_servable, to_litert
from keraslight.graph import reader
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

SPEC = Preprocessing((8, 12))
LABELS = ["a", "b", "c"]


@pytest.fixture
def counts(monkeypatch):
    """Counts `read` (of a graph) and `build` (of a functional or sequential model), from when the test sets to 0."""
    counted = Counter()

    def count(owner, attribute, name):
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def counting(*args, **kwargs):
            counted[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, counting)

    count(reader._Reader, "read", "read")
    functional = type(net())
    count(functional, "__init__", "build")
    return counted


def net(activation="softmax", preprocessing=None):
    images = keras.Input((8, 12, 3), name="photo")
    x = images if preprocessing is None else ImageNormalization(preprocessing)(images)
    for _ in range(2):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, use_bias=False)(x)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(3, activation=activation)(x), name="net")


def at_most(counts, read, build):
    return 1 <= counts["read"] <= read and counts["build"] <= build


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ({"preprocessing": SPEC}, {}),
        ({}, {"preprocessing": SPEC}),
        ({"activation": None}, {"preprocessing": SPEC}),
        ({"activation": None, "preprocessing": SPEC}, {"dtype": "float16", "embed": True}),
    ],
    ids=["default", "preprocessing", "logits", "float16 and embed"],
)
def test_a_servable_is_one_trip(counts, tmp_path, model, arguments):
    model = net(**model)
    counts.clear()
    save_servable(model, tmp_path / "net", labels=LABELS, **arguments)
    assert at_most(counts, read=2, build=2), counts


@pytest.mark.parametrize("preprocessing", [None, SPEC], ids=["as it is", "preprocessing"])
def test_a_litert_file_takes_no_build(counts, tmp_path, preprocessing):
    model = net()
    counts.clear()
    images = np.zeros((2, 8, 12, 3), "float32")
    to_litert(
        model, tmp_path / "net.tflite", quantization="int8", representative_data=images, preprocessing=preprocessing
    )
    assert at_most(counts, read=1, build=0), counts
