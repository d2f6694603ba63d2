"""Grouped convolutions and channel slices through the tf_keras twin and quantization."""

import keras
import numpy as np
from keras import layers

from keraslight import compress
from keraslight.layers import ChannelSlice, GroupedConv2D


def grouped():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 8))
    x = ChannelSlice(1, None, 2, name="odd")(images)
    x = GroupedConv2D(8, 3, groups=2, padding="same", use_bias=False, name="grouped")(x)
    x = layers.BatchNormalization(name="grouped_bn")(x)
    x = layers.ReLU(name="grouped_act")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, layers.Dense(3, name="classifier")(x))


def test_twin():
    model, images = grouped(), np.random.default_rng(0).normal(size=(4, 8, 8, 8)).astype("float32")
    twin = compress.to_tf_keras(model)
    assert twin.get_layer("grouped").groups == 2
    np.testing.assert_allclose(twin(images).numpy(), np.asarray(model(images)), atol=1e-5)


def test_quantized_net_stays_near():
    model, images = grouped(), np.random.default_rng(0).normal(size=(64, 8, 8, 8)).astype("float32")
    quantized = compress.quantize_aware(model, calibration_data=images)
    wanted = np.asarray(model(images))
    assert np.abs(np.asarray(quantized(images, training=False)) - wanted).max() < 0.1 * np.abs(wanted).max()
