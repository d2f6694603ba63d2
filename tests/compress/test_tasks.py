"""Pruning, clustering and quantization of models of every task: the right loss, or an error that says what to say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keraslight import compress
from keraslight._tasks import read_head
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export import litert_parity, litert_runner, to_litert
from keraslight.training import Distillation

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
CLASSES = RNG.integers(0, 3, 16)
YES = RNG.integers(0, 2, (16, 3))
QUICK = {"epochs": 1, "batch_size": 8, "verbose": 0}


def net(units, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(images)
    x = layers.Conv2D(6, 3, activation="relu", name="deep")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(units, activation=activation, name="head")(x), name="net")


def by_hand(task, probabilities, labels):
    """The loss of a task."""
    if task == "regression":
        return ((probabilities - labels) ** 2).mean()
    if task == "softmax":
        return -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    return -np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities)).mean()


TASKS = {  # units, activation, argument, labels, labels by hand
    "rows": (3, None, None, np.eye(3)[CLASSES], "softmax", CLASSES),
    "log-softmax": (3, "log_softmax", None, CLASSES, "softmax", CLASSES),
    "multi-label": (3, "sigmoid", None, YES, "multi-label", YES),
    "multi-label logits": (3, None, "multi-label", YES, "multi-label", YES),
    "binary": (1, "sigmoid", None, YES[:, 0], "binary", YES[:, :1]),
    "binary logit": (1, None, "binary", YES[:, :1], "binary", YES[:, :1]),
    "regression": (1, None, "regression", IMAGES.mean((1, 2, 3)), "regression", IMAGES.mean((1, 2))),
    "regression behind tanh": (3, "tanh", "regression", YES * 0.5, "regression", YES * 0.5),
}


def probabilities_of(task, activation, outputs):
    if task == "softmax":
        return tf.nn.softmax(outputs).numpy()
    return tf.sigmoid(outputs).numpy() if task != "regression" and activation is None else np.asarray(outputs)


@pytest.mark.parametrize("case", TASKS)
def test_pruning_trains_with_the_loss_of_the_task(case):
    units, activation, task, labels, what, hand = TASKS[case]
    pruned = compress.prune(net(units, activation), (IMAGES, labels), task=task, sparsity=0.5, **QUICK)
    assert read_head(pruned).task == what, "the copy remembers it"
    outputs = np.asarray(pruned(IMAGES))
    loss = float(pruned.evaluate(IMAGES, labels, verbose=0)[0])
    assert loss == pytest.approx(by_hand(what, probabilities_of(what, activation, outputs), hand), rel=1e-4)


@pytest.mark.parametrize("case", ["rows", "multi-label", "binary logit", "regression"])
def test_quantization_aware_training_with_the_loss_of_the_task(case, tmp_path):
    units, activation, task, labels, what, hand = TASKS[case]
    data = tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(8)
    aware = compress.train_quantized(net(units, activation), data, task=task, epochs=1, verbose=0)
    outputs = aware(IMAGES, training=False).numpy()
    loss = aware.evaluate(IMAGES, labels, verbose=0)[0]
    assert loss == pytest.approx(by_hand(what, probabilities_of(what, activation, outputs), hand), rel=1e-3)
    assert litert_parity(aware, to_litert(aware, tmp_path / "f.tflite"), (IMAGES, labels)).task == what


def test_clustering_and_distillation():
    data = (IMAGES, YES[:, 0])
    clustered = compress.cluster(net(1, "sigmoid"), data, clusters=4, **QUICK)
    assert type(clustered.loss).__name__ == "BinaryCrossentropy"
    with pytest.raises(InvalidArgumentError, match="`task` must say what the outputs are"):
        compress.cluster(net(1), data, clusters=4, **QUICK)
    teacher = net(3, "softmax", seed=1)
    rows = (IMAGES, np.eye(3)[CLASSES])
    assert compress.prune(net(3), rows, distillation=Distillation(teacher), **QUICK)
    with pytest.raises(
        InvalidArgumentError, match="`distillation` is for models of task 'softmax'. Received: 'net' of"
    ):
        compress.prune(net(3, "sigmoid"), (IMAGES, YES), distillation=Distillation(teacher), **QUICK)


TRAIN = {
    "prune": lambda model, data: compress.prune(model, data, **QUICK),
    "cluster": lambda model, data: compress.cluster(model, data, **QUICK),
    "train_quantized": lambda model, data: compress.train_quantized(model, data, **QUICK),
    "sensitivity": lambda model, data: compress.sensitivity(model, data),
}


@pytest.mark.parametrize("train", TRAIN)
def test_what_can_not_be_trained_is_refused_before_it_starts(train):
    run = TRAIN[train]
    for model, labels, text in [
        (net(3, "sigmoid"), CLASSES, "task='multi-label', rows of 3 numbers from 0 to 1"),
        (net(3), CLASSES + 1, r"task='softmax', integers from 0 to 2.* from 1 to 3"),
        (net(1, "sigmoid"), YES[:, :2], "task='binary', 0 or 1 for each image"),
        (net(1), YES[:, 0], "`task` must say what the outputs are"),
        (net(3, "relu"), CLASSES, "`task` must say what the outputs are.*relu at the end"),
    ]:
        with pytest.raises(InvalidArgumentError, match=text):
            run(model, (IMAGES, labels))
    images = keras.Input((8, 8, 1))
    x = layers.Flatten()(images)
    two = keras.Model(images, [layers.Dense(3)(x), layers.Dense(1)(x)])
    with pytest.raises(InvalidArgumentError, match=r"one output, \(B, K\). Received: Functional with 2 outputs"):
        run(two, (IMAGES, CLASSES))


def test_validation_labels_have_the_form_of_the_others():
    with pytest.raises(InvalidArgumentError, match="`validation_data` must have labels in the form of `data`"):
        compress.prune(net(3), (IMAGES, CLASSES), validation_data=(IMAGES, np.eye(3)[CLASSES]), **QUICK)


def test_a_quantization_aware_model_of_an_unknown_task_is_made_but_not_trained():
    aware = compress.quantize_aware(net(1), calibration_data=IMAGES)
    with pytest.raises(InvalidArgumentError, match="`task` must say what the outputs are"):
        aware.fit(IMAGES, YES[:, 0], verbose=0)
    aware.compile("sgd", "mse")
    aware.fit(IMAGES, YES[:, 0], verbose=0)


def test_sensitivity_of_one_output_notices():
    model = net(1, "sigmoid")
    bias = np.median(
        np.asarray(keras.Model(model.input, model.get_layer("head").input)(IMAGES))
        @ np.asarray(model.layers[-1].kernel)
    )
    model.layers[-1].bias.assign([-bias])
    labels = (np.asarray(model(IMAGES))[:, 0] > 0.5).astype(int)
    report = compress.sensitivity(model, (IMAGES, labels), sparsities=(0.95,))
    assert report.baseline == 1
    assert min(accuracy for (accuracy,) in report.accuracies.values()) < 1


@pytest.mark.parametrize(("activation", "task"), [("sigmoid", None), (None, "binary"), (None, "regression")])
def test_mixed_precision_of_one_output_is_held_to_its_bound(activation, task, tmp_path, monkeypatch):
    model = net(1, activation)
    features = np.asarray(keras.Model(model.input, model.get_layer("head").input)(IMAGES))
    model.layers[-1].bias.assign(-np.median(features @ np.asarray(model.layers[-1].kernel), axis=0))
    good = compress.calibrate_mixed(model, IMAGES, tmp_path / "m.tflite", max_drop=0.3, task=task, verbose=0)
    assert good.floats == ()
    # Another file in place of that of the model: always the same answer.
    wrong = net(1, activation)
    wrong.layers[-1].bias.assign([9.0])
    file = to_litert(wrong, tmp_path / "wrong.tflite")
    monkeypatch.setattr("keraslight.export.litert_runner", lambda path: litert_runner(file))
    with pytest.raises(CompressionError, match="must lose at most max_drop=0.3"):
        compress.calibrate_mixed(model, IMAGES, tmp_path / "w.tflite", max_drop=0.3, task=task, verbose=0)
