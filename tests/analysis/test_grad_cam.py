"""Class activation maps against closed forms; drawing them is tested in test_plots.py."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight.analysis import grad_cam
from keraslight.errors import InvalidArgumentError


def seeded(model, seed=0):
    """Normal weights, batch norm's variances positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" not in weight.path:
            values = rng.normal(0, 0.3, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def photo(shape=(20, 24, 3), seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def body(images):
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="first")(images)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return layers.Conv2D(8, 3, activation="relu", name="last")(x)


def cam(features, kernel, class_index):
    """Zhou et al., equation 2, without what is below 0, over the number of places."""
    heat = np.einsum("hwc,c->hw", features, kernel[:, class_index])
    return np.maximum(heat, 0) / heat.size


def head(x, kind):
    """Heads that are global average pooling and one dense layer, in different guises."""
    if kind == "convolution":  # the same sums in another order
        x = layers.Conv2D(5, 1, name="dense")(x)
        return layers.Softmax(name="out")(layers.GlobalAveragePooling2D()(x))
    x = layers.GlobalAveragePooling2D(keepdims=kind == "reshape")(x)
    if kind == "logits":
        return layers.Dense(5, name="dense")(x)
    if kind.startswith("ops."):
        return getattr(keras.ops, kind[4:])(layers.Dense(5, name="dense")(x))
    if kind in ("softmax", "sigmoid"):
        return layers.Dense(5, activation=kind, name="dense")(x)
    if kind == "activation":
        x = layers.Activation("softmax")(layers.Dense(5, name="dense")(layers.Dropout(0.2)(x)))
        return layers.Activation("linear", dtype="float32")(x)
    return layers.Reshape((5,))(layers.Softmax()(layers.Conv2D(5, 1, name="dense")(x)))


@pytest.mark.parametrize(
    "kind",
    ["logits", "softmax", "sigmoid", "ops.softmax", "ops.sigmoid", "activation", "reshape", "convolution"],
)
def test_average_pooling_and_a_dense_layer_give_the_class_activation_map(kind):
    images = keras.Input((20, 24, 3))
    x = body(images)
    model = seeded(keras.Model(images, head(x, kind)))
    features = keras.Model(images, x).predict(photo()[None], verbose=0)[0]
    kernel = keras.ops.convert_to_numpy(model.get_layer("dense").kernel).reshape(8, 5)
    outputs = model.predict(photo()[None], verbose=0)[0]
    for class_index in range(5):
        found = grad_cam(model, photo(), class_index=class_index, layer="last")
        expected = cam(features, kernel, class_index)
        assert expected.max() > 1e-3
        np.testing.assert_allclose(found.heat, expected, atol=1e-6)
        assert found[1:] == (class_index, pytest.approx(outputs[class_index], abs=1e-6), "last")
    best = grad_cam(model, photo())
    assert best.class_index == outputs.argmax()
    assert best.layer == ("dense" if kind == "convolution" else "last")  # the last map is the classes' own
    assert best.heat.dtype == np.float32


def test_any_head():
    """Two paths around the layer and a hidden dense layer: the gradient written out."""
    images = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 1, name="map")(images)
    joined = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(images)])
    hidden = layers.Dense(7, activation="relu", name="hidden")(joined)
    model = seeded(keras.Model(images, layers.Dense(4, activation="softmax", name="classes")(hidden)))
    image = photo((4, 4, 2))
    w0, b0, w1, b1, w2, _ = model.get_weights()
    maps = image @ w0[0, 0] + b0
    live = np.concatenate([maps.ravel(), image.ravel()]) @ w1 + b1 > 0
    assert 0 < live.sum() < 7
    for class_index in range(4):
        gradient = (w1[:48] @ (live * w2[:, class_index])).reshape(4, 4, 3)
        expected = np.maximum(maps @ gradient.mean((0, 1)), 0)
        np.testing.assert_allclose(
            grad_cam(model, image, class_index=class_index, layer="map").heat, expected, atol=1e-6
        )


def test_nested_models_and_shared_layers():
    inside = keras.Input((None, None, 3))
    inner = keras.Model(inside, body(inside), name="backbone")
    images = keras.Input((20, 24, 3))
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    x = shared(shared(inner(images)))
    outputs = layers.Dense(5, name="dense")(layers.GlobalAveragePooling2D()(x))
    model = seeded(keras.Model(images, outputs))
    features = keras.Model(images, x).predict(photo()[None], verbose=0)[0]
    kernel = model.get_layer("dense").get_weights()[0]
    found = grad_cam(model, photo(), class_index=2)
    assert found.layer == "shared"  # its last call
    np.testing.assert_allclose(found.heat, cam(features, kernel, 2), atol=1e-6)
    assert grad_cam(model, photo(), layer="backbone/first").heat.shape == (10, 12)


def test_sequential_models():
    inside = keras.Input((None, None, 3))
    inner = keras.Model(inside, body(inside), name="backbone")
    sequence = keras.Sequential([keras.Input((20, 24, 3)), inner, layers.GlobalAveragePooling2D(), layers.Dense(5)])
    seeded(sequence)
    features = inner.predict(photo()[None], verbose=0)[0]
    found = grad_cam(sequence, photo(), class_index=1)
    assert found.layer == "backbone/last"
    np.testing.assert_allclose(found.heat, cam(features, sequence.layers[-1].get_weights()[0], 1), atol=1e-6)


def test_dropout_is_off_even_if_the_graph_turns_it_on():
    images = keras.Input((20, 24, 3))
    dropped = layers.Dropout(0.5)(body(images), training=True)
    model = seeded(keras.Model(images, head(dropped, "softmax")))
    first, second = grad_cam(model, photo()), grad_cam(model, photo())
    np.testing.assert_array_equal(first.heat, second.heat)


def test_the_model_stays_as_it_was():
    images = keras.Input((20, 24, 3))
    model = seeded(keras.Model(images, head(body(images), "softmax")))
    before = [np.array(weight) for weight in model.weights]
    answers = model.predict(photo()[None], verbose=0)
    first, second = grad_cam(model, photo()), grad_cam(model, photo())
    np.testing.assert_array_equal(first.heat, second.heat)  # no dropout, no batch statistics
    assert all(np.array_equal(old, np.array(new)) for old, new in zip(before, model.weights, strict=True))
    np.testing.assert_array_equal(model.predict(photo()[None], verbose=0), answers)
    assert model.get_layer("dense").activation is keras.activations.softmax
    assert model.get_layer("last").output.shape == (None, 8, 10, 8)  # a second call would make it ambiguous


@pytest.mark.parametrize(
    "name", ["lenet5_modern", "mobilenet_v4_conv_small", "densenet121", "efficientnet_b0", "squeezenet_1_1", "vgg11"]
)
def test_models_of_the_zoo(name):
    model = keraslight.create_model(name, width=0.25, classes=7, input_shape=(64, 64, 3))
    found = grad_cam(model, photo((64, 64, 3)), class_index=3)
    assert min(found.heat.shape) > 1
    assert np.isfinite(found.heat).all()
    assert found.heat.min() >= 0


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        images = keras.Input((20, 24, 3))
        model = seeded(keras.Model(images, head(body(images), "activation")))
    finally:
        keras.config.set_dtype_policy("float32")
    whole = keras.models.clone_model(
        model,
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float32"}),
    )
    whole.set_weights(model.get_weights())
    expected = grad_cam(whole, photo(), class_index=0, layer="last").heat
    found = grad_cam(model, photo(), class_index=0, layer="last").heat
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


CHILD = """
import sys
sys.modules["tensorflow"] = None  # Keras' own loading would import it
import keras, numpy as np
from keraslight.analysis import grad_cam

model = keras.saving.load_model(sys.argv[1])
found = grad_cam(model, np.load(sys.argv[2]), class_index=3, layer="last")
np.save(sys.argv[3], found.heat)
"""


@pytest.mark.slow
def test_other_backends(tmp_path):
    """JAX gives the same map, NumPy has no gradients. PyTorch is not installed for the tests."""
    images = keras.Input((20, 24, 3))
    model = seeded(keras.Model(images, head(body(images), "softmax")))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", photo())

    def run(backend):
        files = [str(tmp_path / name) for name in ("model.keras", "image.npy", f"{backend}.npy")]
        environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(keraslight.__file__).parent.parent)}
        return subprocess.run(
            [sys.executable, "-c", CHILD, *files],
            env={**os.environ, **environment, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
        )

    done = run("jax")
    assert done.returncode == 0, done.stderr
    expected = grad_cam(model, photo(), class_index=3, layer="last").heat
    assert expected.max() > 1e-3
    np.testing.assert_allclose(np.load(tmp_path / "jax.npy"), expected, atol=1e-6)
    error = run("numpy").stderr.splitlines()[-1]
    assert error.endswith("Gradients need Keras' TensorFlow, JAX or PyTorch backend. Received: 'numpy'.")


@pytest.fixture
def classifier():
    images = keras.Input((20, 24, 3))
    return seeded(keras.Model(images, head(body(images), "softmax")))


@pytest.mark.parametrize("class_index", [5, -1])
def test_the_class_must_be_one_of_the_model(classifier, class_index):
    with pytest.raises(
        InvalidArgumentError, match=f"`class_index` must be from 0 to 4. Received: class_index={class_index}"
    ):
        grad_cam(classifier, photo(), class_index=class_index)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("lost", "makes maps .*, such as 'last'.* Received: 'lost'"),
        ("dense", "more than one pixel, .* Received: 'dense'"),
    ],
)
def test_the_layer_must_make_a_map(classifier, layer, text):
    with pytest.raises(InvalidArgumentError, match=text):
        grad_cam(classifier, photo(), layer=layer)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (photo((24, 20, 3)), r"of the model's size, \(20, 24, 3\). Received: shape \(24, 20, 3"),
        (photo()[None], r"`image` must be .* Received: shape \(1, 20, 24, 3\)"),
        (np.full((20, 24, 3), np.nan), "`image` must have finite values"),
    ],
    ids=["size", "batch", "nan"],
)
def test_the_image_must_fit_the_model(classifier, image, text):
    with pytest.raises(InvalidArgumentError, match=text):
        grad_cam(classifier, image)


def maps(images):
    return body(images)


def two_outputs(images):
    x = body(images)
    return [layers.Dense(2)(layers.GlobalMaxPooling2D()(x)) for _ in range(2)]


def no_maps(images):
    return layers.Dense(2)(layers.Flatten()(images))


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (maps, r"one output \(B, classes\). Received: outputs of shape"),
        (two_outputs, "one output .* Received: outputs of shape"),
        (no_maps, "must have layers that make maps"),
    ],
)
def test_the_model_must_be_a_classifier_with_maps(outputs, text):
    images = keras.Input((20, 24, 3))
    with pytest.raises(InvalidArgumentError, match=text):
        grad_cam(keras.Model(images, outputs(images)), photo())


def test_the_model_must_take_an_image():
    vector = keras.Input((3,))
    with pytest.raises(InvalidArgumentError, match=r"must have one input, an image \(B, H, W, C\)"):
        grad_cam(keras.Model(vector, layers.Dense(2)(vector)), photo())


def test_the_model_must_have_a_graph():
    with pytest.raises(InvalidArgumentError, match="must be a functional Keras 3 model"):
        grad_cam(keras.Sequential([layers.Dense(2)]), photo())
