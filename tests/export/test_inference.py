"""The model that is served, against the one that was trained."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keraslight
from keraslight import compress, graph
from keraslight._tasks import read_head
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import save_servable
from keraslight.export._frozen import convertible
from keraslight.export._inference import inference_graph
from keraslight.preprocessing import Preprocessing
from keraslight.rewrite import halved

LABELS = ["a", "b", "c"]


def inference_model(model, dtype="float32", embed=False):
    served = inference_graph(graph.read(model), embed=embed)
    return graph.build(served if dtype == "float32" else halved(served, dtype))


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(0, 256, (3, 8, 12, 3)).astype("float32")


def test_batch_norms_are_folded_and_the_model_is_not_changed(build_net, pixels):
    model = build_net()
    before = [np.asarray(weight) for weight in model.weights]
    served = inference_model(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in served.layers)
    outputs = served(pixels)
    np.testing.assert_allclose(outputs["probabilities"], model(pixels), atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(outputs["logits"]), outputs["probabilities"], atol=1e-6)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_branches_are_fused():
    keras.utils.set_random_seed(0)
    model = keraslight.create_model(
        "repvgg_a0", width=0.25, classes=5, input_shape=(32, 32, 3), preprocessing=Preprocessing((32, 32))
    )
    served = inference_model(model)
    assert not any(isinstance(layer, keras.layers.Add) for layer in served.layers)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(served(images)["probabilities"], model(images, training=False), atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_come_before_an_activation_that_is_part_of_the_last_layer(build_net, pixels, activation):
    model = build_net(activation=activation)
    kernel, bias = model.get_layer("classifier").get_weights()
    features = keras.Model(model.input, model.get_layer("classifier").input)(pixels)
    served = inference_model(model, embed=True)(pixels)
    np.testing.assert_allclose(served["logits"], np.asarray(features) @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(served["embedding"], features, atol=1e-5)
    np.testing.assert_allclose(served["probabilities"], model(pixels), atol=1e-6)


def test_an_embedding_of_maps_is_their_mean():
    images = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="maps")(images)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1, name="classifier")(maps))
    served = inference_model(keras.Model(images, keras.layers.Softmax()(x)), embed=True)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    wanted = np.asarray(keras.Model(served.input, served.get_layer("maps").output)(pixels)).mean(axis=(1, 2))
    np.testing.assert_allclose(served(pixels)["embedding"], wanted, rtol=1e-4)


def test_an_embedding_needs_a_classifier_layer():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(images))
    with pytest.raises(InvalidArgumentError, match=r"`embed` needs a classifier layer .* Received: .* without one"):
        inference_model(keras.Model(images, x), embed=True)


def _behind(model, *parts):
    """A model of the net and what a user puts around it."""
    x = images = keras.Input(model.input_shape[1:])
    for part in (keras.layers.RandomBrightness(0.1), model, *parts):
        x = part(x)
    return keras.Model(images, x)


class OwnSoftmax(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.softmax(inputs)


def _ensemble(build_net):
    images = keras.Input((8, 12, 3))
    nets = build_net(0), build_net(1)
    nets[1].name = "other"
    return keras.Model(images, keras.layers.Average()([net(images) for net in nets]))


@pytest.mark.parametrize(
    "build",
    [
        lambda net: _behind(net()),
        lambda net: _behind(net(activation=None)),
        lambda net: _behind(net(activation="sigmoid")),
        lambda net: _behind(net(activation=None), keras.ops.softmax),
        lambda net: _behind(net(), keras.layers.Reshape((3, 1)), keras.layers.Flatten()),
        lambda net: _behind(net(), keras.layers.Activation("linear", dtype="float32")),
        lambda net: _behind(net(activation=None), OwnSoftmax()),
        _ensemble,
    ],
    ids=["nested", "logits", "sigmoid", "operation", "reshaped", "cast", "unknown layer", "ensemble"],
)
@pytest.mark.parametrize("form", ["graph", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float32", "float16"))])
def test_probabilities_get_no_second_softmax(build_net, pixels, tmp_path, build, form, request):
    """In the graph that is exported, and by `make test-all` in the SavedModel too."""
    model = build(build_net)
    raw = np.asarray(model(pixels, training=False))
    ending = request.node.callspec.id
    wanted = tf.nn.softmax(raw) if "logits" in ending else raw
    if form == "graph":
        model = convertible(model)
        answers = graph.build(inference_graph(graph.read(model), read_head(model)))(pixels, training=False)
    else:
        version = save_servable(model, tmp_path / "m", labels=LABELS, dtype=form)
        answers = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(pixels))
    tolerance = 5e-3 if form == "float16" else 1e-5
    np.testing.assert_allclose(answers["probabilities"], wanted, atol=tolerance)
    again = tf.sigmoid if "sigmoid" in ending else tf.nn.softmax
    np.testing.assert_allclose(again(answers["logits"]), answers["probabilities"], atol=tolerance)


@pytest.mark.parametrize(
    "activation",
    ["softmax", pytest.param(None, marks=pytest.mark.slow), pytest.param("sigmoid", marks=pytest.mark.slow)],
)
def test_a_quantization_aware_model_gives_probabilities_and_logits(build_net, pixels, tmp_path, activation):
    aware = compress.quantize_aware(build_net(activation=activation), calibration_data=pixels)
    raw = aware(pixels, training=False).numpy()
    wanted = raw if activation else tf.nn.softmax(raw)
    version = save_servable(aware, tmp_path / "m", labels=LABELS)
    answers = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(answers["probabilities"], wanted, atol=1e-5)
    again = tf.sigmoid if activation == "sigmoid" else tf.nn.softmax
    np.testing.assert_allclose(again(answers["logits"]), answers["probabilities"], atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param("float16", 2e-3, marks=pytest.mark.slow), ("bfloat16", 2e-2)]
)
def test_sixteen_bits(build_net, pixels, tmp_path, dtype, tolerance):
    model = build_net()
    version = save_servable(model, tmp_path / "m", labels=LABELS, dtype=dtype)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    answers = signature(images=tf.constant(pixels))
    assert answers["probabilities"].dtype == answers["logits"].dtype == tf.float32
    wanted = np.asarray(model(pixels))
    np.testing.assert_allclose(answers["probabilities"], wanted, atol=tolerance)
    assert np.abs(answers["probabilities"] - wanted).max() > 1e-6, "nothing was computed in sixteen bits"
    kernels = [v for v in tf.train.list_variables(str(version / "variables/variables")) if v[1] == [3, 3, 3, 4]]
    assert kernels
    reader = tf.train.load_checkpoint(str(version / "variables/variables"))
    assert {reader.get_variable_to_dtype_map()[name] for name, _ in kernels} == {tf.as_dtype(dtype)}
    parity = json.loads((version / "assets.extra/keraslight.json").read_text())["parity"]["signatures"]
    assert 1e-6 < parity["serving_default"]["largest_difference"] < tolerance
    assert parity["model.tflite"]["largest_difference"] < 1e-5, "model.tflite stays in float32"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_normalization_that_padding_keeps_a_layer(pixels, dtype):
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(pixels)
    images = keras.Input((8, 12, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same")(norm(images))
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(maps))
    model = keras.Model(images, keras.layers.Softmax()(scores))
    served = inference_model(model, dtype=dtype)
    assert served.get_layer("norm")
    answers = served(pixels)["probabilities"]
    np.testing.assert_allclose(answers, model(pixels), atol=1e-6 if dtype == "float32" else 5e-3)


def test_an_export_that_disagrees_with_its_model_is_refused(build_net, tmp_path, monkeypatch):
    # Another net's weights stand for a folding that went wrong.
    wrong = inference_graph(graph.read(build_net(seed=1)))
    monkeypatch.setattr("keraslight.export.saved_model.inference_graph", lambda *_, **__: wrong)
    with pytest.raises(ExportError, match=r"must give the model's probabilities within 0.0001. Received: serving_defa"):
        save_servable(build_net(), tmp_path / "m", labels=LABELS)
    assert list((tmp_path / "m").iterdir()) == []


def test_samples_of_ones_own(build_net, tmp_path, pixels):
    version = save_servable(build_net(), tmp_path / "m", labels=LABELS, samples=pixels)
    assert json.loads((version / "assets.extra/keraslight.json").read_text())["parity"]["images"] == 3


def test_samples_that_are_not_pixels_of_the_model(build_net, tmp_path, pixels):
    for bad in (pixels[:, :7], pixels[:0], pixels / 255):
        with pytest.raises(InvalidArgumentError, match=r"`samples` must be at least one image of shape \(8, 12, 3\)"):
            save_servable(build_net(), tmp_path / "m", labels=LABELS, samples=bad)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"dtype": "float64"}, "`dtype` must be one of .* Received: 'float64'"),
        ({"max_pixels": 0}, "`max_pixels` must be at least 1. Received: max_pixels=0"),
        ({"version": 0}, "`version` must be at least 1 and less than .* Received: version=0"),
        ({"version": 2**63}, "`version` must be at least 1 and less than .* Received: version=9223372036854775808"),
    ],
)
def test_bad_arguments(build_net, tmp_path, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        save_servable(build_net(), tmp_path / "m", labels=LABELS, **arguments)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("activation", "task"), [("softmax", "softmax"), ("sigmoid", "multi-label")])
def test_logits_of_averaged_probabilities_are_exact_for_small_ones(activation, task):
    images = keras.Input((1, 1, 3))
    flat = keras.layers.Flatten()(images)
    branches = [keras.layers.Activation(activation)(flat) for _ in range(2)]
    model = keras.Model(images, keras.layers.Average()(branches))
    logits = np.array([[[[-40.0, 0.0, 3.0]]]], np.float32)
    found = graph.build(inference_graph(graph.read(model), read_head(model, task)))(logits)["logits"].numpy()
    if activation == "softmax":  # except for one number per image
        found += logits.max() - found.max()
    np.testing.assert_allclose(found.ravel(), logits.ravel(), rtol=1e-3, atol=1e-5)
