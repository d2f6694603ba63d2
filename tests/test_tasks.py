"""What a model's outputs are for: read off its end, said by the caller, or asked for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keraslight import _tasks, compress
from keraslight._tasks import Head, read_head
from keraslight.errors import InvalidArgumentError
from keraslight.graph import build, copy, read, remember_task

FEATURES = np.random.default_rng(0).normal(0, 2, (6, 8)).astype("float32")


class OwnSoftmax(layers.Layer):
    """A softmax with a temperature, in code that nothing but its values tells."""

    def call(self, inputs):
        powers = ops.exp(inputs / 2)
        return powers / ops.sum(powers, axis=-1, keepdims=True)


class OwnSigmoid(layers.Layer):
    def call(self, inputs):
        return 1 / (1 + ops.exp(-inputs))


class OwnSquare(layers.Layer):
    def call(self, inputs):
        return ops.square(inputs)


class OverriddenDense(layers.Dense):
    """A Dense by its class, and a softmax by what it computes."""

    def call(self, inputs):
        return ops.softmax(super().call(inputs))


def model_of(*parts):
    """(B, 8) -> what the parts make of it, in a row."""
    x = inputs = keras.Input((8,))
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x, name="net")


def dense(units, activation=None, **arguments):
    return lambda x: layers.Dense(units, activation=activation, **arguments)(x)


def merged(merge, *heads):
    return lambda x: merge([head(x) for head in heads])


def float16(units, activation):
    return lambda x: layers.Activation(activation, dtype="float32")(layers.Dense(units, dtype="mixed_float16")(x))


SOFTMAX, SIGMOID = "softmax", "sigmoid"
KNOWN = {  # parts of the model: (task, the activation that is still to come)
    "softmax": ([dense(3, SOFTMAX)], ("softmax", None)),
    "logits": ([dense(3)], ("softmax", SOFTMAX)),
    "log-softmax": ([dense(3, "log_softmax")], ("softmax", SOFTMAX)),
    "operation log-softmax": ([dense(3), ops.log_softmax], ("softmax", SOFTMAX)),
    "one sigmoid": ([dense(1, SIGMOID)], ("binary", None)),
    "one operation sigmoid": ([dense(1), ops.sigmoid], ("binary", None)),
    "one hard sigmoid": ([dense(1, "hard_sigmoid")], ("binary", None)),
    "sigmoids": ([dense(3, SIGMOID)], ("multi-label", None)),
    "hard sigmoids": ([dense(3), ops.hard_sigmoid], ("multi-label", None)),
    "sigmoids, concatenated": ([merged(layers.Concatenate(), *[dense(1, SIGMOID)] * 3)], ("multi-label", None)),
    "sigmoids, some of them": ([dense(5, SIGMOID), lambda x: x[:, 1:3]], ("multi-label", None)),
    "an ensemble of sigmoids": (
        [merged(layers.Average(), dense(3, SIGMOID), dense(3, SIGMOID))],
        ("multi-label", None),
    ),
    "an ensemble of hard sigmoids": (
        [merged(layers.Average(), dense(3, "hard_sigmoid"), dense(3, "hard_sigmoid"))],
        ("multi-label", None),
    ),
    "mixed precision": ([float16(3, SOFTMAX)], ("softmax", None)),
    "mixed precision, sigmoid": ([float16(1, SIGMOID)], ("binary", None)),
    "cast": ([dense(3, SOFTMAX), lambda x: ops.cast(x, "float16")], ("softmax", None)),
    "dropout behind": ([dense(3, SOFTMAX), layers.Dropout(0.1)], ("softmax", None)),
    "clipped": ([dense(3, SOFTMAX), lambda x: ops.clip(x, 1e-7, 1.0)], ("softmax", None)),
    "scaled logits": ([dense(3), layers.Rescaling(0.5)], ("softmax", SOFTMAX)),
    "logits over a temperature": ([dense(3), lambda x: x / 2.0], ("softmax", SOFTMAX)),
    "a sum of logits": ([merged(layers.Add(), dense(3), dense(3))], ("softmax", SOFTMAX)),
    "maps of relu, averaged": (
        [layers.Reshape((2, 2, 2)), layers.Conv2D(3, 1, activation="relu"), layers.GlobalAveragePooling2D()],
        ("softmax", SOFTMAX),
    ),
    "maps of softmax, averaged": (
        [layers.Reshape((2, 2, 2)), layers.Conv2D(3, 1, activation=SOFTMAX), layers.GlobalAveragePooling2D()],
        ("softmax", None),
    ),
    "a function of TensorFlow": ([dense(3, tf.nn.softmax)], ("softmax", None)),
    "a function of one's own": ([dense(3, lambda x: ops.sigmoid(x))], ("multi-label", None)),
    "an activation as a layer": ([dense(3, layers.Softmax())], ("softmax", None)),
    "a softmax of one's own": ([dense(3), OwnSoftmax()], ("softmax", None)),
    "a sigmoid of one's own": ([dense(1), OwnSigmoid()], ("binary", None)),
    "a subclass that overrides": ([OverriddenDense(3)], ("softmax", None)),
    "Lambda": ([dense(3), layers.Lambda(lambda x: tf.nn.log_softmax(x))], ("softmax", SOFTMAX)),
    "Lambda of nothing": ([dense(3, SOFTMAX), layers.Lambda(lambda x: x)], ("softmax", None)),
    "a wrapped layer": ([layers.SpectralNormalization(layers.Dense(3, activation=SOFTMAX))], ("softmax", None)),
    "nested": ([model_of(dense(3, SIGMOID)), layers.Reshape((3,))], ("multi-label", None)),
}


@pytest.mark.parametrize("end", KNOWN)
def test_a_task_is_read_off_the_end(end):
    parts, expected = KNOWN[end]
    model = model_of(*parts)
    head = read_head(model)
    assert (head.task, head.activation) == expected
    assert head.units == model.output_shape[-1]
    outputs = np.asarray(model(FEATURES), np.float32)
    found = _tasks.probabilities(head, outputs)
    wanted = {SOFTMAX: tf.nn.softmax, SIGMOID: tf.sigmoid, None: tf.identity}[head.activation](outputs)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert 0 <= found.min() <= found.max() <= 1
    assert np.allclose(found.sum(-1), 1, atol=1e-3) == (head.task == "softmax")


UNKNOWN = {
    "one linear output": ([dense(1)], "'net' with 1 output and no final activation"),
    "one linear output, scaled": ([dense(1), layers.Rescaling(2.0)], "1 output and no final activation"),
    "tanh": ([dense(3, "tanh")], "'net' with 3 outputs and tanh at the end"),
    "relu": ([dense(1), layers.ReLU()], "relu|re_lu"),
    "softplus": ([dense(1, "softplus")], "1 output and softplus at the end"),
    "exp": ([dense(3), ops.exp], "3 outputs and exp at the end"),
    "percent": ([dense(3, SOFTMAX), layers.Rescaling(100.0)], "Rescaling of softmax at the end"),
    "one minus a sigmoid": ([dense(1, SIGMOID), lambda x: 1 - x], "Subtract of sigmoid at the end"),
    "softmaxes, concatenated": ([merged(layers.Concatenate(), *[dense(2, SOFTMAX)] * 2)], "softmax of groups"),
    "softmax of groups": ([dense(6), layers.Reshape((2, 3)), layers.Softmax(), layers.Flatten()], "softmax of groups"),
    "a part of a softmax": ([dense(5, SOFTMAX), lambda x: x[:, :2]], "softmax of groups"),
    "a box and its score": ([merged(layers.Concatenate(), dense(4), dense(1, SIGMOID))], "no activation and sigmoid"),
    "an ensemble of tanh": ([merged(layers.Average(), dense(3, "tanh"), dense(3, "tanh"))], "Average of tanh"),
    "logits under a soft cap": ([dense(3), ops.tanh, lambda x: 30 * x], "Multiply of tanh"),
    "a layer of one's own": ([dense(3), OwnSquare()], "own_square"),
}


@pytest.mark.parametrize("end", UNKNOWN)
def test_a_task_that_the_end_does_not_tell_is_asked_for(end):
    parts, text = UNKNOWN[end]
    model = model_of(*parts)
    with pytest.raises(InvalidArgumentError, match=rf"`task` must say .*'softmax'.*'multi-label'.*'binary'.*{text}"):
        read_head(model)
    assert read_head(model, "regression") == Head("regression", model.output_shape[-1], None)


@pytest.mark.parametrize(
    ("part", "task", "expected"),
    [
        (dense(1), "binary", SIGMOID),
        (dense(1, SIGMOID), "multi-label", None),
        (dense(3), "multi-label", SIGMOID),
        (dense(3, "tanh"), "softmax", SOFTMAX),
        (dense(3, SIGMOID), "regression", None),
    ],
)
def test_a_task_that_is_said(part, task, expected):
    model = model_of(part)
    assert read_head(model, task) == Head(task, model.output_shape[-1], expected)


@pytest.mark.parametrize(
    ("part", "task"),
    [
        (dense(1), "softmax"),
        (dense(3), "binary"),
        (dense(3, SIGMOID), "softmax"),
        (dense(3, SOFTMAX), "multi-label"),
        (dense(1, "tanh"), "binary"),
        (dense(3, "log_softmax"), "multi-label"),
    ],
)
def test_a_task_that_contradicts_the_end(part, task):
    with pytest.raises(
        InvalidArgumentError, match=rf"`task` must fit the model.*Received: task='{task}' for 'net' with"
    ):
        read_head(model_of(part), task)


def test_tasks_and_models_that_do_not_exist():
    with pytest.raises(InvalidArgumentError, match=r"`task` must be one of \('softmax', .*Received: 'sigmoid'"):
        read_head(model_of(dense(3)), "sigmoid")
    inputs = keras.Input((8,))
    two = keras.Model(inputs, [dense(3)(inputs), dense(1)(inputs)])
    with pytest.raises(InvalidArgumentError, match=r"one output, \(B, K\). Received: Functional with 2 outputs"):
        read_head(two)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(
        InvalidArgumentError, match=r"functional Keras 3 model or a Sequential .*Received: .* of class Subclassed"
    ):
        read_head(Subclassed())


def test_a_task_is_remembered_through_copies_and_rewrites():
    model = model_of(dense(1))
    remember_task(model, "binary")
    for again in (model, copy(model), build(read(model)), build(read(model).copy())):
        assert read_head(again).task == "binary"
    assert read_head(model, "regression").task == "regression"


@pytest.mark.parametrize("task", _tasks.TASKS)
@pytest.mark.parametrize("rows", [False, True])
def test_losses_are_those_of_the_formulas(task, rows):
    rng = np.random.default_rng(1)
    units = 1 if task == "binary" else 3
    outputs = rng.normal(0, 2, (5, units)).astype("float32")
    head = Head(task, units, {"softmax": SOFTMAX, "regression": None}.get(task, SIGMOID))
    p = _tasks.probabilities(head, outputs)
    if task == "softmax":
        classes = rng.integers(0, 3, 5)
        labels = np.eye(3, dtype="float32")[classes] if rows else classes
        wanted = -np.log(p[np.arange(5), classes]).mean()
    elif task == "regression":
        labels = rng.normal(size=(5, 3)).astype("float32")
        wanted = ((outputs - labels) ** 2).mean()
    else:
        labels = rng.integers(0, 2, (5, units)).astype("float32")
        wanted = -np.where(labels == 1, np.log(p), np.log(1 - p)).mean()
        labels = labels[:, 0] if task == "binary" and not rows else labels
    assert float(_tasks.loss(head, rows=rows)(labels, outputs)) == pytest.approx(wanted, rel=1e-5)
    if head.activation:  # the same from probabilities
        done = Head(task, units, None)
        assert float(_tasks.loss(done, rows=rows)(labels, p)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("head", "shape", "good", "bad"),
    [
        (
            Head("softmax", 4, None),
            (None, 4),
            [np.arange(4), np.arange(4)[:, None], np.eye(4), np.array([0.0, 3.0])],
            [np.array([0, 4]), np.array([-1, 0]), np.array([0.5, 1.0]), np.eye(3), np.array(["a", "b"]), np.array(1)],
        ),
        (
            Head("multi-label", 3, None),
            (None, 3),
            [np.eye(3), np.ones((2, 3), bool), np.full((2, 3), 0.5)],
            [np.array([0, 1, 2]), np.eye(4), 2 * np.eye(3), np.full((2, 3), np.nan)],
        ),
        (
            Head("binary", 1, SIGMOID),
            (None, 1),
            [np.array([0, 1]), np.array([[0], [1]]), np.array([True, False])],
            [np.array([0, 2]), np.eye(2), np.array([-1, 1])],
        ),
        (
            Head("regression", 1, None),
            (None, 1),
            [np.array([0.1, -5.0]), np.array([[3], [9]])],
            [np.ones((2, 2)), np.array(["a", "b"])],
        ),
        (
            Head("softmax", 4, None),
            (None, 8, 8, 4),
            [np.zeros((2, 8, 8), int), np.zeros((2, 8, 8, 4))],
            [np.zeros(2, int), np.zeros((2, 4, 4), int)],
        ),
    ],
)
def test_labels_in_the_form_of_the_task(head, shape, good, bad):
    for labels in good:
        rows = _tasks.check_labels(head, shape, labels)
        assert rows == (head.task == "softmax" and labels.ndim == len(shape) and labels.shape[-1] == 4)
        spec = tf.TensorSpec((None, *labels.shape[1:]), tf.as_dtype(labels.dtype))
        assert _tasks.check_labels(head, shape, spec) == rows
    for labels in bad:
        with pytest.raises(InvalidArgumentError, match=rf"`data` must hold labels for task='{head.task}', .*Received"):
            _tasks.check_labels(head, shape, labels)


def test_scores():
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(8, 4))
    classes = outputs.argmax(-1)
    classes[:2] = (classes[:2] + 1) % 4
    softmax = Head("softmax", 4, SOFTMAX)
    for labels in (classes, classes[:, None], np.eye(4)[classes]):
        assert _tasks.score(softmax, outputs, labels) == 0.75
    binary = np.array([[-1.0], [2.0], [0.4], [-3.0]])
    assert _tasks.score(Head("binary", 1, SIGMOID), binary, np.array([0, 1, 0, 0])) == 0.75
    assert _tasks.score(Head("binary", 1, None), np.array([[0.4], [0.6]]), np.array([0, 1])) == 1
    metric = _tasks.metric(Head("binary", 1, SIGMOID))
    metric.update_state([[0.0], [1.0], [0.0], [0.0]], binary)
    assert float(metric.result()) == 0.75
    np.testing.assert_array_equal(_tasks.probabilities(Head("softmax", 2, SOFTMAX), [[1000.0, 0.0]]), [[1, 0]])
    labels = np.array([[1, 0, 0, 1]] * 8)
    assert _tasks.score(Head("multi-label", 4, SIGMOID), outputs, labels) == ((outputs > 0) == labels).mean()
    values = rng.normal(5, 2, (9, 2))
    regression = Head("regression", 2, None)
    assert _tasks.score(regression, values, values) == 1
    assert _tasks.score(regression, np.broadcast_to(values.mean(0), values.shape), values) == pytest.approx(0)
    assert _tasks.agreement(regression, values[:1] + 1e-6, values[:1]) == pytest.approx(1), "one image has no spread"
    assert np.isnan(_tasks.agreement(regression, values * np.nan, values))


@pytest.mark.parametrize(
    ("function", "label", "part"),
    [("prune", 9, "validation_data"), ("cluster", -1, "data"), ("train_quantized", 4, "data")],
)
def test_a_data_set_with_a_label_out_of_range_is_refused_when_it_comes(function, label, part):
    images = keras.Input((8, 8, 1))
    net = keras.Model(images, keras.layers.Dense(4, "softmax")(keras.layers.Flatten()(images)))
    pixels, right = np.zeros((16, 8, 8, 1), np.float32), np.arange(16) % 4
    wrong = np.where(np.arange(16) == 13, label, right)
    good, bad = (tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(8) for labels in (right, wrong))
    data = {"data": good, "validation_data": good, part: bad}
    with pytest.raises(InvalidArgumentError, match=rf"must hold labels from 0 to 3. Received: {label}\."):
        getattr(compress, function)(net, **data, epochs=1, verbose=0)
