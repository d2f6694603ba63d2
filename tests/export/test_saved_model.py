import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keraslight
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import list_versions, save_servable
from keraslight.preprocessing import Preprocessing

LABELS = ["zero", "one", "two", "three"]
SPEC = Preprocessing((32, 40), crop_pct=0.9, interpolation="bilinear")


def small(**arguments):
    return keraslight.create_model("mobilenet_v4_conv_small", classes=4, input_shape=(32, 40, 3), **arguments)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One servable for all that only reads it: (Keras model, version directory, PNG files, raw pixels)."""
    keras.utils.set_random_seed(0)
    model = small(preprocessing=SPEC)
    rng = np.random.default_rng(0)
    for variable in model.weights:  # random statistics, so that the four probabilities differ
        if "moving_variance" in variable.path:
            variable.assign(rng.uniform(0.05, 0.1, variable.shape))
    path = tmp_path_factory.mktemp("savedmodels") / "photos"
    version = save_servable(model, path, labels=LABELS, metrics={"accuracy": 0.5})
    images = rng.integers(0, 256, (3, 50, 60, 3), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in images]
    pixels = np.stack([np.asarray(SPEC.decode(tf.constant(file))) for file in files])
    probabilities = model.predict(pixels, verbose=0)
    return probabilities, version, files, pixels


def test_files(exported):
    _, version, _, _ = exported
    assert version.name == "1"
    assert (version / "assets/labels.txt").read_text() == "zero\none\ntwo\nthree\n"
    origin = json.loads((version / "assets.extra/keraslight.json").read_text())
    assert origin["metrics"] == {"accuracy": 0.5}
    assert Preprocessing.from_dict(origin["preprocessing"]) == SPEC
    assert [child.name for child in version.parent.iterdir()] == ["1"]
    variables = sum(file.stat().st_size for file in (version / "variables").iterdir())
    assert variables < 1.1 * 4 * small().count_params(), "every variable is written once"


def test_signatures_agree_with_the_keras_model(exported):
    wanted, version, files, pixels = exported
    loaded = tf.saved_model.load(str(version))
    raw = loaded.signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(raw["probabilities"], wanted, atol=1e-5)

    encoded = loaded.signatures["encoded"](image_bytes=tf.constant(files))
    np.testing.assert_allclose(encoded["probabilities"], wanted, atol=1e-5)
    order = np.argsort(-np.asarray(encoded["probabilities"]), axis=1, kind="stable")
    np.testing.assert_array_equal(encoded["indices"], order)
    np.testing.assert_array_equal(encoded["classes"], np.array(LABELS, dtype=object)[order].astype(bytes))
    np.testing.assert_allclose(encoded["scores"], np.take_along_axis(wanted, order, 1), atol=1e-5)

    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))}
            )
        ).SerializeToString()
        for file in files
    ]
    classified = loaded.signatures["classify"](inputs=tf.constant(examples))
    np.testing.assert_array_equal(classified["classes"], encoded["classes"])
    np.testing.assert_allclose(classified["scores"], encoded["scores"], atol=1e-6)
    assert set(classified) == {"classes", "scores"}


def test_loads_with_the_tf1_loader_and_its_method_names(exported):
    _, version, _, _ = exported
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(version)).signature_def
    assert signatures["classify"].method_name == "tensorflow/serving/classify"
    assert signatures["serving_default"].method_name == "tensorflow/serving/predict"
    image = signatures["serving_default"].inputs["images"]
    assert [dim.size for dim in image.tensor_shape.dim] == [-1, 32, 40, 3]


def test_litert_file_has_the_same_signature_and_any_batch(exported):
    from ai_edge_litert.interpreter import Interpreter

    wanted, version, _, pixels = exported
    interpreter = Interpreter(str(version / "model.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["images"], "outputs": ["probabilities"]}}
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pixels.shape)
    answers = interpreter.get_signature_runner("serving_default")(images=pixels)["probabilities"]
    np.testing.assert_allclose(answers, wanted, atol=1e-5)


def test_warmup_requests_replay(exported):
    from tensorflow_serving.apis import prediction_log_pb2

    _, version, _, _ = exported
    loaded = tf.saved_model.load(str(version))
    records = tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests"))
    seen = []
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = getattr(log, log.WhichOneof("log_type")).request
        name = request.model_spec.signature_name
        if name == "classify":
            example = request.input.example_list.examples[0].SerializeToString()
            outputs = loaded.signatures[name](inputs=tf.constant([example]))
        else:
            inputs = {alias: tf.constant(tf.make_ndarray(value)) for alias, value in request.inputs.items()}
            outputs = loaded.signatures[name](**inputs)
        assert next(iter(outputs.values())).shape[0] == 1
        seen.append(name)
    assert seen == ["serving_default", "encoded", "classify"]


def test_a_model_of_normalized_images_and_logits_gets_both_ends(tmp_path):
    model = small(classifier_activation=None)
    version = save_servable(model, tmp_path / "m", labels=LABELS, preprocessing=SPEC)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3)).astype("float32")
    normalized = (pixels / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    logits = model.predict(normalized, verbose=0)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    served = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(served["probabilities"], wanted, atol=1e-5)


def test_a_model_that_says_nothing_of_preprocessing_gets_raw_pixels_and_a_warning(tmp_path, caplog):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(images)  # its own business
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 8)(x))
    model = keras.Model(images, keras.layers.Softmax()(x))
    version = save_servable(model, tmp_path / "m", labels=LABELS)
    assert "The model carries no preprocessing (no ImageNormalization layer)" in caplog.text
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    served = tf.saved_model.load(str(version)).signatures
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(
        served["serving_default"](images=tf.constant(pixels))["probabilities"], wanted, atol=1e-6
    )
    files = [tf.io.encode_png(image.astype("uint8")).numpy() for image in pixels]
    np.testing.assert_allclose(served["encoded"](image_bytes=tf.constant(files))["probabilities"], wanted, atol=1e-6)


def test_versions(tmp_path, monkeypatch):
    import keraslight.export.saved_model as saved_model

    # What a version holds is tested above; here only where it goes.
    monkeypatch.setattr(
        saved_model, "_write_saved_model", lambda model, to, *_: (to / "saved_model.pb").write_text("x")
    )
    monkeypatch.setattr(saved_model, "to_litert", lambda *_, **__: None)
    model, path = small(preprocessing=SPEC), tmp_path / "photos"

    def save(**arguments):
        return save_servable(model, path, labels=LABELS, **arguments).name

    assert list_versions(path) == []
    assert [save(), save(), save(version=7), save()] == ["1", "2", "7", "8"]
    (path / "notes").mkdir()
    (path / ".9-half").mkdir()
    assert list_versions(path) == [1, 2, 7, 8]
    with pytest.raises(ExportError, match="never overwritten unless `overwrite=True`. Received: .*/7, which exists"):
        save(version=7)
    inode = os.stat(path / "7").st_ino
    assert save(version=7, overwrite=True) == "7"
    assert os.stat(path / "7").st_ino != inode
    with pytest.raises(InvalidArgumentError, match="`version` must be at least 1. Received: version=0"):
        save(version=0)


@pytest.mark.parametrize(
    "error", [RuntimeError("no luck"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_a_failed_export_leaves_nothing_behind(error, tmp_path, monkeypatch):
    import keraslight.export.saved_model as saved_model

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(saved_model, "to_litert", fail)
    wanted = ExportError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted):
        save_servable(small(preprocessing=SPEC), tmp_path / "photos", labels=LABELS)
    assert list((tmp_path / "photos").iterdir()) == []


def test_bad_arguments(tmp_path):
    model = small(preprocessing=SPEC)
    for arguments, text in [
        ({"labels": LABELS[:3]}, "must name every class once. Received: 3 labels for 4 classes"),
        ({"labels": [*LABELS[:3], "a\nb"]}, "Received: a label with a line break"),
        ({"labels": LABELS, "preprocessing": SPEC.replace(size=(64, 64))}, r"for a model input of \(32, 40, 3\)"),
    ]:
        with pytest.raises(InvalidArgumentError, match=text):
            save_servable(model, tmp_path / "m", **arguments)
    features = keraslight.create_model("mobilenet_v4_conv_small", input_shape=(32, 32, 3), features_only=True)
    with pytest.raises(InvalidArgumentError, match=r"needs a classifier with one input"):
        save_servable(features, tmp_path / "m", labels=LABELS)
    assert not (tmp_path / "m").exists()
