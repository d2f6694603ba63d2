"""The attention blocks against their papers' equations in plain numpy."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keraslight import blocks
from keraslight.errors import InvalidArgumentError
from keraslight.export import to_litert

CHANNELS = 6
BLOCKS = {
    "squeeze_excite": lambda x: blocks.squeeze_excite(x, 4, gate="hard_sigmoid", name="a"),
    "cbam": lambda x: blocks.cbam(x, 2, name="a"),
    "coordinate": lambda x: blocks.coordinate_attention(x, 3, name="a"),
    "eca": lambda x: blocks.efficient_channel_attention(x, 5, name="a"),
}


def built(block, shape=(5, 7, CHANNELS), dtype="float32"):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        inputs = keras.Input(shape)
        model = keras.Model(inputs, block(inputs))
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.path else rng.normal(size=v.shape) * 0.5)
    return model


def images(*shape):
    return np.random.default_rng(1).normal(size=shape or (2, 5, 7, CHANNELS)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def matrix(model, name):
    return np.asarray(model.get_layer(name).kernel)[0, 0]


def normalized(model, name, x):
    layer = model.get_layer(name)
    mean, variance, gamma, beta = (
        np.asarray(v) for v in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("squeezed", [CHANNELS // 2, 12 // 4])  # of the expanded channels; of a block's 12 at its input
def test_squeeze_excite(gate, squeezed):
    model = built(lambda x: blocks.squeeze_excite(x, squeezed, gate=gate, name="a"))
    x = images()
    y = x.mean(axis=(1, 2)) @ matrix(model, "a_reduce") + np.asarray(model.get_layer("a_reduce").bias)
    y = np.maximum(y, 0) @ matrix(model, "a_expand") + np.asarray(model.get_layer("a_expand").bias)
    y = sigmoid(y) if gate == "sigmoid" else np.clip(y + 3, 0, 6) / 6
    np.testing.assert_allclose(np.asarray(model(x)), x * y[:, None, None], atol=1e-5)


@pytest.mark.parametrize("style", [blocks.TORCH, blocks.PLAIN])
def test_cbam_is_equations_1_to_3(style):
    model = built(lambda x: blocks.cbam(x, 2, kernel=3, style=style, name="a"))
    x = images()
    reduce, expand = (matrix(model, f"a_channel_{part}") for part in ("reduce", "expand"))
    answers = [np.maximum(s @ reduce, 0) @ expand for s in (x.mean(axis=(1, 2)), x.max(axis=(1, 2)))]
    x = x * sigmoid(sum(answers))[:, None, None]
    maps = np.pad(np.stack([x.mean(axis=-1), x.max(axis=-1)], axis=-1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(model.get_layer("a_spatial_conv").kernel)[..., 0]
    y = np.array(
        [[[(maps[n, i : i + 3, j : j + 3] * kernel).sum() for j in range(7)] for i in range(5)] for n in range(2)]
    )[..., None]
    if style is blocks.TORCH:
        y = normalized(model, "a_spatial_conv_bn", y)
    else:
        y = y + np.asarray(model.get_layer("a_spatial_conv").bias)
    np.testing.assert_allclose(np.asarray(model(images())), x * sigmoid(y), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7, CHANNELS), (None, None, CHANNELS)])
def test_coordinate_attention_is_equations_4_to_9(shape):
    model = built(BLOCKS["coordinate"], shape)
    x = images()
    gates = {}
    for kind, axis in (("rows", 2), ("columns", 1)):
        y = normalized(model, "a_reduce_bn", x.mean(axis=axis) @ matrix(model, "a_reduce"))
        y = y * np.clip(y + 3, 0, 6) / 6
        gates[kind] = sigmoid(y @ matrix(model, f"a_{kind}") + np.asarray(model.get_layer(f"a_{kind}").bias))
    wanted = x * gates["rows"][:, :, None] * gates["columns"][:, None]
    np.testing.assert_allclose(np.asarray(model(x)), wanted, atol=1e-5)


def test_eca_is_equation_9():
    model = built(BLOCKS["eca"])
    x = images()
    means = np.pad(x.mean(axis=(1, 2)), ((0, 0), (2, 2)))
    kernel = np.asarray(model.get_layer("a_conv").kernel).ravel()
    y = np.stack([means[:, c : c + 5] @ kernel for c in range(CHANNELS)], axis=-1)
    np.testing.assert_allclose(np.asarray(model(x)), x * sigmoid(y)[:, None, None], atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "wanted"), [(1, 1), (8, 3), (64, 3), (127, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_eca_kernel_size_is_equation_12(channels, wanted):
    assert blocks.eca_kernel_size(channels) == wanted


def test_eca_takes_its_kernel_from_the_channels():
    x = keras.Input((4, 4, 128))
    model = keras.Model(x, blocks.efficient_channel_attention(x, name="a"))
    assert model.count_params() == 5


def test_parameters_are_as_documented():
    counts = {name: sum(int(np.prod(w.shape)) for w in built(b).trainable_weights) for name, b in BLOCKS.items()}
    assert counts == {
        "squeeze_excite": 2 * CHANNELS * 4 + 4 + CHANNELS,
        "cbam": 2 * CHANNELS * 2 + 2 * 49 + 2,
        "coordinate": 3 * CHANNELS * 3 + 2 * CHANNELS + 2 * 3,
        "eca": 5,
    }


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_saved_trained_and_converted(name, tmp_path):
    model, x = built(BLOCKS[name]), images()
    wanted = np.asarray(model(x))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), wanted)

    converted = Interpreter(str(to_litert(model, tmp_path / "m.tflite", batch_size=2))).get_signature_runner()
    np.testing.assert_allclose(converted(images=x)["probabilities"], wanted, atol=1e-4)

    half = built(BLOCKS[name], dtype="mixed_float16")
    y = half(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(np.asarray(y, "float32"), wanted, atol=2e-2)

    before = [np.asarray(w) for w in loaded.trainable_weights]
    loaded.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    assert np.isfinite(loaded.train_on_batch(x, np.ones_like(x)))
    assert all((np.asarray(w) != b).any() for w, b in zip(loaded.trainable_weights, before, strict=True))


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (lambda x: blocks.squeeze_excite(x, 0, name="a"), "`squeezed` must be at least 1. Received: squeezed=0"),
        (lambda x: blocks.channel_attention(x, 0, name="a"), "`squeezed` must be at least 1. Received: squeezed=0"),
        (lambda x: blocks.coordinate_attention(x, -1, name="a"), "`squeezed` must .* Received: squeezed=-1"),
        (lambda x: blocks.spatial_attention(x, 4, name="a"), "`kernel` must be odd .* Received: kernel=4"),
        (lambda x: blocks.efficient_channel_attention(x, 2, name="a"), "`kernel` must be odd .* Received: kernel=2"),
        (lambda x: blocks.eca_kernel_size(0), "`channels` must be at least 1 .* Received: channels=0, gamma=2"),
    ],
)
def test_bad_arguments(block, text):
    with pytest.raises(InvalidArgumentError, match=text):
        block(keras.Input((4, 4, CHANNELS)))
