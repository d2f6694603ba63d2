"""Which batch norms training moves, and which weights are statistics."""

import keras
import numpy as np
import pytest

from keraslight.graph import Settling, following_batch_norms, is_clustered, learned_weights, owned_weights, settle


def test_batch_norms_that_are_frozen_or_in_inference_do_not_follow():
    images = keras.Input((4, 4, 2))
    x = keras.layers.BatchNormalization(name="moves")(images)
    x = keras.layers.BatchNormalization(name="frozen", trainable=False)(x)
    x = keras.layers.BatchNormalization(name="inference")(x, training=False)
    model = keras.Model(images, x)
    assert [norm.name for norm in following_batch_norms(model)] == ["moves"]
    before = {name: np.array(model.get_layer(name).moving_mean) for name in ("moves", "frozen", "inference")}
    settle(model, [np.ones((3, 4, 4, 2), np.float32)])
    kept = {name: bool((np.array(model.get_layer(name).moving_mean) == value).all()) for name, value in before.items()}
    assert kept == {"moves": False, "frozen": True, "inference": True}


def test_a_net_is_traced_once_for_batches_of_any_size_and_all_later_calls():
    calls = []

    @keras.saving.register_keras_serializable("tests")
    class Counting(keras.layers.Layer):
        def call(self, x):
            calls.append(x.shape)
            return x

    model = keras.Sequential([keras.Input((None, 4, 2)), Counting(), keras.layers.BatchNormalization(name="conv 1")])
    norm = model.layers[-1]
    images = np.random.default_rng(0).normal(3, 2, (9, 4, 4, 2)).astype("float32")
    settle_now = Settling(model)
    calls.clear()
    settle_now(iter([images[:6], images[6:]]))
    wanted = (images[:6].mean((0, 1, 2)) + images[6:].mean((0, 1, 2))) / 2
    np.testing.assert_allclose(norm.moving_mean, wanted, rtol=1e-5)
    settle_now([images[:, :2]])
    np.testing.assert_allclose(norm.moving_mean, images[:, :2].mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, images[:, :2].var((0, 1, 2)), rtol=1e-5)
    assert calls == [(None, None, 4, 2)]
    assert norm.momentum == 0.99
    settle_now([])
    np.testing.assert_allclose(norm.moving_mean, images[:, :2].mean((0, 1, 2)), rtol=1e-5)


def test_statistics_are_not_learned():
    layer = keras.layers.SpectralNormalization(keras.layers.Conv2D(2, 3))
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.BatchNormalization(), layer])
    names = [weight.path.rpartition("/")[2] for weight in learned_weights(model)]
    assert sorted(names) == ["beta", "bias", "gamma", "kernel"]
    owned = owned_weights(model)
    assert sum(len(own) for _, own in owned) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("distinct", "size", "clustered"), [(10, 20, True), (10, 19, False), (256, 600, True), (257, 900, False)]
)
def test_few_values_used_twice_are_clusters(distinct, size, clustered):
    kernel = 1.0 + np.arange(size) % distinct
    assert is_clustered(kernel) is clustered
    assert is_clustered(np.concatenate([kernel, np.zeros(500)])) is clustered
