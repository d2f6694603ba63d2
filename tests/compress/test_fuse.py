import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress


def randomized(model, seed=0):
    """Random weights everywhere, so that no batch norm is the identity."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomized(layer, seed)
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def assert_same(model, other, *inputs):
    expected, got = model(inputs if len(inputs) > 1 else inputs[0]), other(inputs if len(inputs) > 1 else inputs[0])
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.abs(a - b).max() <= 1e-5 * max(a.std(), 1e-3)


def norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def test_folds_what_follows_a_convolution(trained, digits):
    fused = compress.fuse(trained)
    logits = [keras.Model(m.input, m.get_layer("logits").output) for m in (trained, fused)]
    a, b = (np.asarray(m(digits[1][0][:32])) for m in logits)
    assert np.abs(a - b).max() <= 1e-5 * a.std()
    assert norms(fused) == ["attention_norm"]  # follows an addition
    kept = [layer.name for layer in trained.layers if layer.name not in set(norms(trained)) - {"attention_norm"}]
    assert [layer.name for layer in fused.layers] == kept


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(6, 3, name="c"),
        layers.Conv2D(6, 3, use_bias=False, groups=3, name="c"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="c"),
        layers.Dense(5, name="c"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_each_kind_of_layer(layer, options):
    layer = type(layer).from_config(layer.get_config())
    images = keras.Input((8, 8, 3))
    model = randomized(keras.Model(images, layers.BatchNormalization(name="bn", **options)(layer(images))))
    fused = compress.fuse(model)
    assert norms(fused) == []
    assert_same(model, fused, np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32"))


def test_leaves_what_would_change_the_result():
    images = keras.Input((8, 8, 3), name="images")
    shared = layers.Conv2D(4, 1, name="shared")
    a, b = shared(images), shared(layers.ReLU(name="relu")(images))
    active = layers.Conv2D(4, 1, activation="relu", name="active")(images)
    read_twice = layers.Conv2D(4, 1, name="read_twice")(images)
    x = layers.Add(name="add")(
        [
            *(layers.BatchNormalization(name=f"bn_{n}")(t) for n, t in enumerate((a, b, active, read_twice))),
            read_twice,
        ]
    )
    model = randomized(keras.Model(images, x))
    fused = compress.fuse(model)
    assert norms(fused) == norms(model)
    assert_same(model, fused, np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32"))


def test_nested_models_and_dicts():
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(
        inner_in, layers.BatchNormalization(name="inner_bn")(layers.Conv2D(4, 3, name="conv")(inner_in)), name="inner"
    )
    left, right = keras.Input((8, 8, 4), name="left"), keras.Input((8, 8, 4), name="right")
    x = layers.Conv2D(6, 3, name="conv")(inner(left))
    y = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(6, 5), layers.BatchNormalization()], name="seq")(right)
    model = randomized(keras.Model({"left": left, "right": right}, {"sum": layers.Add()([x, y]), "x": x}))
    fused = compress.fuse(model)
    assert norms(fused) == []
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(2, 8, 8, 4)).astype("float32") for name in ("left", "right")}
    expected, got = model(values), fused(values)
    assert set(got) == {"sum", "x"}
    for name in expected:
        np.testing.assert_allclose(expected[name], got[name], atol=1e-5)
