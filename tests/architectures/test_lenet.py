import keras
import numpy as np
import pytest

import keraslight
from keraslight.architectures.lenet import TABLE_I
from keraslight.errors import InvalidArgumentError
from keraslight.layers import CodeDistance

PRINTED_TABLE_I = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)


def subsampled(maps):
    """(H, W, C) -> (H // 2, W // 2, C)"""
    return (maps[::2, ::2] + maps[1::2, ::2] + maps[::2, 1::2] + maps[1::2, 1::2]) / 4


def convolved(maps, kernel, bias):
    """(H, W, C) and (k, k, C, N) -> (H - k + 1, W - k + 1, N)"""
    windows = np.lib.stride_tricks.sliding_window_view(maps, kernel.shape[:2], axis=(0, 1))
    return np.einsum("hwcij,ijcn->hwn", windows, kernel) + bias


def test_the_papers_network_written_in_numpy_gives_the_same_distances():
    model = keraslight.LeNet5("paper", classifier_activation=None)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    image = random.normal(size=(32, 32, 1)).astype("float32")

    def learned(maps, name):
        factor, bias = weights[name]
        return np.tanh(subsampled(maps) * factor.ravel() + bias)

    s2 = learned(np.tanh(convolved(image, *weights["c1"])), "s2")
    for i, row in enumerate(TABLE_I):
        assert sorted(row) == [c for c in range(6) if PRINTED_TABLE_I[c][i] == "X"]
    c3 = np.concatenate([convolved(s2[..., row], *weights[f"c3_map{i}"]) for i, row in enumerate(TABLE_I)], axis=-1)
    s4 = learned(np.tanh(c3), "s4")
    c5 = np.tanh(convolved(s4, *weights["c5"]))
    f6 = np.tanh(convolved(c5, *weights["f6"]))[0, 0]
    distances = ((f6[:, None] - model.get_layer("classifier").codes) ** 2).sum(axis=0)
    np.testing.assert_allclose(np.asarray(model(image[None]))[0], -distances, rtol=1e-4)


def test_layers_have_the_papers_parameters():
    model = keraslight.LeNet5("paper")
    assert model.input_shape == (None, 32, 32, 1)
    assert model.output_shape == (None, 10)
    counts = {name: model.get_layer(name).count_params() for name in ("c1", "s2", "s4", "c5", "f6", "classifier")}
    assert counts == {"c1": 156, "s2": 12, "s4": 32, "c5": 48_120, "f6": 10_164, "classifier": 0}
    assert sum(model.get_layer(f"c3_map{i}").count_params() for i in range(16)) == 1516


def test_table_reads_each_map_ten_times():
    assert [sum(c in row for row in TABLE_I) for c in range(6)] == [10] * 6
    assert [len(row) for row in TABLE_I] == [3] * 6 + [4] * 9 + [6]
    model = keraslight.LeNet5("paper")
    x = np.random.default_rng(0).normal(size=(1, 14, 14, 6)).astype("float32")
    maps = keras.Model(model.get_layer("s2_act").output, model.get_layer("c3_concat").output)
    before = np.asarray(maps(x))
    x[..., 3] += 1
    changed = np.abs(np.asarray(maps(x)) - before).max(axis=(0, 1, 2)) > 0
    assert [i for i in range(16) if changed[i]] == [i for i, row in enumerate(TABLE_I) if 3 in row]


@pytest.mark.parametrize("variant", ["paper", "modern"])
def test_28_pixels_are_padded(variant):
    model = keraslight.LeNet5(variant, input_shape=(28, 28, 1))
    assert model.get_layer("c1").output.shape[1:3] == (28, 28)
    assert model.get_layer("f6").output.shape[1:3] == (1, 1)


@pytest.mark.parametrize("variant", ["paper", "modern"])
def test_larger_images_are_averaged(variant):
    larger = keraslight.LeNet5(variant, input_shape=(40, None, 1))
    assert larger(np.zeros((2, 40, 33, 1), "float32")).shape == (2, 10)


@pytest.mark.parametrize("variant", ["paper", "modern"])
def test_smaller_images_are_an_error(variant):
    with pytest.raises(InvalidArgumentError, match="at least 28 pixels. Received"):
        keraslight.LeNet5(variant, input_shape=(27, 28, 1))


def test_output_is_minus_the_squared_distance_to_a_code():
    layer = CodeDistance(3, seed=5)
    x = np.random.default_rng(0).normal(size=(2, 7)).astype("float32")
    result = np.asarray(layer(x))
    assert set(np.unique(layer.codes)) == {-1.0, 1.0}
    np.testing.assert_allclose(result, -((x[:, :, None] - layer.codes) ** 2).sum(axis=1), rtol=1e-5)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_array_equal(again(x), result)


def test_a_code_distance_needs_a_class():
    with pytest.raises(InvalidArgumentError, match="`classes` must be at least 1. Received: classes=0"):
        CodeDistance(0)
