"""Int8 of channels and tensors that are zero, of raw pixels, and of what has no int8 form."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

from keraslight import compress
from keraslight.errors import CompressionError, ExportError, InvalidArgumentError
from keraslight.export import litert_runner, to_litert
from keraslight.graph import read, takes_pixels

IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 6)).astype("float32")


def dead_channels():
    """A model whose kernels, batch norms and factors are zero in one channel or in all, with biases around 3."""
    keras.utils.set_random_seed(0)
    three = keras.initializers.RandomUniform(2.5, 3.5)
    equal = keras.initializers.Constant(3.0)  # the converter takes a constant of equal values for a single one
    images = keras.Input((8, 8, 6), name="images")
    outputs = {
        "probabilities": layers.Conv2D(4, 3, bias_initializer=three, name="conv")(images),
        "depthwise": layers.DepthwiseConv2D(3, bias_initializer=three, name="depthwise")(images),
        "transposed": layers.Conv2DTranspose(4, 3, kernel_initializer="zeros", bias_initializer=three)(images),
        "dense": layers.Dense(4, kernel_initializer="zeros", bias_initializer=three)(layers.Flatten()(images)),
        "tiny": layers.Conv2D(4, 3, bias_initializer=three, name="tiny")(images),
        "equal": layers.Conv2D(4, 3, bias_initializer=equal, name="equal")(images),
        "equal_norm": layers.BatchNormalization(beta_initializer=equal)(layers.Conv2D(4, 3, name="dead")(images)),
        "norm": layers.BatchNormalization(beta_initializer=three, name="norm")(layers.Conv2D(4, 3)(images)),
    }
    model = keras.Model(images, outputs, name="net")
    for name, factor in (("conv", 0.0), ("tiny", 1e-9), ("equal", 0.0), ("dead", 0.0)):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.concatenate([factor * kernel[..., :1], kernel[..., 1:]], axis=-1))
    kernel = model.get_layer("depthwise").kernel
    kernel.assign(np.concatenate([0 * kernel[:, :, :1], kernel[:, :, 1:]], axis=2))
    model.get_layer("norm").gamma.assign([0.0, 1e-11, 1e-5, 1.0])
    return model


def test_dead_channels_keep_their_biases(tmp_path):
    model = dead_channels()
    quantized = compress.quantize_aware(model, calibration_data=IMAGES)
    file = to_litert(quantized, tmp_path / "net.tflite")
    run = Interpreter(str(file)).get_signature_runner()
    found = run(images=IMAGES[:1])
    for name, wanted in model(IMAGES[:1]).items():
        wanted = np.asarray(wanted)
        step = (max(wanted.max(), 0) - min(wanted.min(), 0)) / 255
        assert np.abs(found[name] - wanted).max() <= 3 * step, name
    back = compress.quantized_weights_to_keras(quantized, model)
    np.testing.assert_array_equal(back.get_layer("norm").gamma, model.get_layer("norm").gamma)


def pixel_model(*front, dtype="float32"):
    keras.utils.set_random_seed(0)
    x = images = keras.Input((8, 8, 3), dtype=dtype)
    for layer in front:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(images, layers.Dense(3, activation="softmax")(x))


DARK = np.random.default_rng(0).integers(0, 90, (16, 8, 8, 3))
PIXELS = {
    "unit": ([layers.Rescaling(1 / 255)], "float32"),
    "signed": ([layers.Rescaling(1 / 127.5, -1)], "float32"),
    "statistics": ([layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3409.0, 3262.0, 3291.0])], "float32"),
    "means": ([layers.Normalization(mean=[103.9, 116.8, 123.7], variance=[1.0] * 3)], "float32"),
    "flipped": ([layers.RandomFlip(), layers.Rescaling(1 / 255)], "float32"),
    "operation": ([lambda x: x / 255.0], "float32"),
    "uint8": ([layers.Rescaling(1 / 255)], "uint8"),
}


@pytest.mark.parametrize(
    ("way", "name"), [("litert", name) for name in PIXELS] + [("calibrate", "uint8"), ("qat", "uint8")]
)
def test_raw_pixels_have_the_scale_one(way, name, tmp_path):
    front, dtype = PIXELS[name]
    model, path = pixel_model(*front, dtype=dtype), tmp_path / "net.tflite"
    data, how = DARK.astype(dtype), {"input_dtype": "uint8"}
    if way == "calibrate":
        compress.calibrate(model, data, path, **how)
    elif way == "qat":
        to_litert(compress.quantize_aware(model, calibration_data=data), path, **how)
    else:
        to_litert(model, path, quantization="int8", representative_data=data, **how)
    assert Interpreter(str(path)).get_input_details()[0]["quantization"] == (1.0, 0)
    assert np.abs(litert_runner(path)(data) - np.asarray(model(data))).max() < 0.02


@pytest.mark.parametrize(
    ("layer", "low", "high"),
    [
        (layers.Rescaling(2.0, -1.0), 0.0, 1.0),
        (layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3), 0.0, 1.0),
        (layers.Rescaling(1 / 255), 0.0, 1.0),
        (layers.Rescaling(1 / 255), -100.0, 100.0),
        (layers.BatchNormalization(), 0.0, 255.0),
    ],
)
def test_other_inputs_are_no_pixels(layer, low, high):
    assert not takes_pixels(read(pixel_model(layer)), [np.array([low, high])])


@pytest.mark.parametrize("front", [[layers.Rescaling(1 / 255)], [layers.BatchNormalization(), layers.ReLU()]])
def test_models_of_uint8_fuse(front):
    model = pixel_model(*front, dtype="uint8")
    images = DARK[:2].astype("uint8")
    np.testing.assert_allclose(compress.fuse(model)(images), model(images), atol=1e-5)


@pytest.mark.parametrize("layer", [layers.LSTM(2), layers.GRU(2), layers.Bidirectional(layers.SimpleRNN(2))])
def test_loops_are_refused_before_the_converter_ends_the_process(layer, tmp_path):
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, layer(layers.Reshape((8, 48))(images)))
    with pytest.raises(ExportError, match=f"must not have loops.*{layer.name}.*unroll=True"):
        to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_with_their_layer(value, tmp_path):
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, layers.Dense(3)(layers.Flatten()(layers.Conv2D(2, 3, name="broken")(images))))
    kernel = np.array(model.get_layer("broken").kernel)
    kernel[0, 0, 0, 0] = value
    model.get_layer("broken").kernel.assign(kernel)
    labels = np.zeros(16, int)
    for attempt in (
        lambda: compress.prune(model, (IMAGES, labels), epochs=1, verbose=0),
        lambda: compress.quantize_aware(model),
        lambda: compress.calibrate(model, IMAGES, tmp_path / "net.tflite"),
        lambda: to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=IMAGES),
    ):
        with pytest.raises((CompressionError, ExportError), match="finite.*broken"):
            attempt()


@pytest.mark.parametrize("constant", [-np.inf, -1e9])
def test_padding_below_all_steps_needs_a_maximum_behind_it(constant, tmp_path):
    images = keras.Input((8, 8, 6))
    padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=constant)
    model = keras.Model(images, layers.AveragePooling2D(2)(padded))
    with pytest.raises(ExportError, match="near them.*pad"):
        to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=IMAGES)


@pytest.mark.parametrize("layer", [layers.UnitNormalization(), ops.normalize, layers.GroupNormalization(2)])
@pytest.mark.parametrize("xnnpack", [True, False])
def test_normalized_zeros_are_numbers_in_float32(layer, xnnpack, tmp_path):
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, layer(images))
    run = litert_runner(to_litert(model, tmp_path / "net.tflite", xnnpack=xnnpack))
    for batch in (np.zeros((1, 8, 8, 6), "float32"), np.full((1, 8, 8, 6), 200, "float32"), IMAGES[:1]):
        np.testing.assert_allclose(run(batch), model(batch), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("broadcast_to", lambda x: ops.broadcast_to(x[:, :1, :1], (None, 8, 8, 6))),
        ("reshape", lambda x: ops.reshape(x, (ops.shape(x)[0], 64, 6))),
        ("slice", lambda x: ops.slice(x, (0, 1, 1, 0), (None, 4, 4, 6))),
        ("tile", lambda x: ops.tile(x, (None, 2, 1, 1))),
    ],
)
def test_operations_of_an_open_shape_are_refused_by_their_names(name, operation, tmp_path):
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, operation(images))
    for attempt in (
        lambda: to_litert(model, tmp_path / "net.tflite"),
        lambda: to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=IMAGES),
        lambda: compress.calibrate(model, IMAGES, tmp_path / "net.tflite"),
        lambda: compress.quantize_aware(model, calibration_data=IMAGES),
    ):
        with pytest.raises((CompressionError, ExportError), match=f"must run.*{name}"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_model_for_one_batch_size_is_refused_with_calibration_data_of_another():
    images = keras.Input((8, 8, 6))
    model = keras.Model(images, ops.broadcast_to(images[:, :1, :1], (1, 8, 8, 6)))
    with pytest.raises(CompressionError, match=r"must run on the calibration data.*\(16, 8, 8, 6\).*broadcast_to"):
        compress.quantize_aware(model, calibration_data=IMAGES)


@pytest.mark.parametrize("operation", [lambda x: x - 100, lambda x: x * 2, ops.square])
def test_sums_and_products_in_uint8_are_refused(operation, tmp_path):
    model = pixel_model(operation, layers.Rescaling(1 / 255), dtype="uint8")
    for attempt in (
        lambda: compress.quantize_aware(model),
        lambda: to_litert(model, tmp_path / "net.tflite"),
    ):
        with pytest.raises(InvalidArgumentError, match="must not compute in uint8.*layer '(subtract|multiply|square)"):
            attempt()
