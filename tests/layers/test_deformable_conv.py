"""`deformable_conv.npz` comes from torch 2.13's and torchvision 0.28's CPU operators, in float32:

import numpy as np, torch, torch.nn.functional as F, torchvision
torch.manual_seed(0); out = {}
for name, (k, s, d, same, modulated, h, w) in CASES.items():  # below
    reach, points = (k - 1) * d + 1, k * k
    pads = [max((-(-n // s) - 1) * s + reach - n, 0) if same else 0 for n in (h, w)]
    x = torch.randn(2, 3, h, w, requires_grad=True)
    padded = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
    a, b = torch.randn((3 if modulated else 2) * points, 3, k, k) * 0.5, torch.randn((2 + modulated) * points)
    kernel, bias = torch.randn(4, 3, k, k), torch.randn(4)
    for t in (a, b, kernel, bias): t.requires_grad_()
    learned = F.conv2d(padded, a, b, stride=s, dilation=d)
    mask = learned[:, 2 * points :].sigmoid() if modulated else None
    y = torchvision.ops.deform_conv2d(padded, learned[:, : 2 * points], kernel, bias, s, 0, d, mask)
    y.square().mean().backward()
    hwio = lambda t: t.detach().permute(2, 3, 1, 0).numpy()
    last = lambda t: t.detach().permute(0, 2, 3, 1).numpy()
    out |= {f"{name}_x": last(x), f"{name}_offset_kernel": hwio(a), f"{name}_offset_bias": b.detach().numpy(),
            f"{name}_kernel": hwio(kernel), f"{name}_bias": bias.detach().numpy(), f"{name}_y": last(y),
            f"{name}_x_gradient": last(x.grad), f"{name}_offset_gradient": hwio(a.grad)}
np.savez_compressed("tests/layers/deformable_conv.npz", **out)
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keraslight.errors import InvalidArgumentError
from keraslight.export.litert import to_litert
from keraslight.layers import DeformableConv2D

RNG = np.random.default_rng(0)
CASES = {  # kernel, stride, dilation, "same", modulated, height, width
    "plain": (3, 1, 1, True, False, 6, 7),
    "strided": (3, 2, 1, True, True, 8, 7),  # the even side is padded unevenly
    "dilated": (3, 1, 2, True, True, 6, 5),
    "large": (5, 1, 1, False, False, 7, 6),
    "pointwise": (1, 2, 1, True, True, 5, 6),
    "sparse": (3, 3, 1, False, True, 9, 8),
}


@pytest.fixture(scope="module")
def fixture():
    with np.load(Path(__file__).parent / "deformable_conv.npz") as file:
        return dict(file)


def layer_of(fixture, name):
    kernel, strides, dilation, same, modulated, _, _ = CASES[name]
    layer = DeformableConv2D(4, kernel, strides, "same" if same else "valid", dilation, modulated)
    layer.build((None, None, None, 3))
    layer.offset_conv.kernel.assign(fixture[f"{name}_offset_kernel"])
    layer.offset_conv.bias.assign(fixture[f"{name}_offset_bias"])
    layer.kernel.assign(fixture[f"{name}_kernel"])
    layer.bias.assign(fixture[f"{name}_bias"])
    return layer


@pytest.mark.parametrize("name", CASES)
def test_is_torchvisions(fixture, name):
    layer, x = layer_of(fixture, name), tf.constant(fixture[f"{name}_x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_mean(y**2)
    np.testing.assert_allclose(y, fixture[f"{name}_y"], atol=1e-5, rtol=1e-5)
    assert layer.compute_output_shape(x.shape) == tuple(y.shape)
    x_gradient, offset_gradient = tape.gradient(loss, [x, layer.offset_conv.kernel.value])
    np.testing.assert_allclose(x_gradient, fixture[f"{name}_x_gradient"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(offset_gradient, fixture[f"{name}_offset_gradient"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["strided", "dilated", "sparse"])
def test_open_sizes(fixture, name):
    images = keras.Input((None, None, 3))
    layer = layer_of(fixture, name)
    model = keras.Model(images, layer(images))
    assert model.output_shape == (None, None, None, 4)
    result = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])(fixture[f"{name}_x"])
    np.testing.assert_allclose(result, fixture[f"{name}_y"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"strides": 2}, {"dilation_rate": 2, "padding": "valid"}])
def test_starts_as_the_plain_convolution(arguments, modulated):
    x = RNG.normal(size=(2, 8, 7, 3)).astype("float32")
    layer, stock = (
        DeformableConv2D(4, modulated=modulated, **arguments),
        keras.layers.Conv2D(4, 3, **{"padding": "same", **arguments}),
    )
    layer.build(x.shape)
    stock.build(x.shape)
    stock.kernel.assign(layer.kernel)
    np.testing.assert_allclose(
        np.asarray(layer(x)), np.asarray(stock(x)) * (0.5 if modulated else 1), atol=1e-5, rtol=1e-5
    )


def test_offsets_shift_the_map_and_outside_is_zero():
    layer = DeformableConv2D(1, 1, use_bias=False)
    layer.build((1, 4, 4, 1))
    layer.kernel.assign([[[[1.0]]]])
    x = np.arange(1, 17, dtype="float32").reshape(1, 4, 4, 1)
    layer.offset_conv.bias.assign([1.0, -0.5])  # a row down, half a column left
    padded = np.pad(x[0, 1:, :, 0], ((0, 1), (1, 0)))
    wanted = (padded[:, 1:] + padded[:, :-1]) / 2
    np.testing.assert_allclose(np.asarray(layer(x))[0, :, :, 0], wanted, atol=1e-6)
    for far in ([-1e30, 0.0], [0.0, 1e30], [4.0, 4.0]):
        layer.offset_conv.bias.assign(far)
        np.testing.assert_array_equal(np.asarray(layer(x)), 0)


def test_an_undefined_offset_gives_an_undefined_result():
    layer = DeformableConv2D(1, 1)
    layer.build((1, 4, 4, 1))
    layer.offset_conv.bias.assign([np.nan, 0.0])
    assert np.isnan(np.asarray(layer(np.ones((1, 4, 4, 1), "float32")))).all()


def network(modulated=True, policy=None):
    images = keras.Input((8, 8, 3))
    arguments = {"strides": 2, "modulated": modulated, "kernel_regularizer": "l2", "dtype": policy}
    return keras.Model(images, DeformableConv2D(4, **arguments, name="deform")(images))


@pytest.mark.parametrize("modulated", [False, True])
def test_saves_and_converts(tmp_path, modulated):
    model = network(modulated)
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape))
    points = 27 if modulated else 18
    assert model.count_params() == 27 * 4 + 4 + (27 + 1) * points
    x = RNG.normal(size=(1, 8, 8, 3)).astype("float32")
    wanted = np.asarray(model(x))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), wanted)
    assert loaded.get_layer("deform").get_config() == model.get_layer("deform").get_config()

    interpreter = Interpreter(str(to_litert(model, tmp_path / "model.tflite")))
    (result,) = interpreter.get_signature_runner()(images=x).values()
    np.testing.assert_allclose(result, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_trains(policy):
    model = network(policy=policy)
    layer = model.get_layer("deform")
    layer.offset_conv.bias.assign(RNG.normal(size=27))
    x = RNG.normal(size=(4, 8, 8, 3)).astype("float32")
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    exact = DeformableConv2D.from_config({**layer.get_config(), "dtype": "float32"})
    exact.build(x.shape)
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(np.asarray(y, "float32"), np.asarray(exact(x)), atol=1e-2, rtol=1e-2)

    before = layer.get_weights()
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(x, np.ones((4, 4, 4, 4), "float32"))
    for old, new in zip(before, layer.get_weights(), strict=True):
        assert np.isfinite(new).all()
        assert not np.array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"filters": 0}, "`filters` must be an integer of at least 1. Received: filters=0."),
        ({"filters": 1, "dilation_rate": 0}, "`dilation_rate` must be .* Received: dilation_rate=0."),
        (
            {"filters": 1, "strides": 2, "dilation_rate": 3},
            "can't both be above 1. Received: strides=2, dilation_rate=3.",
        ),
        ({"filters": 1, "padding": "full"}, "`padding` must be 'same' or 'valid'. Received: padding='full'."),
        (
            {"filters": 1, "dilation_rate": 3, "padding": "valid"},
            r"as large as the kernel. Received: a kernel of 7 pixels, input \(None, 6, 6, 3\)",
        ),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        DeformableConv2D(**arguments)(keras.Input((6, 6, 3)))
