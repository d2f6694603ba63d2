import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keraslight.analysis import count_macs, count_parameters
from keraslight.blocks.conv import PLAIN, TENSORFLOW, TORCH
from keraslight.blocks.separable import depthwise_separable, lightweight_block
from keraslight.errors import InvalidArgumentError
from keraslight.export.litert import to_litert

RNG = np.random.default_rng(0)
BLOCKS = [depthwise_separable, lightweight_block]


def build(block, channels, sides=(8, 7), **arguments):
    images = keras.Input((*sides, 3))
    model = keras.Model(images, block(images, channels, **arguments, name="b"))
    for weight in model.weights:
        value = RNG.normal(size=weight.shape)
        weight.assign(abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def normalized(model, name, x):
    layer = model.get_layer(f"{name}_bn")
    gamma, beta, mean, variance = (np.asarray(w, "float64") for w in layer.weights)
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


def depthwise(model, x, stride, style):
    """Pixel by pixel, padded by one on both sides (PyTorch) or as TensorFlow does; with its normalization."""
    kernel = np.asarray(model.get_layer("b_depthwise").kernel)[..., 0]
    total = [(-(-side // stride) - 1) * stride + 3 - side if style is TENSORFLOW else 2 for side in x.shape[1:3]]
    padded = np.pad(x.astype("float64"), [(0, 0), *[(n // 2, n - n // 2) for n in total], (0, 0)])
    y = np.zeros((len(x), *(-(-side // stride) for side in x.shape[1:3]), x.shape[-1]))
    for i, j in np.ndindex(y.shape[1:3]):
        window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
        y[:, i, j] = (window * kernel).sum(axis=(1, 2))
    return normalized(model, "b_depthwise", y)


def pointwise(model, name, x):
    return normalized(model, name, x @ np.asarray(model.get_layer(name).kernel)[0, 0])


def relu6(x):
    return np.clip(x, 0, 6)


@pytest.mark.parametrize("style", [TORCH, TENSORFLOW])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_separable_is_figure_3(stride, style):
    model = build(depthwise_separable, 5, stride=stride, style=style)
    x = RNG.normal(size=(2, 8, 7, 3)).astype("float32")
    wanted = relu6(pointwise(model, "b_pointwise", relu6(depthwise(model, x, stride, style))))
    np.testing.assert_allclose(np.asarray(model(x)), wanted, atol=1e-5, rtol=1e-5)
    assert count_parameters(model) == 9 * 3 + 3 * 5 + 2 * (3 + 5)
    assert count_macs(model) == wanted[0, :, :, 0].size * (9 * 3 + 3 * 5)


@pytest.mark.parametrize(("stride", "channels"), [(1, 3), (1, 5), (2, 3), (2, 5)])
def test_lightweight_block_adds_its_input(stride, channels):
    model = build(lightweight_block, channels, stride=stride)
    x = RNG.normal(size=(2, 8, 7, 3)).astype("float32")
    branch = pointwise(model, "b_pointwise", relu6(depthwise(model, x, stride, TORCH)))
    projected = stride > 1 or channels != 3
    shortcut = pointwise(model, "b_shortcut", x[:, ::stride, ::stride].astype("float64")) if projected else x
    np.testing.assert_allclose(np.asarray(model(x)), relu6(branch + shortcut), atol=1e-5, rtol=1e-5)
    wanted = 9 * 3 + 3 * channels + 2 * (3 + channels)
    assert count_parameters(model) == wanted + (3 * channels + 2 * channels if projected else 0)


def test_layer_names():
    names = [layer.name for layer in build(depthwise_separable, 5, stride=2).layers[1:]]
    assert names == [
        *("b_depthwise_pad", "b_depthwise", "b_depthwise_bn", "b_depthwise_act"),
        *("b_pointwise", "b_pointwise_bn", "b_pointwise_act"),
    ]
    names = {layer.name for layer in build(lightweight_block, 5, drop_path=0.1).layers[1:]}
    assert names == {
        *("b_depthwise", "b_depthwise_bn", "b_depthwise_act", "b_pointwise", "b_pointwise_bn"),
        *("b_shortcut", "b_shortcut_bn", "b_drop_path", "b_add", "b_act"),
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_a_style_without_normalization_and_another_activation(block):
    model = build(block, 5, kernel=5, activation="silu", style=PLAIN)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    assert model.get_layer("b_pointwise").use_bias
    assert model.get_layer("b_depthwise").kernel_size == (5, 5)
    assert model.get_layer("b_depthwise_act").activation is keras.activations.silu


@pytest.mark.parametrize("block", BLOCKS)
def test_saves_and_converts(tmp_path, block):
    model = build(block, 5, stride=2)
    x = RNG.normal(size=(1, 8, 7, 3)).astype("float32")
    wanted = np.asarray(model(x))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(keras.models.load_model(tmp_path / "model.keras")(x)), wanted)
    interpreter = Interpreter(str(to_litert(model, tmp_path / "model.tflite")))
    (result,) = interpreter.get_signature_runner()(images=x).values()
    np.testing.assert_allclose(result, wanted, atol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("block", BLOCKS)
def test_trains(block, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = build(block, 5, stride=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == ("float16" if policy == "mixed_float16" else "float32")
    before = model.get_weights()
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(RNG.normal(size=(4, 8, 7, 3)).astype("float32"), np.ones((4, 4, 4, 5), "float32"))
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all()
        assert not np.array_equal(old, new)


@pytest.mark.parametrize("block", BLOCKS)
def test_unknown_activation(block):
    with pytest.raises(InvalidArgumentError, match="`activation` must be None or one of .* Received: 'tanhh'."):
        build(block, 5, activation="tanhh")
