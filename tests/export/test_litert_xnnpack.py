"""Files that XNNPACK, which runs them on CPUs, runs in one go."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

from keraslight import compress
from keraslight.export.litert import litert_report, litert_runner, to_litert
from keraslight.layers import GRN, ChannelSlice


def operators(file):
    """The names of a file's operators, and in how many parts XNNPACK runs it."""
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    names = [details["op_name"] for details in interpreter._get_ops_details()]
    return [name for name in names if name != "DELEGATE"], names.count("DELEGATE")


def lone_operations():
    """(16, 12, 3) -> 4 logits, by what the converter makes operators of that XNNPACK does not know."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 12, 3), name="images")
    x = layers.Conv2D(8, 3, padding="same")(images)
    x = layers.Add()([ChannelSlice(1, None, 2)(x), layers.Conv2D(4, 1)(ChannelSlice(0, None, 2)(x))])
    y = layers.ReLU(name="relu")(x)
    z = layers.Activation("relu6", name="relu6")(layers.Concatenate()([x, layers.Conv2D(4, 1)(y)]))
    z = layers.AveragePooling2D((2, 3), name="pool")(z)
    z = layers.AveragePooling2D(3, strides=2, name="pool_strided")(z)
    return keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten()(z)), name="net")


@pytest.mark.parametrize("way", ["float32", "float16", "int8", "trained"])
def test_one_part(way, tmp_path):
    model = lone_operations()
    pixels = np.random.default_rng(0).normal(size=(32, 16, 12, 3)).astype("float32")
    if way == "trained":
        file = to_litert(compress.quantize_aware(model, calibration_data=pixels), tmp_path / "net.tflite")
    else:
        quantization = None if way == "float32" else way
        file = to_litert(
            model,
            tmp_path / "net.tflite",
            quantization=quantization,
            representative_data=pixels if way == "int8" else None,
        )
    names, parts = operators(file)
    assert parts == 1, names
    expected = model.predict(pixels, verbose=0)
    error = np.abs(litert_runner(file)(pixels) - expected)
    if way in ("int8", "trained"):
        assert not {"RELU", "RELU6", "AVERAGE_POOL_2D"} & set(names)
        assert error.mean() < 0.05 * expected.std()
    else:
        assert error.max() < (1e-5 if way == "float32" else 1e-2)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_plain_operators_on_demand(tmp_path):
    file = to_litert(lone_operations(), tmp_path / "net.tflite", xnnpack=False)
    assert "TRANSPOSE" not in {operator.kind for operator in litert_report(file).operators}


def test_relus_that_fuse_stay(tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(images)))
    x = layers.ReLU(6.0)(layers.Add()([layers.Activation("relu")(layers.DepthwiseConv2D(3, padding="same")(x)), x]))
    model = keras.Model(images, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name="net")
    pixels = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    names, _ = operators(to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=pixels))
    assert names == ["QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "DEQUANTIZE"]


def test_slices_of_other_kinds_stay_right(tmp_path):
    images = keras.Input((4, 4, 7), name="images")
    slices = [ChannelSlice(0, None, 2), ChannelSlice(1, 6, 2), ChannelSlice(4, None, 3), ChannelSlice(2, 5)]
    x = layers.Concatenate()([one(images) for one in slices])
    model = keras.Model(images, layers.Flatten()(x), name="net")
    pixels = np.random.default_rng(0).normal(size=(3, 4, 4, 7)).astype("float32")
    file = to_litert(model, tmp_path / "net.tflite")
    np.testing.assert_array_equal(litert_runner(file)(pixels), model.predict(pixels, verbose=0))


def test_an_int8_grn_takes_a_black_image(tmp_path):
    """The interpreter stops at a division by what rounds to 0."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    x = GRN(name="grn")(layers.Conv2D(8, 1, use_bias=False)(images))
    model = keras.Model(images, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name="net")
    gamma = model.get_layer("grn").gamma
    gamma.assign(ops.ones_like(gamma))
    pixels = np.random.default_rng(0).uniform(0, 1, (32, 8, 8, 3)).astype("float32")
    file = to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=pixels)
    black = np.zeros((1, 8, 8, 3), "float32")
    run, expected = litert_runner(file), model.predict(pixels, verbose=0)
    assert np.abs(run(black) - model.predict(black, verbose=0)).max() < 0.1 * expected.std()
    assert np.abs(run(pixels) - expected).mean() < 0.1 * expected.std()


def test_hard_swish_runs_in_xnnpack(tmp_path):
    """It has a kernel for HARD_SWISH in float, none in int8."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    inner = keras.Sequential([layers.Conv2D(8, 3), layers.Activation("hard_silu", name="act")], name="inner")
    x = layers.Conv2D(8, 1, activation="hard_silu", name="conv")(inner(images))
    model = keras.Model(images, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)), name="net")
    pixels = 2 * np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    files = {
        name: to_litert(
            model, tmp_path / f"{name}.tflite", quantization=name, representative_data=pixels if name else None
        )
        for name in (None, "int8")
    }
    kinds = {name: [operator.kind for operator in litert_report(file).operators] for name, file in files.items()}
    assert kinds[None].count("HARD_SWISH") == 2
    assert kinds["int8"] == ["QUANTIZE", "CONV_2D", *["ADD", "MUL", "MUL"], "CONV_2D", *["ADD", "MUL", "MUL"], "MEAN",
                             "FULLY_CONNECTED", "DEQUANTIZE"]  # fmt: skip
    interpreter = Interpreter(str(files["int8"]))
    interpreter.allocate_tensors()
    assert [details["op_name"] for details in interpreter._get_ops_details()].count("DELEGATE") == 1
    expected = model.predict(pixels, verbose=0)
    assert np.abs(litert_runner(files["int8"])(pixels) - expected).mean() < 0.05 * expected.std()
    for layer in (inner.get_layer("act"), model.get_layer("conv")):
        assert layer.activation is keras.activations.hard_silu


@pytest.mark.parametrize("quantization", [None, "float16", "int8"])
def test_wide_depthwise_convolutions_run_in_xnnpack(tmp_path, quantization):
    """It has kernels for 25 taps at most."""
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 13, 4), name="images")
    inner = keras.Sequential([layers.DepthwiseConv2D(7, padding="same", activation="relu", name="wide")], name="inner")
    separable = layers.SeparableConv2D(6, 7, strides=2, padding="same", depth_multiplier=2, name="separable")
    for layer in (inner.layers[0], separable):
        layer.bias_initializer = keras.initializers.RandomNormal(seed=1)
    x = separable(inner(images))
    model = keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="net")
    pixels = np.random.default_rng(0).normal(size=(32, 12, 13, 4)).astype("float32")
    file = to_litert(
        model, tmp_path / "net.tflite", quantization=quantization, representative_data=pixels if quantization else None
    )
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    kernels = [
        interpreter._get_tensor_details(operator["inputs"][1], 0)["shape"]
        for operator in operators
        if operator["op_name"] == "DEPTHWISE_CONV_2D"
    ]
    assert sorted(tuple(map(int, kernel[1:3])) for kernel in kernels) == sorted(2 * [(2, 7), (3, 7), (2, 7)])
    assert [operator["op_name"] for operator in operators].count("DELEGATE") == 1
    expected = model.predict(pixels, verbose=0)
    error = np.abs(litert_runner(file)(pixels) - expected)
    if quantization == "int8":
        assert error.mean() < 0.05 * expected.std()
    else:
        assert error.max() < (1e-5 if quantization is None else 1e-2)
    for layer in (inner.layers[0], separable):
        assert "call" not in vars(layer)
