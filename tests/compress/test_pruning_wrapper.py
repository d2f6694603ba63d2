"""The library's pruning wrappers against the callback."""

import keras
import numpy as np
import pytest

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError

IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
LABELS = np.arange(64) % 10


def small():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="stem")(images)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.Conv2D(16, 1, name="expand")(keras.layers.ReLU()(x))
    x = keras.layers.SeparableConv2D(16, 3, activation="relu", name="separable")(x)
    x = keras.layers.Flatten()(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, keras.layers.Dense(10, name="logits")(x), name="small")


def by_callback(model, **arguments):
    model.compile(
        keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    pruning = compress.Pruning(**arguments)
    model.fit(IMAGES, LABELS, batch_size=8, epochs=2, shuffle=False, callbacks=[pruning], verbose=0)
    return model


def by_wrapper(model, **arguments):
    wrapped = compress.wrap_pruning(model, **arguments)
    import tf_keras

    wrapped.compile(tf_keras.optimizers.SGD(0.05), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    wrapped.fit(
        IMAGES, LABELS, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[compress.pruning_step_callback()]
    )
    return wrapped


@pytest.mark.parametrize(
    "arguments",
    [
        {"final_sparsity": 0.7, "begin_step": 2, "end_step": 12, "frequency": 2},
        {"schedule": "constant", "final_sparsity": {"expand": 0.5, "logits": 0.8}, "begin_step": 3, "end_step": 9},
        {"m_by_n": (2, 4), "end_step": 1},
        {"block_size": (4, 2), "layers": "logits", "final_sparsity": 0.5, "end_step": 8},
        {"policy": "xnnpack", "block_size": (1, 1), "end_step": 8},
    ],
    ids=["polynomial", "by layer", "two of four", "blocks", "xnnpack"],
)
def test_both_ways_give_the_same_masks(arguments):
    model = small()
    wrapped = by_wrapper(model, **arguments)
    stripped = compress.strip_pruning(wrapped, model)
    pruned = by_callback(small(), **arguments)
    assert compress.sparsity(stripped, "*").total > 0.1
    for ours, theirs in zip(pruned.layers, stripped.layers, strict=True):
        for a, b in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
            if len(a.shape) > 1:
                np.testing.assert_array_equal(a.numpy() == 0, b.numpy() == 0)
        # Not the moving variance, which tf_keras takes of a sample: n / (n - 1) times Keras 3's.
        for a, b in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(stripped.predict(IMAGES, verbose=0), wrapped.predict(IMAGES, verbose=0), atol=1e-5)


def test_only_the_chosen_layers_are_wrapped():
    names = [layer.name for layer in compress.wrap_pruning(small(), end_step=4, layers="expand").layers]
    assert [name for name in names if "prune" in name] == ["prune_low_magnitude_expand"]


def test_what_does_not_fit_is_refused():
    model = small()
    wrapped = compress.wrap_pruning(model, end_step=4)
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="stem")], name="other")
    with pytest.raises(CompressionError, match="must have been made from this Keras model. Received: layer 'stem'"):
        compress.strip_pruning(wrapped, other)
    with pytest.raises(InvalidArgumentError, match="`wrapped` must be a tf_keras model.*of Keras 3"):
        compress.strip_pruning(model, model)
    with pytest.raises(InvalidArgumentError, match="must not be after `end_step`. Received: begin_step=5, end_step=4"):
        compress.wrap_pruning(model, begin_step=5, end_step=4)
    images = keras.Input((8, 8, 3))
    depthwise = keras.Model(images, keras.layers.DepthwiseConv2D(3, name="depthwise")(images))
    with pytest.raises(InvalidArgumentError, match="must match no depthwise convolution.*Received: \\['depthwise'\\]"):
        compress.wrap_pruning(depthwise, end_step=4, layers="depthwise")
    with pytest.raises(InvalidArgumentError, match="match Dense layers only. Received: block_size=.*'expand'"):
        compress.wrap_pruning(model, end_step=4, block_size=(2, 2))
