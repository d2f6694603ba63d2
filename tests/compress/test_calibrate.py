"""Post-training int8, on a net whose channels were put out of balance without changing what it computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keraslight import compress
from keraslight.errors import InvalidArgumentError
from keraslight.export import litert_report, to_litert

PAIRS = [
    (f"block{n}_{a}", f"block{n}_{b}") for n in (0, 1) for a, b in (("expand", "depthwise"), ("depthwise", "project"))
]


@pytest.fixture(scope="module")
def unbalanced(trained):
    """`trained`, fused, with factors of e^-3.5..e^3.5 moved between the layers of its blocks."""
    model, rng = compress.fuse(trained), np.random.default_rng(1)
    for first, second in ((model.get_layer(a), model.get_layer(b)) for a, b in PAIRS):
        factor = np.exp(rng.uniform(-3.5, 3.5, first.bias.shape[0])).astype("float32")
        depthwise = [isinstance(layer, layers.DepthwiseConv2D) for layer in (first, second)]
        kernel, bias = first.get_weights()
        first.set_weights([kernel * (factor[:, None] if depthwise[0] else factor), bias * factor])
        kernel, bias = second.get_weights()
        second.set_weights([kernel / factor[:, None], bias])
    return model


def answers(path, images):
    run = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    return np.concatenate([run(images=image[None])["probabilities"] for image in images])


def test_equalizing_keeps_the_outputs_and_balances_the_channels(trained, unbalanced, digits):
    images = digits[1][0][:32]
    equalized = compress.equalize(unbalanced)
    for model in (unbalanced, equalized):
        np.testing.assert_allclose(model(images), trained(images), atol=2e-5)
    for first, second in PAIRS:
        if "depthwise" not in first:
            continue
        kernels = [np.abs(equalized.get_layer(name).kernel.numpy()) for name in (first, second)]
        ours, theirs = kernels[0].max(axis=(0, 1))[:, 0], kernels[1].max(axis=(0, 1, 3))
        np.testing.assert_allclose(ours, theirs, rtol=0.05)


def test_int8_keeps_the_accuracy_that_plain_conversion_loses(unbalanced, digits, accuracy, tmp_path, capfd):
    images, labels = digits[1]

    def right(path):
        return float((answers(path, images).argmax(-1) == labels).mean())

    plain = to_litert(unbalanced, tmp_path / "plain.tflite", quantization="int8", representative_data=digits[0])
    calibrated = compress.calibrate(unbalanced, digits[0], tmp_path / "calibrated.tflite")
    assert "fully_quantize" not in capfd.readouterr().err  # which TensorFlow writes past all log levels
    before = accuracy(unbalanced)
    assert right(plain) < before - 0.2
    assert right(calibrated) >= before - 0.01
    report = litert_report(calibrated)
    assert report.float_operators == ()


def test_relu6_is_equalized_only_where_it_may_be_replaced():
    x = images = keras.Input((8, 8, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(4, 1, name="a")(x))
    model = keras.Model(images, layers.Conv2D(4, 1, name="b")(x))
    model.get_layer("a").kernel.assign(model.get_layer("a").kernel * np.array([1, 10, 100, 1000]))
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    same = compress.equalize(model)
    assert same.get_layer("a").activation is keras.activations.relu6
    np.testing.assert_allclose(same(pixels), model(pixels), rtol=1e-5, atol=1e-5)
    replaced = compress.equalize(model, replace_relu6=True)
    assert replaced.get_layer("a").activation is keras.activations.relu
    ranges = np.abs(replaced.get_layer("a").kernel.numpy()).max(axis=(0, 1, 2))
    np.testing.assert_allclose(ranges, np.abs(replaced.get_layer("b").kernel.numpy()).max(axis=(0, 1, 3)), rtol=1e-3)


def test_groups_and_zero_channels():
    x = images = keras.Input((8, 8, 4))
    x = layers.ReLU()(layers.Conv2D(6, 3, groups=2, name="a")(x))
    x = layers.Conv2D(4, 1, groups=2, activation="relu", name="b")(layers.ZeroPadding2D(1)(x))
    model = keras.Model(images, layers.Dense(3, name="c")(layers.GlobalAveragePooling2D()(x)))
    kernel = model.get_layer("a").kernel.numpy()
    kernel[..., 0] = 0
    model.get_layer("a").kernel.assign(kernel * np.array([1, 1, 50, 1, 0.01, 1]))
    equalized = compress.equalize(model)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(equalized(pixels), model(pixels), rtol=1e-4, atol=1e-6)
    first, second = (np.abs(equalized.get_layer(name).kernel.numpy()) for name in "ab")
    assert (first[..., 0] == 0).all()
    # Output channel 3 * g + i of `a` is read as the i-th by the two filters of `b`'s group g.
    ranges = np.concatenate([second[0, 0, :, 2 * group : 2 * group + 2].max(axis=1) for group in range(2)])
    np.testing.assert_allclose(first.max(axis=(0, 1, 2))[1:], ranges[1:], rtol=0.05)


@pytest.mark.parametrize("small", [0.0, 1e-12, 1e-6])
def test_equalizing_leaves_channels_of_a_bias_alone(small):
    """Their bias would grow as their kernel does, and take the range of all channels."""
    images = keras.Input((4, 4, 3))
    five = keras.initializers.Constant(5.0)
    x = layers.Conv2D(6, 1, activation="relu", bias_initializer=five, name="first")(images)
    model = keras.Model(images, layers.Conv2D(4, 1)(x))
    kernel = np.array(model.get_layer("first").kernel)
    kernel[..., 2] *= small
    model.get_layer("first").kernel.assign(kernel)
    first = compress.equalize(model).get_layer("first")
    assert np.abs(first.bias).max() < 50
    np.testing.assert_array_equal(first.kernel[..., 2], kernel[..., 2])


def test_corrected_biases_bring_the_means_back():
    keras.utils.set_random_seed(0)
    x = images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="a")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="b")(x)
    model = keras.Model(images, layers.Dense(5, name="c")(layers.Flatten()(x)))
    # Rounding to 8 bits does little to a Gaussian kernel: one large value makes the others' steps coarse.
    for name in ("a", "b"):
        kernel = model.get_layer(name).kernel
        values = kernel.numpy()
        values[0, 0, 0] = 30.0
        kernel.assign(values)
    pixels = np.random.default_rng(0).uniform(0.5, 1, (32, 8, 8, 3)).astype("float32")
    corrected = compress.correct_bias(model, (pixels, np.zeros(32)))

    def rounded_mean(which):
        model_of_it = keras.models.clone_model(which)
        for layer in model_of_it.layers:
            if layer.weights:
                weights = which.get_layer(layer.name).get_weights()
                axes = (0, 1) if isinstance(layer, layers.DepthwiseConv2D) else tuple(range(weights[0].ndim - 1))
                scale = np.abs(weights[0]).max(axis=axes, keepdims=True) / 127
                layer.set_weights([np.round(weights[0] / scale) * scale, *weights[1:]])
        return np.asarray(model_of_it(pixels)).mean(axis=0)

    wanted = np.asarray(model(pixels)).mean(axis=0)
    error, error_before = (np.abs(rounded_mean(which) - wanted).max() for which in (corrected, model))
    assert error_before > 0.01
    assert error < 1e-4
    for name in ("a", "b", "c"):
        np.testing.assert_array_equal(corrected.get_layer(name).kernel, model.get_layer(name).kernel)


def test_images_need_no_labels():
    """A data set of pairs of images was taken for one pair of images and labels."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(images))
    model = keras.Model(images, layers.Dense(3, name="dense")(x))
    pixels = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(pixels)
    labelled = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(8))).batch(2)
    biases = [compress.correct_bias(model, d).get_layer("dense").bias.numpy() for d in (labelled, data.batch(2))]
    np.testing.assert_array_equal(*biases)
    assert np.abs(compress.correct_bias(model, pixels).get_layer("dense").bias - biases[0]).max() < 1e-6
    with pytest.raises(InvalidArgumentError, match="hold at least one batch. Received: an empty data set"):
        compress.calibrate(model, data.take(0).batch(2), "never.tflite")
    with pytest.raises(
        InvalidArgumentError, match=r"of the model's shape, \(None, 8, 8, 3\). Received: \(8, 4, 8, 3\)"
    ):
        compress.calibrate(model, pixels[:, :4], "never.tflite")
    singly = compress.correct_bias(model, data).get_layer("dense").bias.numpy()  # images, not batches
    np.testing.assert_allclose(singly, biases[0], atol=1e-6)
    with pytest.raises(InvalidArgumentError, match=r"of the model's shape, \(None, 8, 8, 3\)"):
        compress.quantization_sensitivity(model, pixels[:, :4])


def test_several_inputs_are_refused():
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(2)(layers.Add()([a, b])))
    with pytest.raises(InvalidArgumentError, match="must have one input. Received: 2"):
        compress.correct_bias(model, (np.zeros((4, 4)), np.zeros(4)))
