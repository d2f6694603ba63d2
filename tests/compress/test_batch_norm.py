"""Batch norms get the statistics of the data, whatever their momentum."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keraslight import compress
from keraslight.errors import InvalidArgumentError

IMAGES = np.random.default_rng(0).normal(3, 2, (96, 4, 4, 2)).astype("float32")
LABELS = np.arange(96) % 4


def small(momentum=0.99, frozen=False):
    keras.utils.set_random_seed(0)  # some random kernels give a channel hardly more variance than the epsilon
    images = keras.Input((4, 4, 2), name="images")
    x = layers.BatchNormalization(momentum=momentum, trainable=not frozen, name="norm")(images)
    x = layers.BatchNormalization(momentum=0.5, name="second")(layers.Conv2D(4, 1, name="conv")(x))
    return keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten(name="flatten")(x)), name="small")


@pytest.mark.parametrize("data", [(IMAGES, LABELS), IMAGES, tf.data.Dataset.from_tensor_slices(IMAGES).batch(32)])
def test_statistics_are_those_of_all_batches(data):
    model = small()
    others = [weight.numpy() for weight in model.trainable_weights]
    compress.settle_batch_norms(model, data, batch_size=32)
    norm = model.get_layer("norm")
    batches = IMAGES.reshape(3, -1, 2)
    np.testing.assert_allclose(norm.moving_mean, batches.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, batches.var(axis=1).mean(axis=0), rtol=1e-4)
    assert (norm.momentum, model.get_layer("second").momentum) == (0.99, 0.5)
    for before, weight in zip(others, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(weight, before)
    outputs = keras.Model(model.input, model.get_layer("second").output)(IMAGES)
    np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), 1, rtol=0.05)


def test_no_more_batches_than_asked():
    model = small()
    compress.settle_batch_norms(model, (IMAGES, LABELS), batches=1, batch_size=8)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, IMAGES[:8].mean(axis=(0, 1, 2)), rtol=1e-5)


def test_frozen_batch_norms_keep_theirs():
    model = small(frozen=True)
    compress.settle_batch_norms(model, (IMAGES, LABELS))
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean, [0, 0])
    assert np.abs(model.get_layer("second").moving_mean).max() > 0.1


def test_a_pruned_model_has_settled_batch_norms():
    model = small(momentum=0.999)
    pruned = compress.prune(model, (IMAGES, LABELS), epochs=1, batch_size=32, verbose=0)
    np.testing.assert_allclose(pruned.get_layer("norm").moving_mean, IMAGES.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_errors_say_what_came():
    with pytest.raises(InvalidArgumentError, match="`batches` must be at least 1. Received: 0."):
        compress.settle_batch_norms(small(), (IMAGES, LABELS), batches=0)
    with pytest.raises(InvalidArgumentError, match="`data` must hold at least one batch. Received: an empty data set."):
        compress.settle_batch_norms(small(), tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8).take(0))
    with pytest.raises(InvalidArgumentError, match="a pair of arrays. Received: dict."):
        compress.settle_batch_norms(small(), {"images": IMAGES})
    with pytest.raises(InvalidArgumentError, match="`batch_size` must be at least 1. Received: 0."):
        compress.settle_batch_norms(small(), IMAGES, batch_size=0)
