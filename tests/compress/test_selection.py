"""Channels that several layers pick from one map, as LeNet-5's table does."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress
from keraslight.export.litert import litert_report, to_litert
from keraslight.graph import build, read
from keraslight.layers import ChannelSlice
from keraslight.rewrite import joined_slices

TABLE = ((0, 1), (1, 2), (0, 2))


@pytest.fixture(scope="module")
def table():
    """Three maps behind a tanh, in ranges that differ, and three convolutions that each read two of them."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((8, 8, 3))
    x = layers.Activation("tanh", name="act")(layers.Conv2D(3, 3, name="conv")(x))
    maps = [ChannelSlice(c, c + 1, name=f"slice{c}")(x) for c in range(3)]
    maps = [layers.Concatenate(name=f"join{i}")([maps[c] for c in row]) for i, row in enumerate(TABLE)]
    x = layers.Concatenate(name="concat")([layers.Conv2D(1, 3, name=f"map{i}")(x) for i, x in enumerate(maps)])
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(images, layers.Softmax(name="probabilities")(x), name="table")
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel * np.array([1.0, 0.3, 0.1]))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


def test_joined_slices_become_convolutions_with_the_same_outputs(table, images):
    joined = build(joined_slices(read(table)))
    np.testing.assert_allclose(joined(images), table(images), atol=1e-6)
    assert not [layer for layer in joined.layers if isinstance(layer, ChannelSlice)]
    assert [joined.get_layer(f"join{i}").kernel.numpy()[0, 0].argmax(0).tolist() for i in range(3)] == [
        list(row) for row in TABLE
    ]
    assert isinstance(joined.get_layer("concat"), layers.Concatenate)  # what joins no slices stays
    assert isinstance(table.get_layer("join0"), layers.Concatenate)


def test_what_is_no_choice_of_one_maps_channels_stays():
    a, b = keras.Input((4, 4, 2)), keras.Input((4, 4, 2))
    first, second = (ChannelSlice(n, n + 1, name=f"slice{n}")(a) for n in range(2))
    third = ChannelSlice(0, 1, name="slice2")(b)
    outputs = [
        layers.Concatenate(name="two_maps")([first, third]),
        layers.Concatenate(name="rows", axis=1)([first, second]),
        layers.Concatenate(name="whole")([first, a]),
    ]
    model = keras.Model([a, b], outputs)
    graph = read(model)
    assert joined_slices(graph) is graph


@pytest.mark.parametrize("way", ["training", "calibration"])
def test_the_converter_takes_it_all_in_int8(way, table, images, tmp_path):
    path = tmp_path / "int8.tflite"
    if way == "training":
        quantized = compress.quantize_aware(table, calibration_data=images)
        assert compress.quantization_report(quantized).floats == {}
        back = compress.quantized_weights_to_keras(quantized, table)
        np.testing.assert_allclose(back(images), table(images), atol=1e-6)
        to_litert(quantized, path)
    else:
        compress.calibrate(table, (images, np.zeros(len(images))), path)
    assert litert_report(path).float_operators == ()
