"""Int8 files with some layers in float: by name, by what each layer costs, and by a bound on the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keraslight import compress
from keraslight.compress.quantization.int8_layers import Int8Layers
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export import litert_report, litert_runner, to_litert
from keraslight.graph import read

IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 2)).astype("float32")
PLAIN = {"equalize": False, "correct_bias": False}


@pytest.fixture(scope="module")
def small():
    """Names that end in numbers, a layer that is called twice, an activation of two operators, a fused addition."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 2), name="images")
    shared = layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")
    x = shared(shared(images))
    x = layers.Conv2D(4, 3, activation="hard_silu", name="conv_1")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.ReLU(name="add_act")(layers.Add(name="add")([x, layers.Activation("tanh", name="gate")(x)]))
    x = layers.Concatenate(name="join")([x, layers.Conv2D(4, 1, name="conv_2")(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(images, layers.Dense(3, name="logits")(x), name="net")


def float_kinds(path):
    return [operator.kind for operator in litert_report(path).float_operators]


@pytest.mark.parametrize(
    ("skip", "kinds"),
    [
        ("conv", ["CONV_2D", "CONV_2D"]),  # both calls, and not conv_1
        ("conv_1", ["CONV_2D", "ADD", "MUL", "MUL", "MAX_POOL_2D"]),  # what only moves values follows
        ("logits", ["FULLY_CONNECTED"]),  # the output has the signature's name
        ("add", ["ADD"]),
        ("add_act", ["ADD"]),
        (("gate", "conv_[12]"), ["CONV_2D", "ADD", "MUL", "MUL", "MAX_POOL_2D", "TANH", "CONV_2D"]),
        ("pool", []),  # exact in int8, and the converter leaves it so
    ],
)
def test_layers_stay_float_by_name(small, skip, kinds, tmp_path):
    path = compress.calibrate(small, (IMAGES, np.zeros(16)), tmp_path / "net.tflite", skip=skip)
    assert float_kinds(path) == kinds
    expected = small.predict(IMAGES, verbose=0)
    assert np.abs(litert_runner(path)(IMAGES) - expected).mean() < 0.1 * expected.std()


def test_without_float_layers_the_file_is_the_converters(small, tmp_path):
    fused = compress.fuse(small)
    ours = Int8Layers(read(fused), IMAGES).write(tmp_path / "ours.tflite", ())
    plain = to_litert(fused, tmp_path / "plain.tflite", quantization="int8", representative_data=IMAGES)
    assert litert_report(ours).operators == litert_report(plain).operators
    np.testing.assert_array_equal(litert_runner(ours)(IMAGES), litert_runner(plain)(IMAGES))


def test_integer_ends(small, tmp_path):
    data = (IMAGES, np.zeros(16))
    path = compress.calibrate(small, data, tmp_path / "a.tflite", skip="conv_1", input_dtype="uint8")
    assert Interpreter(str(path)).get_input_details()[0]["dtype"] is np.uint8
    expected = small.predict(IMAGES, verbose=0)
    assert np.abs(litert_runner(path)(IMAGES) - expected).mean() < 0.1 * expected.std()
    with pytest.raises(InvalidArgumentError, match="must be 'float32' where .*Received: input_dtype='uint8'"):
        compress.calibrate(small, data, tmp_path / "b.tflite", skip="conv", input_dtype="uint8")
    assert not (tmp_path / "b.tflite").exists()


def test_one_layer_in_int8_is_what_rounding_it_by_hand_gives():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="images")
    x = layers.Dense(5, activation="relu", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="second")(x), name="net")
    rows = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    report = compress.quantization_sensitivity(model, rows, **PLAIN, verbose=0)
    (kernel, _), (second, _) = model.get_layer("first").get_weights(), model.get_layer("second").get_weights()

    def rounded(values, scale, zero=0.0):
        return (np.clip(np.round(values / scale + zero), -128, 127) - zero) * scale

    def on_tensor(values):
        scale = (values.max() - values.min()) / 255
        return rounded(values, scale, np.round(-128 - values.min() / scale))

    hidden = on_tensor(np.maximum(on_tensor(rows) @ rounded(kernel, np.abs(kernel).max(axis=0) / 127), 0))
    by_hand = np.abs((hidden - np.maximum(rows @ kernel, 0)) @ second).mean()
    assert report.baseline is None
    assert report.layers["first"].accuracy is None
    assert report.layers["first"].difference == pytest.approx(by_hand, rel=0.02)
    assert set(report.layers) == {"first", "second"}


@pytest.fixture(scope="module")
def unbalanced(trained):
    """`trained`, fused, with factors of e^-4..e^4 moved from one layer to the next: the same outputs in float."""
    model, rng = compress.fuse(trained), np.random.default_rng(1)
    first, second = model.get_layer("block0_expand"), model.get_layer("block0_depthwise")
    factor = np.exp(rng.uniform(-4, 4, first.bias.shape[0])).astype("float32")
    kernel, bias = first.get_weights()
    first.set_weights([kernel * factor, bias * factor])
    kernel, bias = second.get_weights()
    second.set_weights([kernel / factor[:, None], bias])
    return model


def right(path, digits):
    images, labels = digits[1]
    return float((litert_runner(path)(images).argmax(-1) == labels).mean())


def test_sensitivity_finds_the_layers_that_int8_breaks(unbalanced, accuracy, digits, tmp_path):
    report = compress.quantization_sensitivity(
        unbalanced, digits[1], calibration_data=digits[0], layers=["block0*", "logits"], **PLAIN, verbose=0
    )
    assert report.baseline == pytest.approx(accuracy(unbalanced))
    worst = report.ranked[0]
    assert worst in ("block0_expand", "block0_depthwise")
    assert report.layers[worst].accuracy < report.baseline - 0.05
    assert report.layers["logits"].accuracy > report.baseline - 0.01
    assert set(report.ranked) == set(report.layers)
    assert all(name.startswith("block0") or name == "logits" for name in report.layers)
    lines = str(report).splitlines()
    assert lines[0].split() == ["only", "this", "layer", "in", "int8", "accuracy", "same", "top-1", "difference"]
    assert lines[1].split()[0] == worst
    assert lines[-1].split() == ["float", f"{report.baseline:.2%}"]
    figure = report.plot(tmp_path / "new" / "scan.png")
    assert (tmp_path / "new" / "scan.png").read_bytes()[:4] == figure._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(InvalidArgumentError, match=r"`path` must end in .png or .svg. Received: 'scan.tiff'"):
        report.plot("scan.tiff")


def test_the_costly_layers_stay_float_until_the_bound_holds(unbalanced, accuracy, digits, tmp_path):
    report = compress.calibrate_mixed(
        unbalanced, digits[0], tmp_path / "mixed.tflite", max_drop=0.01, validation_data=digits[1], **PLAIN, verbose=0
    )
    assert report.steps[0].drop(report.baseline) > 0.1  # all in int8
    assert report.drop <= 0.01
    assert right(report.path, digits) == report.steps[-1].accuracy >= accuracy(unbalanced) - 0.01
    assert {"block0_expand", "block0_depthwise"} & set(report.floats)
    assert len(report.floats) < 6
    assert len(report.steps) == len(report.floats) + 1
    for operator in litert_report(report.path).float_operators:
        named = any(f"/{name}_" in operator.name for name in report.floats)
        assert named or operator.kind in ("PAD", "RESHAPE"), operator  # these follow what they read
    assert all(f"+ {name} in float" in str(report) for name in report.floats)
    again = compress.calibrate(unbalanced, digits[0], tmp_path / "again.tflite", skip=report.floats, **PLAIN)
    assert right(again, digits) == pytest.approx(right(report.path, digits), abs=0.006)


def test_without_labels_the_bound_is_agreement(unbalanced, digits, tmp_path):
    images = digits[1][0][:200]
    data = tf.data.Dataset.from_tensor_slices(images).batch(50)
    report = compress.calibrate_mixed(unbalanced, data, tmp_path / "mixed.tflite", max_drop=0.02, **PLAIN, verbose=0)
    answers = litert_runner(report.path)(images).argmax(-1)
    assert report.baseline is None
    assert report.floats
    assert (answers == unbalanced.predict(images, verbose=0).argmax(-1)).mean() == report.steps[-1].agreement >= 0.98
    assert "accuracy" not in str(report)


def test_nothing_stays_float_where_nothing_has_to(small, tmp_path):
    labels = small.predict(IMAGES, verbose=0).argmax(-1)
    report = compress.calibrate_mixed(small, (IMAGES, labels), tmp_path / "a.tflite", max_drop=0.5, verbose=0)
    assert report.floats == ()
    assert len(report.steps) == 1
    assert float_kinds(report.path) == []


def test_a_bound_that_cannot_hold(small, tmp_path):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 1, name="a")(images)
    x = layers.Conv2D(4, 1, name="b")(layers.ReLU(6.0)(x))
    model = keras.Model(images, layers.Dense(3, name="c")(layers.Flatten()(x)))
    model.get_layer("a").kernel.assign(model.get_layer("a").kernel * 100)  # far above 6
    with pytest.raises(CompressionError, match=r"must lose at most max_drop=0.0. Received: a loss of 0\.\d+ with the"):
        compress.calibrate_mixed(
            model, IMAGES * 9, tmp_path / "a.tflite", max_drop=0.0, replace_relu6=True, equalize=True, verbose=0
        )
    assert not (tmp_path / "a.tflite").exists()


def test_an_integer_input_keeps_its_layer_in_int8(small, tmp_path):
    """What the first layer reads can only be float where the file takes floats."""
    images = IMAGES.copy()
    images[0, 0, 0] = 3000.0  # leaves the other pixels a step or two
    options = {"max_drop": 0.0, "verbose": 0, **PLAIN}
    report = compress.calibrate_mixed(small, images, tmp_path / "a.tflite", **options)
    assert report.floats[0] == "conv"
    with pytest.raises(CompressionError, match=r"Received: a loss of 0\.\d+ with the layers \['"):
        compress.calibrate_mixed(small, images, tmp_path / "b.tflite", input_dtype="uint8", **options)
    assert not (tmp_path / "b.tflite").exists()


def test_errors_say_what_came(small, tmp_path):
    path = tmp_path / "a.tflite"
    with pytest.raises(InvalidArgumentError, match="of `skip` must match.*Received: 'bn'; the model has .*'conv'"):
        compress.calibrate(small, (IMAGES, np.zeros(16)), path, skip=["conv", "bn"])
    with pytest.raises(InvalidArgumentError, match=r"`max_drop` must be in \[0, 1\). Received: 1.5"):
        compress.calibrate_mixed(small, IMAGES, path, max_drop=1.5)
    with pytest.raises(InvalidArgumentError, match="as many labels as images. Received: 16 images, 3 labels"):
        compress.quantization_sensitivity(small, (IMAGES, np.zeros(3)))
    with pytest.raises(InvalidArgumentError, match=r"at least one image.*Received: \[\(0, 8, 8, 2\)\]"):
        compress.quantization_sensitivity(small, IMAGES[:0])
    with pytest.raises(InvalidArgumentError, match="at least one image.*Received: 'digits'"):
        compress.quantization_sensitivity(small, "digits")
    with pytest.raises(InvalidArgumentError, match="pattern of `layers` must match.*Received: 'bn'"):
        compress.quantization_sensitivity(small, IMAGES, layers="bn")
    with pytest.raises(InvalidArgumentError, match="`batch_size` must be at least 1, or None. Received: 0"):
        compress.calibrate(small, (IMAGES, np.zeros(16)), path, skip="conv", batch_size=0)
    with pytest.raises(InvalidArgumentError, match="`input_dtype` must be one of .*Received: 'int4'"):
        compress.calibrate(small, (IMAGES, np.zeros(16)), path, skip="conv", input_dtype="int4")
    assert not list(tmp_path.iterdir())
