"""Float16 files: what is rounded, what stays in float32, and how much nearer to the model that is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import keraslight
from keraslight.export import litert_report, litert_runner, to_litert

IMAGES = np.random.default_rng(0).normal(size=(16, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def mobilenet():
    """MobileNetV2 with logits that differ by several units, as those of a trained net do."""
    keras.utils.set_random_seed(0)
    model = keraslight.create_model("mobilenet_v2_100", input_shape=(64, 64, 3), classes=10)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(IMAGES, training=True)
    kernel = model.get_layer("classifier").kernel
    logits = np.log(model.predict(IMAGES, verbose=0))
    kernel.assign(kernel * (3 / logits.std()))
    return model


@pytest.fixture(scope="module")
def files(mobilenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {
        "float32": to_litert(mobilenet, folder / "float32.tflite"),
        "float16": to_litert(mobilenet, folder / "float16.tflite", quantization="float16"),
    }


def constants(path):
    """dtype -> the arrays of a file that are there before it runs and are no integers, by size."""
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    made = {index for op in interpreter._get_ops_details() for index in op["outputs"]}
    found = {np.float16: [], np.float32: []}
    for details in interpreter.get_tensor_details():
        given = {entry["index"] for entry in interpreter.get_input_details()}
        if details["dtype"] in found and details["index"] not in made | given:
            found[details["dtype"]].append(interpreter.get_tensor(details["index"]))
    return found


def test_only_the_smallest_constants_stay_in_float32(files):
    before, after = constants(files["float32"]), constants(files["float16"])
    assert before[np.float16] == []
    assert len(after[np.float16]) + len(after[np.float32]) == len(before[np.float32])
    assert max(a.size for a in after[np.float32]) <= min(a.size for a in after[np.float16])
    values = sum(a.size for a in before[np.float32])
    share = sum(a.size for a in after[np.float32]) / values
    assert 0.05 < share <= 0.08
    kernels = [op for op in litert_report(files["float16"]).operators if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert {op.inputs for op in kernels} == {("FLOAT32",) * 3}

    # Every constant is there once, the large ones rounded.
    large = sorted(before[np.float32], key=lambda a: a.size)[-len(after[np.float16]) :]
    rounded = {a.astype(np.float16).tobytes() for a in large}
    assert {a.tobytes() for a in after[np.float16]} == rounded
    assert {a.tobytes() for a in after[np.float32]} <= {a.tobytes() for a in before[np.float32]}

    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert sizes["float16"] <= 0.55 * sizes["float32"]


@pytest.mark.slow
def test_nearer_to_the_model_than_the_converters_own_float16(mobilenet, files, tmp_path):
    converter = tf.lite.TFLiteConverter.from_keras_model(mobilenet)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(converter.convert())

    wanted = mobilenet.predict(IMAGES, verbose=0)

    def error(path):
        difference = np.log(litert_runner(path)(IMAGES)) - np.log(wanted)
        return np.sqrt(np.mean(np.square(difference - difference.mean(axis=1, keepdims=True))))

    assert error(files["float32"]) < 1e-4
    assert 1e-4 < error(files["float16"]) < 0.5 * error(plain)
    assert files["float16"].stat().st_size < 1.08 * plain.stat().st_size


def test_an_open_batch_and_the_signature_survive(mobilenet, files, tmp_path):
    path = to_litert(mobilenet, tmp_path / "open.tflite", quantization="float16", batch_size=None, labels="abcdefghij")
    runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    answers = runner(images=IMAGES[:5])["probabilities"]
    np.testing.assert_allclose(answers, litert_runner(files["float16"])(IMAGES[:5]), atol=1e-4)
    assert litert_report(path).metadata.labels == tuple("abcdefghij")


def dense_net(scale):
    """A net of two large kernels; the values of the first go up to `scale`, of the second to 1e-3 / `scale`."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Flatten(),
            layers.Dense(256, kernel_initializer=keras.initializers.RandomUniform(scale / 2, scale, seed=0)),
            layers.Dense(256, kernel_initializer=keras.initializers.RandomUniform(0, 1e-3 / scale, seed=1)),
            layers.Dense(3, activation="softmax"),
        ]
    )


def test_constants_that_float16_cannot_hold_stay_in_float32(tmp_path):
    images = np.random.default_rng(0).random((8, 4, 4, 3), np.float32)
    # With 1e5 the first kernel would be infinite, and the second, around 1e-8, zero.
    for scale, halved in ((1.0, [48 * 256, 256 * 256]), (1e5, [])):
        model = dense_net(scale)
        path = to_litert(model, tmp_path / "file.tflite", quantization="float16")
        assert sorted(a.size for a in constants(path)[np.float16]) == halved
        np.testing.assert_allclose(litert_runner(path)(images), np.asarray(model(images)), atol=2e-3)


def test_sparse_weights_stay_sparse(tmp_path):
    model = dense_net(1.0)
    for layer in model.layers[1:]:
        kernel = layer.kernel.numpy()
        kernel[np.random.default_rng(0).random(kernel.shape) < 0.8] = 0
        layer.kernel.assign(kernel)
    images = np.random.default_rng(0).random((8, 4, 4, 3), np.float32)
    dense = to_litert(model, tmp_path / "dense.tflite", quantization="float16", sparse=False)
    sparse = to_litert(model, tmp_path / "sparse.tflite", quantization="float16")
    kinds = [operator.kind for operator in litert_report(sparse).operators]
    assert (kinds.count("DENSIFY"), kinds.count("DEQUANTIZE")) == (3, 2)  # the smallest kernel is in float32
    assert sparse.stat().st_size < 0.55 * dense.stat().st_size
    np.testing.assert_array_equal(litert_runner(sparse)(images), litert_runner(dense)(images))
    np.testing.assert_allclose(litert_runner(sparse)(images), np.asarray(model(images)), atol=2e-3)


def test_the_same_model_gives_the_same_file(mobilenet, files, tmp_path):
    again = to_litert(mobilenet, tmp_path / "again.tflite", quantization="float16")
    assert again.read_bytes() == files["float16"].read_bytes()
