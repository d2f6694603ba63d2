import keras
import numpy as np
import pytest

import keraslight
from keraslight.errors import InvalidArgumentError
from keraslight.layers import LocalResponseNorm

NARROW = {"width": 0.125, "classes": 10}


def kinds(variant):
    return [type(layer).__name__ for layer in keraslight.AlexNet(variant, **NARROW).layers]


def test_groups_and_normalization_are_those_of_2012():
    model = keraslight.AlexNet("2012", **NARROW)
    assert [model.get_layer(f"conv{c}").groups for c in range(1, 6)] == [1, 2, 1, 2, 2]
    assert model.get_layer("conv2_norm").input is model.get_layer("conv2_act").output
    assert model.get_layer("conv2_pool").input is model.get_layer("conv2_norm").output
    norms = [layer for layer in model.layers if isinstance(layer, LocalResponseNorm)]
    assert [(x.name, x.bias, x.size, x.alpha, x.beta) for x in norms] == [  # k, n, alpha and beta of section 3.3
        ("conv1_norm", 2.0, 5, 1e-4, 0.75),
        ("conv2_norm", 2.0, 5, 1e-4, 0.75),
    ]
    assert not {"LocalResponseNorm", "GroupedConv2D"} & set(kinds("alexnet"))


@pytest.mark.parametrize(("variant", "side"), [("alexnet", 224), ("alexnet", 227), ("2012", 227)])
def test_last_map_is_6x6(variant, side):
    model = keraslight.AlexNet(variant, input_shape=(side, side, 3), **NARROW)
    assert model.get_layer("conv1").output.shape[1:3] == (55 + (variant == "alexnet" and side == 227),) * 2
    assert model.get_layer("fc1").kernel_size == model.get_layer("conv5_pool").output.shape[1:3] == (6, 6)


@pytest.mark.parametrize(("variant", "least"), [("alexnet", 63), ("2012", 67)])
def test_least_size_and_open_sizes(variant, least):
    model = keraslight.AlexNet(variant, input_shape=(least, 300, 3), **NARROW)
    assert model.get_layer("fc1").kernel_size == (1, 6)
    with pytest.raises(InvalidArgumentError, match=f"at least {least} pixels. Received: .*{least - 1}"):
        keraslight.AlexNet(variant, input_shape=(least - 1, 300, 3), **NARROW)
    free = keraslight.AlexNet(variant, input_shape=(None, None, 3), **NARROW)
    assert free(np.zeros((1, 260, 300, 3), "float32")).shape == (1, 10)


def test_local_response_norm_is_the_papers():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 7)).astype("float32")
    wanted = np.empty_like(x)
    for i in range(7):
        near = x[..., max(0, i - 2) : min(7, i + 3)]
        wanted[..., i] = x[..., i] / (2 + 0.5 * (near**2).sum(-1)) ** 0.75
    layer = LocalResponseNorm(size=5, alpha=0.5)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-5)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    np.testing.assert_array_equal(again(x), layer(x))
    with pytest.raises(InvalidArgumentError, match="`size` must be odd and at least 1. Received: size=4"):
        LocalResponseNorm(size=4)
