"""Servables and LiteRT files of models that are no softmax: the model's numbers, from training to the client."""

import base64
import json

import grpc
import httpx
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keraslight_serving.client import Unsupported
from keraslight_serving.server import ModelServer
from keraslight_serving.testing import serve_in_process
from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc, regression_pb2

from keraslight import compress
from keraslight.errors import DisagreementError, InvalidArgumentError
from keraslight.export import litert_parity, litert_runner, read_metadata, save_servable, to_litert
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

SPEC = Preprocessing((8, 8))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("float32")
FILES = [tf.io.encode_png(image.astype("uint8")).numpy() for image in PIXELS[:3]]


def net(*head, seed=0):
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(ImageNormalization(SPEC)(images))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    for part in head:
        x = part(x)
    return keras.Model(images, x, name="net")


def dense(units, activation=None, bias=0.0):
    kernel = keras.initializers.RandomNormal(0, 3, seed=6)
    bias = keras.initializers.Constant(bias)
    return layers.Dense(units, activation, name="head", kernel_initializer=kernel, bias_initializer=bias)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


HEADS = {  # head, task, labels, method, what is served of the model's outputs
    "a logit": ([dense(1)], "binary", ["yes"], "classify", sigmoid),
    "a logit of two classes": (
        [dense(1)], "binary", ["no", "yes"], "classify", lambda z: np.hstack([1 - sigmoid(z), sigmoid(z)]),
    ),
    "a sigmoid": ([dense(1, "sigmoid")], None, ["yes"], "classify", lambda p: p),
    "a hard sigmoid of two classes": (
        # Some of its probabilities are exactly 1, and its images fill a vector register, where 1 / 1 may be below 1.
        [dense(1, "hard_sigmoid", 1.4)], None, ["no", "yes"], "classify", lambda p: np.hstack([1 - p, p]),
    ),
    "hard sigmoids": ([dense(3, "hard_sigmoid")], None, list("abc"), "classify", lambda p: p),
    "logits of labels": ([dense(3)], "multi-label", list("abc"), "classify", sigmoid),
    "a log-softmax": ([dense(3, "log_softmax")], None, list("abc"), "classify", np.exp),
    "a number": ([dense(1)], "regression", [], "regress", lambda y: y),
    "a large number": ([dense(1), layers.Rescaling(1e4)], "regression", ["grams"], "regress", lambda y: y),
    "numbers behind tanh": ([dense(3, "tanh")], "regression", list("abc"), None, lambda y: y),
}  # fmt: skip


SLOW = ("a logit", "a logit of two classes", "a sigmoid", "hard sigmoids", "a number")


@pytest.fixture(
    scope="module", params=[pytest.param(head, marks=pytest.mark.slow) if head in SLOW else head for head in HEADS]
)
def exported(request, tmp_path_factory):
    head, task, labels, method, served = HEADS[request.param]
    # Heads are made once: their layers would be shared.
    model = net(*(layer.__class__.from_config(layer.get_config()) for layer in head))
    folder = tmp_path_factory.mktemp("servables")
    return model, task, labels, method, served, save_servable(model, folder / "m", labels=labels, task=task)


def test_a_servable_gives_the_models_numbers(exported):
    model, task, labels, method, served, version = exported
    wanted = served(np.asarray(model(PIXELS), np.float64))
    signatures = tf.saved_model.load(str(version)).signatures
    answer = signatures["serving_default"](images=tf.constant(PIXELS))
    scale = max(1, np.abs(wanted).max())
    name = "outputs" if task == "regression" else "probabilities"
    np.testing.assert_allclose(answer[name], wanted, atol=1e-5 * scale)
    assert all(np.isfinite(numbers).all() for numbers in answer.values())
    np.testing.assert_allclose(litert_runner(version / "model.tflite")(PIXELS), wanted, atol=1e-5 * scale)
    others = {"encoded", "decode", "decode_examples", "serving_default", "serving_uint8"}
    assert set(signatures) == others | ({method} if method else set())
    origin = json.loads((version / "assets.extra/keraslight.json").read_text())
    assert origin["pipelines"].keys() == {"serving_uint8", "encoded"} | ({method} if method else set())
    assert (version / "assets/labels.txt").exists() == bool(labels)
    if task == "regression":
        assert origin["task"] == "regression"
        assert set(answer) == set(signatures["encoded"](image_bytes=tf.constant(FILES))) == {"outputs"}
        return
    logits = np.asarray(answer["logits"], np.float64)
    again = tf.nn.softmax(logits) if len(labels) == 2 or origin["task"] == "softmax" else sigmoid(logits)
    np.testing.assert_allclose(again, wanted, atol=1e-5)
    ranked = signatures["encoded"](image_bytes=tf.constant(FILES))
    order = np.argsort(-np.asarray(ranked["probabilities"]), axis=1, kind="stable")
    np.testing.assert_array_equal(ranked["indices"], order)
    np.testing.assert_array_equal(ranked["classes"], np.array(labels, object)[order].astype(bytes))


def test_a_label_file_and_metadata(exported, tmp_path):
    model, task, labels, _, _, version = exported
    if not labels:
        assert read_metadata(version / "model.tflite") is None
        return
    metadata = read_metadata(version / "model.tflite")
    origin = json.loads((version / "assets.extra/keraslight.json").read_text())
    assert (metadata.task, metadata.labels) == (origin["task"], tuple(labels))
    file = to_litert(model, tmp_path / "f.tflite", labels=labels, task=task)
    alone = read_metadata(file)
    # The file has the model's own output: of two classes, the score of the second.
    assert (alone.task, alone.labels) == (origin["task"], tuple(labels[-model.output_shape[-1] :]))
    parity = litert_parity(model, file, PIXELS, task=task)
    assert parity.task == origin["task"]
    parity.require(max_drop=1e-6)


def test_every_signature_of_a_server(exported):
    model, task, labels, _, served, version = exported
    wanted = served(np.asarray(model(PIXELS[:3]), np.float64))
    atol = 1e-4 * max(1, np.abs(wanted).max())
    with serve_in_process(version) as client:
        if task == "regression":
            np.testing.assert_allclose(client.predict({"images": PIXELS[:3]})["outputs"], wanted, atol=atol)
            numbers = client.predict({"image_bytes": FILES}, "encoded")["outputs"]
            np.testing.assert_allclose(numbers, wanted, atol=atol)
            for images in (FILES, FILES[0]):
                with pytest.raises(
                    Unsupported, match="must rank classes: .*A regression returns numbers: use `predict`"
                ):
                    client.classify(images)
            return
        rankings = client.classify(FILES, top_k=5)
        for ranking, row in zip(rankings, wanted, strict=True):
            assert [c.label for c in ranking] == [labels[n] for n in np.argsort(-row, kind="stable")]
            np.testing.assert_allclose([c.score for c in ranking], -np.sort(-row), atol=atol)


@pytest.fixture(scope="module")
def number(tmp_path_factory):
    """A regression's version folder, and its numbers for FILES."""
    model = net(dense(1))
    version = save_servable(model, tmp_path_factory.mktemp("number") / "m", task="regression")
    return version, np.asarray(model(PIXELS[:3]))[:, 0]


def test_regress_over_both_protocols(number):
    version, wanted = number
    with ModelServer("m", version.parent, rest_api_port=0) as server, grpc.insecure_channel(server.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = regression_pb2.RegressionRequest()
        request.model_spec.name, request.model_spec.signature_name = "m", "regress"
        for data in FILES:
            example = request.input.example_list.examples.add()
            example.features.feature["image/encoded"].bytes_list.value.append(data)
        found = stub.Regress(request, timeout=60).result.regressions
        np.testing.assert_allclose([each.value for each in found], wanted, atol=1e-5)
        examples = [{"image/encoded": {"b64": base64.b64encode(data).decode()}} for data in FILES]
        body = {"signature_name": "regress", "examples": examples}
        url = f"{server.rest_address}/v1/models/m:regress"
        np.testing.assert_allclose(httpx.post(url, json=body, timeout=60).json()["results"], wanted, atol=1e-5)


def test_warmup_of_a_regression(number):
    file = number[0] / "assets.extra/tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(r) for r in tf.compat.v1.io.tf_record_iterator(str(file))]
    kinds = {log.WhichOneof("log_type") for log in logs}
    assert kinds == {"predict_log", "regress_log"}


@pytest.mark.parametrize(
    ("head", "arguments", "text"),
    [
        (dense(1), {"labels": ["a"]}, "`task` must say what the outputs are.*1 output and no final activation"),
        (dense(3, "tanh"), {"labels": list("abc")}, "`task` must say what the outputs are.*tanh at the end"),
        (dense(3), {}, "`labels` must name every class once. Received: 0 labels for 3"),
        (dense(1, "sigmoid"), {"labels": list("abc")}, "Received: 3 labels for 1 classes"),
        (dense(3), {"labels": list("abc"), "task": "binary"}, "`task` must fit the model"),
    ],
)
def test_what_can_not_be_known(head, arguments, text, tmp_path):
    model = net(head.__class__.from_config(head.get_config()))
    with pytest.raises(InvalidArgumentError, match=text):
        save_servable(model, tmp_path / "m", **arguments)
    if arguments.get("labels") and len(arguments["labels"]) == model.output_shape[-1]:
        with pytest.raises(InvalidArgumentError, match=text):
            to_litert(model, tmp_path / "f.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", [["no", "yes"], []])
def test_quantization_aware_models_remember_their_task(labels, tmp_path):
    task = "binary" if labels else "regression"
    aware = compress.quantize_aware(net(dense(1)), calibration_data=PIXELS, task=task)
    raw = aware(PIXELS, training=False).numpy()
    version = save_servable(aware, tmp_path / "m", labels=labels)
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(PIXELS))
    wanted = np.hstack([1 - sigmoid(raw), sigmoid(raw)]) if labels else raw
    np.testing.assert_allclose(answer["probabilities" if labels else "outputs"], wanted, atol=1e-5)


@pytest.mark.parametrize(("activation", "task"), [("sigmoid", None), (None, "binary"), (None, "regression")])
def test_parity_of_one_output_sees_another_models_file(activation, task, tmp_path):
    model = net(dense(1, activation))
    other = net(dense(1, activation))
    features = np.asarray(keras.Model(model.input, model.get_layer("pool").output)(PIXELS))
    scores = features @ np.asarray(model.layers[-1].kernel)
    model.layers[-1].bias.assign(-np.median(scores, axis=0))
    other.layers[-1].bias.assign(9 - scores.min(axis=0))  # always says yes
    outputs = np.asarray(model(PIXELS))
    labels = outputs[:, 0] if task == "regression" else (scores[:, 0] > np.median(scores)).astype(int)
    own, wrong = (to_litert(each, tmp_path / f"{n}.tflite") for n, each in enumerate((model, other)))
    for data in (PIXELS, (PIXELS, labels), (PIXELS, labels[:, None])):
        litert_parity(model, own, data, task=task).require(max_drop=0.01, max_difference=1e-4)
        with pytest.raises(DisagreementError, match="within max_drop=0.2 of its model"):
            litert_parity(model, wrong, data, task=task).require(max_drop=0.2)


def test_parity_without_a_task_compares_numbers(tmp_path):
    model = net(dense(1))
    file = to_litert(model, tmp_path / "f.tflite")
    assert litert_parity(model, file, PIXELS).task == "regression"
    with pytest.raises(InvalidArgumentError, match="`task` must say what the outputs are"):
        litert_parity(model, file, (PIXELS, np.zeros(12)))


def test_parity_counts_one_hot_labels_once(tmp_path):
    model = net(dense(4, "softmax"))
    classes = np.asarray(model(PIXELS)).argmax(-1)
    classes[:3] = (classes[:3] + 1) % 4
    file = to_litert(model, tmp_path / "f.tflite")
    for size in (1, 5):
        data = tf.data.Dataset.from_tensor_slices((PIXELS, np.eye(4)[classes])).batch(size)
        parity = litert_parity(model, file, data)
        assert (parity.model_accuracy, parity.file_accuracy, parity.images) == (0.75, 0.75, 12)
    with pytest.raises(InvalidArgumentError, match=r"labels for task='softmax'.*Received: labels of shape \(12, 3\)"):
        litert_parity(model, file, (PIXELS, np.eye(3)[classes % 3]))
    with pytest.raises(InvalidArgumentError, match=r"outputs of shape \(12, 4\), not \(12, 3\)"):
        litert_parity(net(dense(3)), file, PIXELS)
