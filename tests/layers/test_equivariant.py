import itertools

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keraslight.errors import InvalidArgumentError
from keraslight.export.litert import litert_report, to_litert
from keraslight.layers import C4GroupConv2D, C4GroupPooling, C4LiftingConv2D

RNG = np.random.default_rng(0)


def turn(x):
    return np.rot90(x, axes=(1, 2)).copy()


def turn_group(y):
    """What a quarter turn does to a map on the group: the maps turn, the orientations move on by one."""
    batch, height, width, channels = y.shape
    return np.roll(turn(y).reshape(batch, width, height, 4, channels // 4), 1, axis=3).reshape(
        batch, width, height, channels
    )


def rotate(vector, quarters):
    """A vector (row, column) turned counterclockwise; rows point down: (0, 1), right, becomes (-1, 0), up."""
    for _ in range(quarters):
        vector = (-vector[1], vector[0])
    return vector


def group_convolution(f, kernel):
    """Equation 11, term by term: sum over h = (s, y) of f(s, y) psi(g^-1 h), with g = (r, t).

    `g^-1 h` is orientation s - r at place R^-r (y - t). `f` is (H, W, S, C) and `kernel` (k, k, S, C, F), whose middle
    is place 0. S is 4, or 1 for an image, which has no orientations (equation 10).
    """
    height, width, orientations, _ = f.shape
    reach = kernel.shape[0] // 2
    offsets = list(itertools.product(range(-reach, reach + 1), repeat=2))
    y = np.zeros((height - 2 * reach, width - 2 * reach, 4, kernel.shape[-1]))
    for i, j, r, s in itertools.product(range(y.shape[0]), range(y.shape[1]), range(4), range(orientations)):
        for di, dj in offsets:
            place = rotate((di, dj), (4 - r) % 4)
            psi = kernel[place[0] + reach, place[1] + reach, (s - r) % orientations]
            y[i, j, r] += f[i + reach + di, j + reach + dj, s] @ psi
    return y


@pytest.mark.parametrize(("layer", "orientations"), [(C4LiftingConv2D, 1), (C4GroupConv2D, 4)])
def test_convolutions_are_the_papers_equations(layer, orientations):
    layer = layer(3, 3, padding="valid")
    x = RNG.normal(size=(1, 5, 6, orientations * 2)).astype("float32")
    layer.build(x.shape)
    layer.bias.assign([1.0, 2.0, 3.0])
    kernel = np.asarray(layer.kernel).reshape(3, 3, orientations, 2, 3)
    wanted = group_convolution(x[0].reshape(5, 6, orientations, 2), kernel) + np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(np.asarray(layer(x))[0], wanted.reshape(3, 4, 12), atol=1e-5)
    assert layer.count_params() == 3 * 3 * orientations * 2 * 3 + 3


@pytest.mark.parametrize(
    ("sides", "arguments"),
    [
        ((6, 6), {}),
        ((5, 8), {"kernel_size": 5}),
        ((7, 6), {"kernel_size": 4, "padding": "valid"}),
        ((9, 7), {"strides": 2}),
        ((9, 7), {"strides": 2, "kernel_size": 1}),
        ((8, 6), {"strides": 2, "kernel_size": 2, "padding": "valid"}),
    ],
)
def test_a_turned_input_turns_the_maps_and_moves_the_orientations(sides, arguments):
    x = RNG.normal(size=(2, *sides, 3)).astype("float32")
    lift = C4LiftingConv2D(5, **arguments)
    y = np.asarray(lift(x))
    assert np.ptp(y) > 0.5
    np.testing.assert_allclose(np.asarray(lift(turn(x))), turn_group(y), atol=1e-5)

    group = C4GroupConv2D(4, **arguments)
    x = RNG.normal(size=(2, *sides, 8)).astype("float32")
    y = np.asarray(group(x))
    np.testing.assert_allclose(np.asarray(group(turn_group(x))), turn_group(y), atol=1e-5)
    assert tuple(y.shape) == group.compute_output_shape(x.shape)


def network():
    """Lifting, shared batch normalization, group convolution, both poolings."""
    images = keras.Input((8, 8, 3))
    x = C4LiftingConv2D(4, name="lift")(images)
    x = keras.layers.Reshape((8, 8, 4, 4))(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Reshape((8, 8, 16))(x)
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    x = C4GroupConv2D(6, kernel_regularizer="l2", name="group")(x)
    x = C4GroupPooling(name="pool")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def randomized():
    model = network()
    for weight in model.weights:
        weight.assign(
            RNG.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else RNG.normal(size=weight.shape)
        )
    return model


def test_pooled_features_are_invariant():
    model = randomized()
    x = RNG.normal(size=(3, 8, 8, 3)).astype("float32")
    wanted = np.asarray(model(x))
    assert np.ptp(wanted) > 0.5
    for _ in range(3):
        x = turn(x)
        np.testing.assert_allclose(np.asarray(model(x)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_group_pooling(mode):
    x = RNG.normal(size=(2, 3, 5, 12)).astype("float32")
    y = np.asarray(C4GroupPooling(mode)(x))
    np.testing.assert_allclose(y, getattr(x.reshape(2, 3, 5, 4, 3), mode)(axis=3), atol=1e-6)
    np.testing.assert_allclose(np.asarray(C4GroupPooling(mode)(turn_group(x))), turn(y), atol=1e-6)


def test_saves_and_converts(tmp_path):
    model = randomized()
    x = RNG.normal(size=(1, 8, 8, 3)).astype("float32")
    wanted = np.asarray(model(x))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(x)), wanted)
    assert loaded.get_layer("group").get_config() == model.get_layer("group").get_config()

    path = to_litert(model, tmp_path / "model.tflite")
    (result,) = Interpreter(str(path)).get_signature_runner()(images=x).values()
    np.testing.assert_allclose(result, wanted, atol=1e-4, rtol=1e-4)
    kinds = {operator.kind for operator in litert_report(path).operators}
    assert not kinds & {"TRANSPOSE", "REVERSE_V2", "CONCATENATION"}  # the turned kernels are constants


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_trains(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == ("float16" if policy == "mixed_float16" else "float32")
    before = [np.asarray(weight) for weight in model.trainable_weights]
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(RNG.normal(size=(4, 8, 8, 3)).astype("float32"), np.ones((4, 6), "float32"))
    for old, new in zip(before, model.trainable_weights, strict=True):
        assert np.isfinite(np.asarray(new)).all()
        assert not np.array_equal(old, np.asarray(new)), new.path


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: C4LiftingConv2D(0), "`filters` must be an integer of at least 1. Received: filters=0."),
        (lambda: C4LiftingConv2D(2, (3, 5)), r"`kernel_size` must be an integer .* Received: kernel_size=\(3, 5\)."),
        (lambda: C4LiftingConv2D(2, strides=0), "`strides` must be an integer of at least 1. Received: strides=0."),
        (lambda: C4LiftingConv2D(2, padding="full"), "`padding` must be 'same' or 'valid'. Received: padding='full'."),
        (lambda: C4LiftingConv2D(2, 4), "`kernel_size` must be odd with .* Received: kernel_size=4."),
        (lambda: C4GroupPooling("sum"), "`mode` must be 'max' or 'mean'. Received: mode='sum'."),
        (lambda: C4GroupPooling()(np.ones((1, 2, 2, 6))), "multiple of 4 channels .* Received: 6 channels."),
        (lambda: C4GroupConv2D(2)(keras.Input((4, 4, 6))), "multiple of 4 channels .* Received: 6 channels."),
        (lambda: C4LiftingConv2D(2, padding="valid")(keras.Input((2, 4, 6))), "at least as large as the kernel"),
    ],
)
def test_bad_arguments(build, text):
    with pytest.raises(InvalidArgumentError, match=text):
        build()
