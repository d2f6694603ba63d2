import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError, UnmappableLayerError
from keraslight.export.litert import litert_report, to_litert

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.fixture(scope="module")
def quantized(pruned, digits):
    return compress.train_quantized(pruned, digits[0], epochs=2, batch_size=64, verbose=0)


@pytest.fixture(scope="module")
def files(pruned, quantized, tmp_path_factory):
    """The float file of the pruned net and the int8 file of the quantized one, which takes uint8."""
    folder = tmp_path_factory.mktemp("litert")
    return (
        to_litert(pruned, folder / "float.tflite", sparse=False),
        to_litert(quantized, folder / "int8.tflite", input_dtype="uint8"),
    )


def file_accuracy(path, images, labels):
    run = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    answers = [run(images=image[None])["probabilities"][0].argmax() for image in images]
    return float(np.mean(np.asarray(answers) == labels))


def test_int8_file_answers_as_the_float_one(files, digits):
    images, labels = digits[1]
    float_accuracy = file_accuracy(files[0], images, labels)
    assert float_accuracy > 0.95
    assert file_accuracy(files[1], images.astype("uint8"), labels) >= float_accuracy - 0.01


def test_every_kernel_is_int8(files):
    report = litert_report(files[1])
    operators = [operator for operator in report.operators if operator.kind in KERNELS]
    assert len(operators) == 12 + 6 + 1  # two more depthwise: the normalization and the lone batch norm
    for operator in operators:
        assert operator.inputs[:2] == ("INT8", "INT8"), operator
        assert operator.outputs == ("INT8",), operator
    assert report.float_operators == ()  # the softmax is int8 too
    # What is small fills the file with names and ranges; a net of millions of weights comes below 0.30.
    assert report.size < 0.45 * litert_report(files[0]).size


def test_raw_uint8_pixels_go_in_unrounded(files):
    details = Interpreter(str(files[1])).get_input_details()[0]
    assert details["dtype"] is np.uint8
    assert details["quantization"] == (1.0, 0)


def test_zeros_stay_and_weights_go_back(pruned, quantized, accuracy, files, digits):
    back = compress.quantized_weights_to_keras(quantized, pruned)
    before, after = compress.sparsity(pruned), compress.sparsity(back)
    assert [layer.zeros for layer in before.layers] == [layer.zeros for layer in after.layers]
    assert any((a != b).any() for a, b in zip(pruned.get_weights(), back.get_weights(), strict=True))
    images, labels = digits[1]
    assert abs(accuracy(back) - file_accuracy(files[1], images.astype("uint8"), labels)) <= 0.01


def small(activation="relu", frozen=False):
    images = keras.Input((8, 8, 2), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(images)
    x = layers.Conv2D(8, 3, activation=activation, name="first")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid", name="excite")(gate)
    x = layers.Multiply(name="scale")([x, gate])
    y, z = (layers.Conv2D(8, 1, name=name, trainable=not frozen)(x) for name in ("left", "right"))
    x = layers.Add(name="add")([x, y, z])
    x = layers.AveragePooling2D(2, name="pool")(layers.BatchNormalization(name="bn")(x))
    return keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten(name="flatten")(x)), name="small")


PIXELS = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 2)).astype("float32")
LABELS = np.arange(32) % 4


def test_wide_depthwise_convolutions_go_in_pieces(tmp_path):
    """XNNPACK has kernels for 25 taps at most; the trained pieces come back as one kernel."""
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 4), name="images")
    wide = layers.DepthwiseConv2D(7, padding="same", activation="relu", bias_initializer="random_normal", name="wide")
    separable = layers.SeparableConv2D(6, 7, padding="same", bias_initializer="random_normal", name="separable")
    x = wide(images)
    x = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(7, padding="same", name="wide_too")(x))
    x = separable(wide(layers.ReLU()(x)))
    model = keras.Model(images, layers.Dense(4, name="logits")(layers.Flatten()(x)), name="net")
    rng = np.random.default_rng(0)
    pixels, labels = rng.normal(size=(64, 12, 12, 4)).astype("float32"), rng.integers(0, 4, 64)
    for weight in model.get_layer("norm").weights:
        weight.assign(rng.uniform(0.5, 2, weight.shape))
    kernel = wide.kernel.numpy()
    kernel[::2, 1] = 0.0
    wide.kernel.assign(kernel)
    quantized = compress.quantize_aware(model, calibration_data=pixels)
    report = litert_report(to_litert(quantized, tmp_path / "net.tflite"))
    kinds = [operator.kind for operator in report.operators]
    assert kinds.count("DEPTHWISE_CONV_2D") == 12  # the batch norm folds into three of them
    assert kinds.count("ADD") == 8
    assert report.float_operators == ()
    expected = model.predict(pixels, verbose=0)
    assert np.abs(quantized.predict(pixels, verbose=0) - expected).mean() < 0.05 * expected.std()
    back = compress.quantized_weights_to_keras(quantized, model)
    np.testing.assert_array_equal(back.predict(pixels, verbose=0), expected)
    quantized.fit(pixels, labels, verbose=0)
    trained = compress.quantized_weights_to_keras(quantized, model).get_layer("wide").kernel.numpy()
    assert (trained[kernel == 0] == 0).all()
    assert (trained[kernel != 0] != kernel[kernel != 0]).all()


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_silu", "silu", "gelu"])
def test_other_vocabulary_is_int8_and_close_before_any_training(activation, tmp_path):
    model = small(activation)
    quantized = compress.quantize_aware(model, calibration_data=PIXELS)
    expected = np.asarray(model(PIXELS))
    assert np.abs(quantized(PIXELS).numpy() - expected).mean() < 0.1 * expected.std()
    report = litert_report(to_litert(quantized, tmp_path / "small.tflite"))
    assert report.float_operators == ()
    assert "HARD_SWISH" not in {operator.kind for operator in report.operators}  # XNNPACK has none in int8


def test_plain_fit_keeps_zeros_and_constants():
    model = small()
    kernel = model.get_layer("left").kernel
    kernel.assign(np.where(np.random.default_rng(0).uniform(size=kernel.shape) < 0.5, 0, kernel))
    kept = compress.quantize_aware(model, calibration_data=PIXELS, learning_rate=1e-2)
    constant = kept.get_layer("quant_preprocessing").layer.name
    before = {w.name: w.numpy() for w in kept.weights if w.name.startswith(f"{constant}/")}
    assert len(before) == 2
    kept.fit(PIXELS, LABELS, epochs=3, verbose=0)
    for weight in kept.weights:
        if weight.name in before:
            np.testing.assert_array_equal(weight.numpy(), before[weight.name])
    back = compress.quantized_weights_to_keras(kept, model)
    zeros = np.asarray(kernel) == 0
    assert 0.3 < zeros.mean() < 0.7
    np.testing.assert_array_equal(np.asarray(back.get_layer("left").kernel) == 0, zeros)
    filled = compress.quantize_aware(model, calibration_data=PIXELS, preserve_sparsity=False, learning_rate=1e-2)
    filled.fit(PIXELS, LABELS, epochs=3, verbose=0)
    back = compress.quantized_weights_to_keras(filled, model)
    assert (np.asarray(back.get_layer("left").kernel) == 0).mean() < 0.1


def test_frozen_layers_stay_frozen():
    model = small(frozen=True)
    quantized = compress.quantize_aware(model, calibration_data=PIXELS, learning_rate=1e-2)
    quantized.fit(PIXELS, LABELS, verbose=0)
    back = compress.quantized_weights_to_keras(quantized, model)
    for name in ("left", "right"):
        np.testing.assert_array_equal(back.get_layer(name).kernel, model.get_layer(name).kernel)
    assert (np.asarray(back.get_layer("first").kernel) != np.asarray(model.get_layer("first").kernel)).any()


def test_shared_layers_keep_their_activation(tmp_path):
    images = keras.Input((8, 8, 2), name="images")
    shared = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared")
    x = shared(shared(images))
    norm = layers.BatchNormalization(name="norm")
    x = layers.Add(name="add")([norm(x), norm(layers.MaxPooling2D(1, name="pool")(x)), x])
    model = keras.Model(images, layers.Dense(3, name="logits")(layers.Flatten(name="flatten")(x)))
    quantized = compress.quantize_aware(model, calibration_data=PIXELS)
    expected = np.asarray(model(PIXELS))
    assert np.abs(quantized(PIXELS).numpy() - expected).mean() < 0.1 * expected.std()
    assert litert_report(to_litert(quantized, tmp_path / "shared.tflite")).float_operators == ()


def test_batch_norms_without_a_convolution_keep_their_own_statistics(tmp_path):
    """The branches of RepVGG: the converter must not take one batch norm for the next of the same width."""
    images = keras.Input((8, 8, 2), name="images")
    x = layers.Conv2D(8, 3, padding="same", name="first")(images)
    for n, factor in enumerate((1.0, 0.1, 3.0)):
        norm = layers.BatchNormalization(name=f"norm{n}")
        x = layers.Add(name=f"add{n}")([norm(x), layers.Conv2D(8, 1, name=f"point{n}")(x)])
        norm.gamma.assign(np.linspace(0.5, 2, 8) * factor)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(images, layers.Dense(3, name="logits")(x))
    pixels = PIXELS / 127.5 - 1
    quantized = compress.quantize_aware(model, calibration_data=pixels)
    run = Interpreter(str(to_litert(quantized, tmp_path / "norms.tflite"))).get_signature_runner("serving_default")
    answers = np.concatenate([next(iter(run(images=image[None]).values())) for image in pixels])
    expected = np.asarray(model(pixels))
    assert np.abs(answers - expected).mean() < 0.1 * expected.std()


def test_skipped_layers_stay_float(tmp_path):
    quantized = compress.quantize_aware(small(), skip="logits", calibration_data=PIXELS)
    report = litert_report(to_litert(quantized, tmp_path / "small.tflite"))
    assert {operator.kind for operator in report.float_operators} == {"FULLY_CONNECTED"}


@pytest.mark.parametrize(
    ("end", "from_logits"),
    [
        (lambda x: layers.Dense(3)(x), True),
        (lambda x: layers.Softmax()(layers.Dense(3)(x)), False),
        (lambda x: keras.ops.softmax(layers.Dense(3)(x)), False),
        (lambda x: layers.Reshape((3,))(layers.Dense(3, activation="softmax")(x)), False),
        (lambda x: layers.Activation("linear")(layers.Flatten()(layers.Dense(3)(x))), True),
    ],
    ids=["logits", "softmax", "operation", "reshaped", "cast"],
)
def test_the_loss_applies_no_second_softmax(end, from_logits):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, end(layers.GlobalAveragePooling2D()(images)))
    assert compress.quantize_aware(model).loss.get_config()["from_logits"] == from_logits


def test_errors_say_what_came():
    with pytest.raises(InvalidArgumentError, match=r"pattern of `skip` must match.*Received: 'nothing'"):
        compress.quantize_aware(small(), skip=("nothing",))
    with pytest.raises(InvalidArgumentError, match="`epochs` must be at least 1. Received: 0"):
        compress.train_quantized(small(), (PIXELS, LABELS), epochs=0)
    with pytest.raises(InvalidArgumentError, match="must be those of tf_keras.*Received: EarlyStopping of Keras 3"):
        compress.train_quantized(small(), (PIXELS, LABELS), callbacks=[keras.callbacks.EarlyStopping("loss")])
    with pytest.raises(InvalidArgumentError, match="Received: 32 images, 3 labels"):
        compress.train_quantized(small(), (PIXELS, LABELS[:3]))
    images = keras.Input((8, 8, 2))
    with pytest.raises(InvalidArgumentError, match="`batch_norm_steps` must be at least 0. Received: -1"):
        compress.quantize_aware(small(), batch_norm_steps=-1)
    with pytest.raises(UnmappableLayerError, match="Received: layer 'wave' of class .*Lambda"):
        compress.quantize_aware(keras.Model(images, layers.Lambda(keras.ops.sin, name="wave")(images)))
    with pytest.raises(
        InvalidArgumentError, match="must be the model that `quantize_aware` or `train_quantized` returned"
    ):
        compress.quantization_report(small())
    other = keras.Model(images, layers.Conv2D(3, 3, name="other")(images))
    with pytest.raises(CompressionError, match=r"layer 'other', whose weight 'kernel' .* has no match"):
        compress.quantized_weights_to_keras(compress.quantize_aware(small()), other)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("mobilenet_v4_conv_small", 48), ("mobilenet_v4_hybrid_medium", 64)])
def test_mobilenet_v4(name, size, tmp_path):
    import keraslight

    model = keraslight.create_model(name, classes=10, input_shape=(size, size, 3), preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, size, size, 3)).astype("float32")
    labels = np.arange(32) % 10
    for layer in model.layers:  # untrained batch norms would let a hybrid's signal die on the way
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.5))
    twin = compress.to_tf_keras(model)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), twin.predict(pixels, verbose=0), atol=1e-4)
    quantized = compress.quantize_aware(model, calibration_data=pixels)
    assert np.isfinite(quantized.fit(pixels, labels, verbose=0).history["loss"]).all()
    report = litert_report(to_litert(quantized, tmp_path / "int8.tflite", input_dtype="uint8"))
    assert report.float_operators == ()
    assert report.size <= 0.30 * litert_report(to_litert(model, tmp_path / "float.tflite")).size
