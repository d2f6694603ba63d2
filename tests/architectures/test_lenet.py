import keras
import numpy as np
import pytest

import keraslight
from keraslight.architectures.lenet import TABLE_I
from keraslight.errors import InvalidArgumentError
from keraslight.layers import CodeDistance


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
