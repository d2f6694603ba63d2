import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keraslight.errors import InvalidArgumentError
from keraslight.export.litert import to_litert
from keraslight.layers import ConditionalConv2D

RNG = np.random.default_rng(0)


def randomized(layer, shape):
    layer.build(shape)
    for weight in layer.weights:
        weight.assign(RNG.normal(size=weight.shape))
    return layer


def conditional_convolution(layer, x):
    """Section 3 of the paper, pixel by pixel: each expert convolves, the routing adds their results up."""
    routing_kernel, c = np.asarray(layer.routing_kernel), np.asarray(layer.routing_bias)
    k, s = layer.kernel_size, layer.strides
    images = []
    for image in x.astype("float64"):
        routing = 1 / (1 + np.exp(-(image.mean(axis=(0, 1)) @ routing_kernel + c)))
        if layer.padding == "same":
            total = [max((-(-side // s) - 1) * s + k - side, 0) for side in image.shape[:2]]
            image = np.pad(image, [*[(n // 2, n - n // 2) for n in total], (0, 0)])
        height, width = ((side - k) // s + 1 for side in image.shape[:2])
        y = np.zeros((height, width, layer.filters))
        for i, j in np.ndindex(height, width):
            window = image[i * s : i * s + k, j * s : j * s + k]
            for expert, share in enumerate(routing):
                y[i, j] += share * np.einsum("hwc,hwcf->f", window, np.asarray(layer.kernel)[expert])
                if layer.use_bias:
                    y[i, j] += share * np.asarray(layer.bias)[expert]
        images.append(y)
    return np.stack(images)


@pytest.mark.parametrize(
    ("sides", "arguments"),
    [
        ((5, 6), {}),
        ((8, 7), {"strides": 2}),  # the even side is padded unevenly
        ((7, 6), {"kernel_size": 4, "strides": 3, "padding": "valid", "use_bias": False}),
        ((4, 5), {"kernel_size": 1, "strides": 2, "experts": 1}),
    ],
)
def test_is_the_papers_equation(sides, arguments):
    layer = randomized(ConditionalConv2D(4, **{"experts": 3, **arguments}), (None, *sides, 2))
    x = RNG.normal(size=(3, *sides, 2)).astype("float32")
    wanted = conditional_convolution(layer, x)
    np.testing.assert_allclose(np.asarray(layer(x)), wanted, atol=1e-5, rtol=1e-5)
    assert layer.compute_output_shape(x.shape) == wanted.shape


@pytest.mark.parametrize("strides", [1, 2])
def test_open_sizes(strides):
    layer = randomized(ConditionalConv2D(4, experts=2, strides=strides), (None, None, None, 2))
    images = keras.Input((None, None, 2))
    model = keras.Model(images, layer(images))
    assert model.output_shape == (None, None, None, 4)
    x = RNG.normal(size=(2, 8, 5, 2)).astype("float32")
    result = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 2))])(x)
    np.testing.assert_allclose(result, conditional_convolution(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("initializer", ["glorot_uniform", keras.initializers.GlorotUniform(seed=7)])
def test_each_expert_starts_as_a_convolution_of_its_own(initializer):
    layer = ConditionalConv2D(32, experts=4, kernel_initializer=initializer)
    layer.build((None, 8, 8, 32))
    kernel = np.asarray(layer.kernel)
    wanted = np.sqrt(2 / (9 * 32 + 9 * 32))  # Glorot and Bengio 2010, equation 16, for one 3x3 kernel
    np.testing.assert_allclose(kernel.std(axis=(1, 2, 3, 4)), wanted, rtol=0.05)
    assert abs(np.corrcoef(kernel.reshape(4, -1)) - np.eye(4)).max() < 0.1


def network(policy=None):
    images = keras.Input((8, 8, 3))
    layer = ConditionalConv2D(4, experts=3, strides=2, kernel_regularizer="l2", dtype=policy, name="conditional")
    return keras.Model(images, layer(images))


def test_saves_and_converts(tmp_path):
    model = network()
    layer = model.get_layer("conditional")
    assert model.count_params() == 3 * (27 * 4 + 4) + (3 + 1) * 3
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape))
    x = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    wanted = np.asarray(model(x))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), wanted)
    assert loaded.get_layer("conditional").get_config() == layer.get_config()

    for batch in (1, 2):
        interpreter = Interpreter(str(to_litert(model, tmp_path / "model.tflite", batch_size=batch)))
        (result,) = interpreter.get_signature_runner()(images=x[:batch]).values()
        np.testing.assert_allclose(result, wanted[:batch], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_trains(policy):
    model = network(policy)
    layer = model.get_layer("conditional")
    x = RNG.normal(size=(4, 8, 8, 3)).astype("float32")
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    np.testing.assert_allclose(np.asarray(y, "float32"), conditional_convolution(layer, x), atol=1e-2, rtol=1e-2)

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
        ({"filters": 1, "experts": 0}, "`experts` must be an integer of at least 1. Received: experts=0."),
        ({"filters": 1, "kernel_size": 1.5}, "`kernel_size` must be .* Received: kernel_size=1.5."),
        ({"filters": 1, "padding": "full"}, "`padding` must be 'same' or 'valid'. Received: padding='full'."),
        (
            {"filters": 1, "kernel_size": 7, "padding": "valid"},
            "as the kernel. Received: a kernel of 7 pixels",
        ),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        ConditionalConv2D(**arguments)(keras.Input((6, 6, 3)))
