import keras
import numpy as np
import pytest
from keras import ops

from keraslight.layers import GRN, LayerNorm

RNG = np.random.default_rng(0)


def filled(layer, channels):
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, None, None, channels))
    layer.gamma.assign(RNG.normal(size=channels))
    layer.beta.assign(RNG.normal(size=channels))
    return layer


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (2, 8)])
def test_layer_norm_is_kerass(shape):
    layer = filled(LayerNorm(1e-3), 8)
    stock = keras.layers.LayerNormalization(epsilon=1e-3)
    stock.build(shape)
    stock.gamma.assign(layer.gamma)
    stock.beta.assign(layer.beta)
    x = (RNG.normal(size=shape) * 0.05 + 3).astype("float32")  # an epsilon of 1e-6 would show
    np.testing.assert_allclose(np.asarray(layer(x)), np.asarray(stock(x)), atol=2e-5)


def test_epsilons_are_those_of_the_convnexts():
    assert (LayerNorm().epsilon, GRN().epsilon) == (1e-6, 1e-6)


def test_grn_is_algorithm_1():
    layer = filled(GRN(1e-3), 4)
    x = RNG.normal(size=(2, 3, 5, 4)).astype("float32")
    norms = np.sqrt((x.astype("float64") ** 2).sum(axis=(1, 2), keepdims=True))
    wanted = np.asarray(layer.gamma) * (x * norms / (norms.mean(axis=-1, keepdims=True) + 1e-3)) + layer.beta + x
    np.testing.assert_allclose(np.asarray(layer(x)), wanted, atol=1e-5)


def test_grn_starts_as_the_identity():
    x = RNG.normal(size=(2, 3, 5, 4)).astype("float32")
    np.testing.assert_array_equal(np.asarray(GRN()(x)), x)


def test_grn_learns_past_dead_channels():
    model = keras.Sequential([keras.Input((3, 3, 2)), keras.layers.Conv2D(4, 1), GRN()])
    model.layers[0].kernel.assign(ops.zeros_like(model.layers[0].kernel))
    model.layers[1].gamma.assign([1.0, 2.0, 3.0, 4.0])
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(np.ones((2, 3, 3, 2), "float32"), np.ones((2, 3, 3, 4), "float32"))
    assert all(np.isfinite(np.asarray(weight)).all() for weight in model.weights)


@pytest.mark.parametrize("cls", [LayerNorm, GRN])
def test_half_precision_computes_statistics_in_float32(cls):
    layer = cls(1e-6, dtype="mixed_float16")
    layer.build((None, 64, 64, 4))
    layer.gamma.assign(np.ones(4))
    x = RNG.normal(size=(1, 64, 64, 4)) * np.array([300.0, 200.0, 100.0, 50.0])  # the squares leave float16's range
    y = layer(x.astype("float16"))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    exact = cls(1e-6)
    exact.build((None, 64, 64, 4))
    exact.gamma.assign(np.ones(4))
    wanted = np.asarray(exact(x.astype("float16").astype("float32")))
    np.testing.assert_allclose(np.asarray(y, "float32"), wanted, rtol=5e-3, atol=5e-3)
