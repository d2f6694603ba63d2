import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keraslight
from keraslight.errors import InvalidArgumentError
from keraslight.export import read_metadata, save_servable
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
    version = save_servable(model, path, labels=LABELS, metrics={"accuracy": 0.5}, embed=True)
    images = rng.integers(0, 256, (3, 50, 60, 3), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in images]
    pixels = np.stack([np.asarray(SPEC.decode(tf.constant(file))) for file in files])
    probabilities = model.predict(pixels, verbose=0)
    return probabilities, version, files, pixels


def example(**features):
    """A serialized tf.Example with features image/<name>, one string each."""
    lists = {
        f"image/{name}": tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_files(exported):
    _, version, _, _ = exported
    assert version.name == "1"
    assert (version / "assets/labels.txt").read_text() == "zero\none\ntwo\nthree\n"
    origin = json.loads((version / "assets.extra/keraslight.json").read_text())
    assert origin["metrics"] == {"accuracy": 0.5}
    assert Preprocessing.from_dict(origin["preprocessing"]) == SPEC
    assert len(origin["weights_sha256"]) == 64
    assert origin["parity"]["images"] == 4
    assert set(origin["parity"]["signatures"]) == {
        "serving_default", "serving_uint8", "encoded", "classify", "model.tflite",
    }  # fmt: skip
    assert origin["pipelines"] == {
        "serving_uint8": {"network": "serving_default"},
        "encoded": {"decode": "decode", "network": "serving_default", "rank": "probabilities"},
        "classify": {"decode": "decode_examples", "network": "serving_default", "rank": "probabilities"},
    }
    assert all(0 <= s["largest_difference"] < 1e-5 for s in origin["parity"]["signatures"].values())
    assert [child.name for child in version.parent.iterdir()] == ["1"]
    variables = sum(file.stat().st_size for file in (version / "variables").iterdir())
    assert variables < 1.1 * 4 * small().count_params(), "every variable is written once"


def test_signatures_agree_with_the_keras_model(exported):
    wanted, version, files, pixels = exported
    loaded = tf.saved_model.load(str(version))
    raw = loaded.signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(raw["probabilities"], wanted, atol=1e-5)
    np.testing.assert_allclose(tf.nn.softmax(raw["logits"]), wanted, atol=1e-5)
    bytes_in = loaded.signatures["serving_uint8"](images=tf.constant(pixels.astype(np.uint8)))
    for name in ("probabilities", "logits"):
        np.testing.assert_array_equal(bytes_in[name], raw[name])

    encoded = loaded.signatures["encoded"](image_bytes=tf.constant(files))
    np.testing.assert_allclose(encoded["probabilities"], wanted, atol=1e-5)
    order = np.argsort(-np.asarray(encoded["probabilities"]), axis=1, kind="stable")
    np.testing.assert_array_equal(encoded["indices"], order)
    np.testing.assert_array_equal(encoded["classes"], np.array(LABELS, dtype=object)[order].astype(bytes))
    np.testing.assert_allclose(encoded["scores"], np.take_along_axis(wanted, order, 1), atol=1e-5)

    raw_bytes = [image.astype(np.uint8).tobytes() for image in pixels]
    examples = [example(encoded=files[0]), example(pixels=raw_bytes[1]), example(encoded=files[2])]
    classified = loaded.signatures["classify"](inputs=tf.constant(examples))
    np.testing.assert_array_equal(classified["classes"], encoded["classes"])
    np.testing.assert_allclose(classified["scores"], encoded["scores"], atol=1e-6)
    assert set(classified) == {"classes", "scores"}


def test_loads_with_the_tf1_loader_and_its_method_names(exported):
    _, version, _, _ = exported
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(version)).signature_def
    assert signatures["classify"].method_name == "tensorflow/serving/classify"
    for name in ("serving_default", "serving_uint8", "encoded", "embed"):
        assert signatures[name].method_name == "tensorflow/serving/predict"
    image = signatures["serving_default"].inputs["images"]
    assert [dim.size for dim in image.tensor_shape.dim] == [-1, 32, 40, 3]


@pytest.mark.slow
def test_saved_model_cli_prints_the_named_signatures(exported):
    _, version, _, _ = exported
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", str(version), "--all"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name, inputs, outputs in [
        ("serving_default", {"images": ("DT_FLOAT", "(-1, 32, 40, 3)")}, ("logits", "probabilities")),
        ("serving_uint8", {"images": ("DT_UINT8", "(-1, 32, 40, 3)")}, ("logits", "probabilities")),
        ("encoded", {"image_bytes": ("DT_STRING", "(-1)")}, ("classes", "indices", "probabilities", "scores")),
        ("classify", {"inputs": ("DT_STRING", "(-1)")}, ("classes", "scores")),
        ("decode", {"image_bytes": ("DT_STRING", "(-1)")}, ("images",)),
        ("decode_examples", {"inputs": ("DT_STRING", "(-1)")}, ("images",)),
        ("embed", {"images": ("DT_FLOAT", "(-1, 32, 40, 3)")}, ("embedding",)),
    ]:
        part = text.split(f"signature_def['{name}']:")[1].split("Method name is")[0]
        for alias, (dtype, shape) in inputs.items():
            assert re.search(rf"inputs\['{alias}'\] tensor_info:\s+dtype: {dtype}\s+shape: {re.escape(shape)}", part)
        assert tuple(re.findall(r"outputs\['(\w+)'\]", part)) == outputs


def test_litert_file_has_the_same_signature_and_any_batch(exported):
    from ai_edge_litert.interpreter import Interpreter

    wanted, version, _, pixels = exported
    interpreter = Interpreter(str(version / "model.tflite"))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["logits", "probabilities"]}
    }
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pixels.shape)
    answers = interpreter.get_signature_runner("serving_default")(images=pixels)["probabilities"]
    np.testing.assert_allclose(answers, wanted, atol=1e-5)
    # Readers of metadata take the first output for the scores.
    first = interpreter.get_output_details()[0]
    np.testing.assert_array_equal(interpreter.get_tensor(first["index"]), answers)
    metadata = read_metadata(version / "model.tflite")
    assert (metadata.labels, metadata.color_space) == (tuple(LABELS), "RGB")


def test_every_warmup_request_replays_in_a_session(exported):
    """As TensorFlow Serving does it: parse, run, refuse the version at the first error."""
    from tensorflow_serving.apis import prediction_log_pb2

    _, version, _, _ = exported
    records = tf.compat.v1.io.tf_record_iterator(str(version / "assets.extra/tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    assert sum(log.ByteSize() for log in logs) < 1e6, "images are written as one repeated pixel"
    seen = set()
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(version)).signature_def
        for log in logs:
            kind = log.WhichOneof("log_type")
            request = getattr(log, kind).request
            name = request.model_spec.signature_name
            if kind == "classify_log":
                examples = request.input.example_list.examples
                inputs = {"inputs": [example.SerializeToString() for example in examples]}
            else:
                inputs = {alias: tf.make_ndarray(value) for alias, value in request.inputs.items()}
            feeds = {signatures[name].inputs[alias].name: value for alias, value in inputs.items()}
            outputs = session.run({alias: info.name for alias, info in signatures[name].outputs.items()}, feeds)
            (size,) = {len(output) for output in outputs.values()}
            assert request.model_spec.name == "photos"
            seen.add((name, kind, size))
    predict = ("serving_default", "serving_uint8", "encoded", "embed")
    wanted = [(name, "predict_log") for name in predict] + [("classify", "classify_log")]
    assert seen == {(*pair, size) for pair in wanted for size in (1, 2, 4, 8, 16, 32)}


def test_a_model_of_normalized_images_and_logits_gets_both_ends(tmp_path):
    spec = Preprocessing((8, 8), crop_pct=0.9)
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(images))))
    version = save_servable(model, tmp_path / "m", labels=LABELS, preprocessing=spec)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    normalized = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    logits = model.predict(normalized, verbose=0)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    served = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(pixels))
    np.testing.assert_allclose(served["probabilities"], wanted, atol=1e-5)
    np.testing.assert_allclose(served["logits"], logits, atol=1e-4)


def test_a_model_that_says_nothing_of_preprocessing_gets_raw_pixels_and_a_warning(tmp_path, caplog):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(images)  # its own business
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 8)(x))
    model = keras.Model(images, keras.layers.Softmax()(x))
    version = save_servable(model, tmp_path / "m", labels=LABELS)
    assert caplog.text.count("carries no preprocessing") == 1
    assert "The model carries no preprocessing (no ImageNormalization layer)" in caplog.text
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    served = tf.saved_model.load(str(version)).signatures
    wanted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(
        served["serving_default"](images=tf.constant(pixels))["probabilities"], wanted, atol=1e-6
    )
    files = [tf.io.encode_png(image.astype("uint8")).numpy() for image in pixels]
    np.testing.assert_allclose(served["encoded"](image_bytes=tf.constant(files))["probabilities"], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"labels": LABELS[:3]}, "must name every class once. Received: 3 labels for 4 classes"),
        ({"labels": [*LABELS[:3], "a\nb"]}, "Received: a label with a line break"),
        ({"labels": LABELS, "preprocessing": SPEC.replace(size=(64, 64))}, r"for a model input of \(32, 40, 3\)"),
    ],
)
def test_bad_arguments(tmp_path, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        save_servable(small(preprocessing=SPEC), tmp_path / "m", **arguments)
    assert not (tmp_path / "m").exists()


def test_a_model_that_is_not_a_classifier(tmp_path):
    features = keraslight.create_model("mobilenet_v4_conv_small", input_shape=(32, 32, 3), features_only=True)
    with pytest.raises(InvalidArgumentError, match=r"needs a .* classifier with one input"):
        save_servable(features, tmp_path / "m", labels=LABELS)
    assert not (tmp_path / "m").exists()


def test_models_of_uint8_answer_alike_in_every_signature(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1)(keras.layers.MaxPooling2D()(inputs))  # which is folded into:
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(x)))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    wanted = np.asarray(model(pixels))
    version = save_servable(model, tmp_path / "bytes", labels=LABELS, samples=pixels)
    call = tf.saved_model.load(str(version)).signatures
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    for answers in (
        call["serving_default"](images=tf.constant(pixels, tf.float32)),
        call["serving_uint8"](images=tf.constant(pixels)),
        call["encoded"](image_bytes=tf.constant(files)),
    ):
        np.testing.assert_allclose(answers["probabilities"], wanted, atol=1e-5)
    classified = call["classify"](inputs=tf.constant([example(encoded=file) for file in files]))
    np.testing.assert_allclose(classified["scores"], -np.sort(-wanted), atol=1e-5)
    parity = json.loads((version / "assets.extra/keraslight.json").read_text())["parity"]["signatures"]
    assert parity.keys() == {"serving_default", "serving_uint8", "encoded", "classify", "model.tflite"}
    assert all(signature["largest_difference"] < 1e-5 for signature in parity.values())


@pytest.mark.parametrize("folder", ["[ab]/net", "run[1]/net", "nets/[a-c]x", "a\\b/net"])
def test_a_path_that_tensorflow_takes_for_a_pattern_is_refused_before_anything_is_written(folder, tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Dense(4, "softmax")(keras.layers.Flatten()(images)))
    with pytest.raises(InvalidArgumentError, match="`path` must hold neither brackets nor backslashes"):
        save_servable(model, tmp_path / folder, labels=LABELS)
    assert list(tmp_path.iterdir()) == []
