import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export.litert import litert_report, to_litert

PIXELS = np.random.default_rng(0).integers(5, 250, (40, 16, 16, 3)).astype("float32")


@pytest.fixture(autouse=True)
def _free_models():
    """The nets here are small: collecting garbage after every test would take longer than the tests."""


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(images)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Reshape((64, 16))(x)
    x = layers.Reshape((8, 8, 16))(x)
    x = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.Model(images, layers.Dense(5, activation="softmax", name="answer")(x), name="small")


@pytest.fixture(scope="module")
def expected(model):
    return model.predict(PIXELS, verbose=0)


def run(path, images):
    runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    return np.concatenate([runner(images=image[None])["probabilities"] for image in images])


def test_float_file_has_the_signature_and_the_answers(model, expected, tmp_path):
    path = to_litert(model, tmp_path / "deep" / "model.tflite")
    assert path == tmp_path / "deep" / "model.tflite"
    signatures = Interpreter(str(path)).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["images"], "outputs": ["probabilities"]}}
    np.testing.assert_allclose(run(path, PIXELS), expected, atol=1e-5)
    report = litert_report(path)
    assert report.signatures == {"serving_default": (("images",), ("probabilities",))}
    kinds = {operator.kind for operator in report.operators}
    assert not kinds & {"SHAPE", "PACK", "STRIDED_SLICE", "READ_VARIABLE"}
    assert "CONV_2D  (1 in float)" in str(report)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.tflite"]


def test_dynamic_batch(model, expected, tmp_path):
    path = to_litert(model, tmp_path / "model.tflite", batch_size=None)
    runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    for count in (1, 7):
        np.testing.assert_allclose(runner(images=PIXELS[:count])["probabilities"], expected[:count], atol=1e-5)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (4, 16, 16, 3))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], PIXELS[:4])
    interpreter.invoke()
    answers = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(answers, expected[:4], atol=1e-5)


def test_fixed_batch(model, expected, tmp_path):
    path = to_litert(model, tmp_path / "model.tflite", batch_size=8)
    runner = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    np.testing.assert_allclose(runner(images=PIXELS[:8])["probabilities"], expected[:8], atol=1e-5)


@pytest.mark.parametrize("quantization", ["float16", "dynamic"])
def test_smaller_weights(model, expected, quantization, tmp_path):
    path = to_litert(model, tmp_path / "model.tflite", quantization=quantization)
    np.testing.assert_allclose(run(path, PIXELS), expected, atol=0.02)


@pytest.mark.parametrize("input_dtype", ["float32", "uint8", "int8"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_post_training_int8_takes_raw_pixels(model, expected, input_dtype, batch_size, tmp_path):
    path = to_litert(
        model,
        tmp_path / "model.tflite",
        quantization="int8",
        representative_data=(PIXELS, np.zeros(len(PIXELS))),
        input_dtype=input_dtype,
        batch_size=batch_size,
    )
    report = litert_report(path)
    kernels = [op for op in report.operators if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert [op.inputs[:2] for op in kernels] == [("INT8", "INT8")] * 3
    assert report.float_operators == ()
    images = PIXELS - 128 if input_dtype == "int8" else PIXELS
    interpreter = Interpreter(str(path), num_threads=1)
    if input_dtype != "float32":  # no sample has a 0 or a 255, yet a raw pixel is not rescaled
        zero = 0 if input_dtype == "uint8" else -128
        assert interpreter.get_input_details()[0]["quantization"] == (1.0, zero)
    runner = interpreter.get_signature_runner("serving_default")
    answers = runner(images=images[:batch_size].astype(input_dtype))["probabilities"]
    np.testing.assert_allclose(answers, expected[:batch_size], atol=0.03)


def test_representative_data_as_a_dataset(model, expected, tmp_path):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((PIXELS, np.zeros(len(PIXELS)))).batch(9)
    path = to_litert(model, tmp_path / "model.tflite", quantization="int8", representative_data=data)
    np.testing.assert_allclose(run(path, PIXELS), expected, atol=0.03)


def test_a_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        to_litert(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int4"}, "`quantization` must be one of .*Received: 'int4'"),
        ({"quantization": "int8"}, "int8 of a Keras 3 model needs `representative_data`"),
        ({"input_dtype": "uint8"}, "must be 'float32' unless.*Received: input_dtype='uint8', quantization=None"),
        ({"input_dtype": "int16"}, "`input_dtype` must be one of .*Received: 'int16'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, or None. Received: 0"),
        (
            {"quantization": "int8", "representative_data": PIXELS[:3], "batch_size": 4},
            "at least a batch of 4 images. Received: 3",
        ),
        ({"quantization": "int8", "representative_data": PIXELS[:, :5]}, "images of the model's shape"),
    ],
)
def test_arguments_that_do_not_go_together(model, arguments, message, tmp_path):
    with pytest.raises(InvalidArgumentError, match=message):
        to_litert(model, tmp_path / "model.tflite", **arguments)
    assert not any(tmp_path.iterdir())


def test_models_that_cannot_be_converted(model, tmp_path):
    images = keras.Input((None, None, 3))
    open_size = keras.Model(images, layers.Conv2D(2, 1, name="c")(images))
    with pytest.raises(ExportError, match=r"fixed image size. Received: image shape \(None, None, 3\)"):
        to_litert(open_size, tmp_path / "model.tflite")
    two = keras.Model(model.input, [model.output, model.output])
    with pytest.raises(ExportError, match="one input and one output. Received: .* 1 inputs and 2 outputs"):
        to_litert(two, tmp_path / "model.tflite")
    broken = keras.models.clone_model(model)
    broken.get_layer("answer").bias.assign(np.full(5, np.nan))
    with pytest.raises(ExportError, match=r"finite weights. Received: NaN or infinity in \['answer/bias'\]"):
        to_litert(broken, tmp_path / "model.tflite")


def test_report_of_something_else(tmp_path):
    path = tmp_path / "not.tflite"
    path.write_bytes(b"nothing like it")
    with pytest.raises(ExportError, match="identifier TFL3. Received"):
        litert_report(path)


def test_a_sequential_model_that_was_never_called(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    path = to_litert(model, tmp_path / "model.tflite")
    images = PIXELS[:2, :4, :4, :1] / 255
    np.testing.assert_allclose(run(path, images), model.predict(images, verbose=0), atol=1e-6)
