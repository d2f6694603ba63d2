"""The fused batch norm against the stock layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight.layers import BatchNorm


def pair(**arguments):
    settings = {"epsilon": 1e-5, "momentum": 0.9, **arguments}
    made = [keras.layers.BatchNormalization(**settings), BatchNorm(**settings)]
    for layer in made:
        layer.build((None, None, None, 6))
        values = np.random.default_rng(0).uniform(0.5, 1.5, (len(layer.weights), 6)).astype("float32")
        layer.set_weights(list(values))
    return made


def images(*shape, dtype="float32"):
    return np.random.default_rng(1).normal(0.5, 2, shape).astype(dtype)


def kernels(layer, x, **arguments):
    graph = tf.function(lambda x: layer(x, **arguments)).get_concrete_function(tf.constant(x)).graph
    return sum(operation.type.startswith("FusedBatchNorm") for operation in graph.get_operations())


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (1, 1, 1, 6), (2, 1, 1, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_values_statistics_and_gradients_are_the_stock_layers(shape, training):
    stock, fused = pair()
    x, weights = tf.constant(images(*shape)), tf.constant(images(*shape))
    results = []
    for layer in (stock, fused):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weights)
        gradients = tape.gradient(loss, [x, *layer.trainable_weights])
        results.append([y, *layer.weights, *gradients])
    for wanted, got in zip(*results, strict=True):
        wanted, got = (keras.ops.convert_to_numpy(value) for value in (wanted, got))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)  # two pixels: differences of near-equals
    assert kernels(fused, x, training=training) == 1
    assert kernels(stock, x, training=training) == 0


def test_inference_is_exact_to_a_rounding():
    stock, fused = pair()
    x = images(2, 9, 7, 6)
    gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in fused.weights)
    truth = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    error = {layer: np.abs(np.asarray(layer(x)) / truth - 1).mean() for layer in (stock, fused)}
    assert error[fused] < error[stock]


def test_frozen_layers_use_their_statistics():
    _, fused = pair()
    fused.trainable = False
    before = fused.get_weights()
    np.testing.assert_array_equal(fused(images(2, 3, 3, 6), training=True), fused(images(2, 3, 3, 6)))
    for old, new in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_half_precision():
    stock, fused = pair(dtype="mixed_float16")
    x = images(4, 5, 3, 6, dtype="float16")
    for training in (False, True):
        wanted, got = stock(x, training=training), fused(x, training=training)
        assert got.dtype == wanted.dtype == tf.float16
        np.testing.assert_allclose(got, wanted, atol=5e-3)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, (4, 6)),
        ({}, (2, 3, 3, 3, 6)),
        ({"axis": 1}, (2, 6, 3, 4)),
        ({"scale": False}, (2, 3, 3, 6)),
        ({"center": False}, (2, 3, 3, 6)),
        ({"dtype": "float64"}, (2, 3, 3, 6)),
    ],
)
def test_what_the_kernel_can_not_do_runs_as_in_keras(arguments, shape):
    stock, fused = keras.layers.BatchNormalization(**arguments), BatchNorm(**arguments)
    x = images(*shape)
    np.testing.assert_array_equal(fused(x, training=True), stock(x, training=True))
    for wanted, got in zip(stock.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert kernels(fused, x) == 0


def test_masked_pixels_are_left_out_as_in_keras():
    stock, fused = pair()
    x, mask = images(2, 3, 3, 6), np.random.default_rng(2).random((2, 3, 3)) > 0.5
    np.testing.assert_array_equal(fused(x, training=True, mask=mask), stock(x, training=True, mask=mask))


def test_saves_and_loads(tmp_path):
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, BatchNorm(epsilon=1e-4, momentum=0.8)(inputs))
    model.layers[-1].set_weights([np.full(6, value) for value in (2.0, 3.0, 4.0, 5.0)])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.layers[-1]) is BatchNorm
    x = images(1, 4, 4, 6)
    np.testing.assert_array_equal(again(x), model(x))
