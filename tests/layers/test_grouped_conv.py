import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight.layers import GroupedConv2D

IMAGES = np.random.default_rng(0).normal(size=(2, 9, 8, 12)).astype("float32")


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 2},
        {"groups": 12, "use_bias": False},
        {"groups": 3, "strides": 2},
        {"groups": 3, "padding": "valid"},
        {"groups": 4, "dilation_rate": 2},
        {"groups": 1},
    ],
)
def test_equals_stock_conv(settings):
    ours = GroupedConv2D(24, 3, **{"padding": "same", **settings})
    stock = keras.layers.Conv2D(24, 3, **{"padding": "same", **settings})
    values = np.asarray(ours(IMAGES))
    stock.build(IMAGES.shape)
    stock.set_weights(ours.get_weights())
    wanted = np.asarray(stock(IMAGES))
    assert values.shape == wanted.shape
    np.testing.assert_allclose(values, wanted, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(2, 96, 96, 3), (2, 8, 9, 2), (2, 7, 10, 15)])
def test_strided_pointwise_convolution_and_its_gradient(shape, padding):
    images = np.random.default_rng(2).normal(size=shape).astype("float32")
    layer = GroupedConv2D(64, 1, strides=2, padding=padding)
    seen = images[:, ::2, ::2]
    for _ in range(3):  # stock Keras ends the process here, at 96 pixels
        with tf.GradientTape() as tape:
            values = layer(images)
            loss = tf.reduce_sum(values)
        (gradient, _) = tape.gradient(loss, layer.trainable_weights)
    kernel = np.asarray(layer.kernel)[0, 0]
    np.testing.assert_allclose(values, seen @ kernel, atol=1e-5)
    np.testing.assert_allclose(gradient[0, 0, :, 0], seen.sum(axis=(0, 1, 2)), rtol=1e-4, atol=1e-3)


def test_trains_and_serializes(tmp_path):
    images = keras.Input((9, 8, 12))
    x = GroupedConv2D(24, 3, groups=4, padding="same", kernel_regularizer="l2", name="grouped")(images)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    before = model.get_layer("grouped").kernel.numpy()
    model.compile("sgd", "mse", jit_compile=False)
    losses = [model.train_on_batch(IMAGES, np.ones((2, 24), "float32")) for _ in range(20)]
    assert losses[-1] < losses[0]
    moved = np.abs(model.get_layer("grouped").kernel.numpy() - before).sum(axis=(0, 1, 2))
    assert (moved > 0).all()  # every group got its gradient
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("grouped"), GroupedConv2D)
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-6)


def test_graph_has_no_xla_functions():
    layer = GroupedConv2D(24, 3, groups=4)
    layer.build((None, 9, 8, 12))
    graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.TensorSpec((None, 9, 8, 12))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("Conv2D") == 1
    assert not any("PartitionedCall" in kind for kind in kinds)


@pytest.mark.slow
def test_trains_without_onednn():
    code = """
import keras, numpy as np
from keraslight.layers import GroupedConv2D
import tensorflow as tf
x = np.random.default_rng(0).normal(size=(2, 9, 8, 12)).astype("float32")
layer, stock = (cls(24, 3, groups=4) for cls in (GroupedConv2D, keras.layers.Conv2D))
with tf.GradientTape() as tape:
    y = layer(x)
assert tape.gradient(y, layer.kernel).shape == layer.kernel.shape
stock.build(x.shape)
stock.set_weights(layer.get_weights())
np.testing.assert_allclose(y, stock(x), atol=1e-5)
"""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
