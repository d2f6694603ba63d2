"""Epochs are judged by settled batch norms; rates rise step by step; auxiliary heads help to train."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keraslight.compress import prune
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization
from keraslight.training import Recipe, load_run, train, without_auxiliary


def lagging(small, momentum=0.99):
    keras.utils.set_random_seed(1)
    images = keras.Input((12, 12, 1))
    x = layers.Rescaling(20.0, 60.0)(ImageNormalization(small)(images))  # far from what a new batch norm assumes
    x = layers.Conv2D(8, 3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=momentum, name="norm")(x))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.Flatten()(layers.ReLU()(layers.BatchNormalization(momentum=momentum, name="second")(x)))
    return keras.Model(images, layers.Dense(3, activation="softmax")(x))


class Steps(keras.callbacks.Callback):
    """Notes the learning rate of every step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def test_the_best_epoch_is_chosen_by_settled_batch_norms(small, data, tmp_path):
    """Four steps an epoch with a momentum of 0.999: by its moving averages, the first epoch is at chance."""
    steps = Steps()
    recipe = Recipe(epochs=3, batch_size=24, learning_rate=0.02, label_smoothing=0.0)
    result = train(
        lagging(small, 0.999), data, recipe, run_dir=tmp_path, progress=False, callbacks=[steps], save_every=2
    )
    assert result.best_accuracy >= 0.9
    assert min(row["val_accuracy"] for row in result.history) >= 0.7
    images, targets = data.validation_arrays()
    answers = load_run(tmp_path)[0].predict(images.astype("float32"), verbose=0).argmax(-1)
    assert (answers == targets).mean() == pytest.approx(result.best_accuracy)
    # A recipe of three epochs warms up in two of them, step by step: 4 steps an epoch.
    peak = 0.02
    np.testing.assert_allclose(steps.rates[:9], [peak / 9 + n * (peak - peak / 9) / 8 for n in range(9)], rtol=1e-5)
    np.testing.assert_allclose(steps.rates[9:], [peak * (1 + np.cos(np.pi * n / 4)) / 2 for n in (1, 2, 3)], rtol=1e-4)


def test_a_short_recipe_warms_up_in_all_but_its_last_epoch():
    assert [Recipe(epochs=epochs).warmup for epochs in (1, 2, 3, 4, 30)] == [0, 1, 2, 3, 3]
    assert Recipe().replace(epochs=2).warmup == 1
    assert Recipe(epochs=5, warmup_epochs=4).warmup == 4


def test_long_epochs_keep_their_moving_averages(small, data, tmp_path):
    """With a momentum of 0.2 four steps are enough."""
    model, seen = lagging(small, 0.2), []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(model.get_layer("norm").moving_mean.numpy())
    )
    recipe = Recipe(epochs=1, batch_size=24)
    train(model, data, recipe, run_dir=tmp_path, progress=False, callbacks=[watch])
    np.testing.assert_array_equal(model.get_layer("norm").moving_mean, seen[-1])


def with_heads(small):
    keras.utils.set_random_seed(2)
    images = keras.Input((12, 12, 1))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="stem")(ImageNormalization(small)(images))
    aux = layers.Dense(3, activation="softmax", name="aux1_classifier")(layers.Flatten()(x))
    x = layers.Flatten()(layers.Conv2D(6, 3, activation="relu", name="conv")(x))
    return keras.Model(images, {"classifier": layers.Dense(3, activation="softmax", name="classifier")(x), "aux1": aux})


def test_auxiliary_heads_train_with_their_weight_and_are_left_out(small, data, tmp_path):
    """One step of the trainer is one step of the loss written out."""
    recipe = Recipe(epochs=1, batch_size=96, learning_rate=0.01, weight_decay=0.0, label_smoothing=0.0, warmup_epochs=0)
    losses = []
    for weight in (0.3, 0.0):
        model = with_heads(small)
        start = [value.copy() for value in model.get_weights()]
        result = train(
            model, data, recipe.replace(auxiliary_weight=weight), run_dir=tmp_path / str(weight), progress=False
        )
        losses.append(result.history[0]["loss"])
        moved = [np.abs(a - b).max() > 0 for a, b in zip(start, model.get_weights(), strict=True)]
        names = [variable.path for variable in model.weights]
        assert all(m == ("aux1" not in name or weight > 0) for m, name in zip(moved, names, strict=True))
    model.set_weights(start)
    images, labels = next(iter(data.train(96, None, recipe.seed)))
    outputs = model(images)
    main, aux = (
        float(tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, outputs[name])))
        for name in ("classifier", "aux1")
    )
    np.testing.assert_allclose(losses, [main + 0.3 * aux, main], rtol=1e-4)
    assert result.model.output_shape == (None, 3)
    assert {layer.name for layer in load_run(tmp_path / "0.3")[0].layers} >= {"stem", "conv", "classifier"}
    assert not [layer for layer in load_run(tmp_path / "0.3")[0].layers if "aux" in layer.name]


def test_models_with_auxiliary_heads_are_pruned_without_them(small, data):
    model = with_heads(small)
    images, targets = data.validation_arrays()
    pruned = prune(model, (images.astype("float32"), targets), sparsity=0.5, epochs=1, verbose=0)
    assert pruned.output_shape == (None, 3)
    assert without_auxiliary(pruned) is pruned
    assert [layer.name for layer in without_auxiliary(model).layers if "aux" in layer.name] == []


def test_wrong_arguments_of_training(small, data, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`save_every` must be at least 1. Received: 0"):
        train(with_heads(small), data, Recipe(), run_dir=tmp_path, save_every=0)
    with pytest.raises(InvalidArgumentError, match="`data` must be an ImageData.*from_arrays.*Received: tuple"):
        train(with_heads(small), data.validation_arrays(), Recipe(), run_dir=tmp_path)
    with pytest.raises(InvalidArgumentError, match="`auxiliary_weight` must be at least 0. Received"):
        Recipe(auxiliary_weight=-1)
