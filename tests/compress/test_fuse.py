import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress
from keraslight.blocks.conv import activate
from keraslight.layers import DropPath, GroupedConv2D, LayerScale


def randomized(model, seed=0):
    """Random batch norms and biases, so that none is the identity."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomized(layer, seed)
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.uniform(-1, 1, layer.bias.shape))
    return model


def assert_same(model, other, *inputs):
    expected, got = model(inputs if len(inputs) > 1 else inputs[0]), other(inputs if len(inputs) > 1 else inputs[0])
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.abs(a - b).max() <= 1e-5 * max(a.std(), 1e-3)


def norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def test_the_whole_vocabulary_of_a_small_net(trained, digits):
    fused = compress.fuse(trained)
    logits = [keras.Model(m.input, m.get_layer("logits").output) for m in (trained, fused)]
    a, b = (np.asarray(m(digits[1][0][:32])) for m in logits)
    assert np.abs(a - b).max() <= 1e-5 * a.std()
    dropped = ("_bn", "_act", "_layer_scale", "_drop_path", "_norm", "dropout")
    kept = [layer.name for layer in trained.layers if not layer.name.endswith(dropped)]
    assert [layer.name for layer in fused.layers] == kept
    assert fused.get_layer("stem").activation is keras.activations.relu
    assert norms(trained)  # the model that went in is as it was


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(6, 3, name="c"),
        layers.Conv2D(6, 3, use_bias=False, groups=3, name="c"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="c"),
        layers.Dense(5, name="c"),
        layers.Conv2DTranspose(6, 3, name="c"),
        layers.SeparableConv2D(6, 3, depth_multiplier=2, name="c"),
        GroupedConv2D(6, 3, groups=3, padding="same", dilation_rate=2, name="c"),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_each_kind_of_layer(layer, options):
    layer = type(layer).from_config(layer.get_config())
    images = keras.Input((8, 8, 3))
    model = randomized(keras.Model(images, layers.BatchNormalization(name="bn", **options)(layer(images))))
    fused = compress.fuse(model)
    assert norms(fused) == []
    assert_same(model, fused, np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32"))


IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 6)).astype("float32")


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, use_bias=False, name="c"),
        layers.Conv2D(4, 1, padding="same", strides=2, activation="relu", name="c"),
        layers.Conv2D(4, 3, groups=2, name="c"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="c"),
        layers.Dense(5, name="c"),
    ],
)
@pytest.mark.parametrize("kind", ["norm", "rescaling", "normalization"])
def test_folds_into_what_follows_where_nothing_is_padded(layer, kind):
    layer = type(layer).from_config(layer.get_config())
    images = keras.Input((8, 8, 6))
    affine = {
        "norm": lambda: layers.BatchNormalization(name="affine"),
        "rescaling": lambda: layers.Rescaling([1, 2, 3, 4, 5, 6], offset=0.5, name="affine"),
        "normalization": lambda: layers.Normalization(mean=[1, 2, 3, 4, 5, 6], variance=[2] * 6, name="affine"),
    }[kind]()
    x = affine(images)
    model = randomized(keras.Model(images, [layer(x), layers.Conv2D(2, 1, name="other")(x)]))
    fused = compress.fuse(model)
    assert "affine" not in [each.name for each in fused.layers]
    assert_same(model, fused, IMAGES)


def test_a_factor_alone_may_meet_padding_and_an_offset_may_not():
    images = keras.Input((8, 8, 6))
    for offset, left in ((0.0, False), (0.5, True)):
        x = layers.Rescaling(3.0, offset=offset, name="affine")(images)
        model = keras.Model(images, layers.Conv2D(4, 3, padding="same", name="c")(x))
        fused = compress.fuse(model)
        assert ("affine" in [layer.name for layer in fused.layers]) is left
        assert_same(model, fused, IMAGES)


def test_merges_linear_layers_where_that_saves_work():
    images = keras.Input((8, 8, 6))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="a")(images)
    x = layers.Conv2D(8, 1, use_bias=False, name="b")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(2, 1, name="narrow", activation="relu")(x)
    x = layers.Conv2D(2, 1, name="squeeze")(x)
    x = layers.Conv2D(20, 1, name="wide")(x)  # 2 * 2 + 2 * 20 before, 2 * 20 after
    x = layers.Conv2D(1, 1, name="bottleneck")(x)
    x = layers.Conv2D(20, 1, name="expand")(layers.ReLU()(x))
    x = layers.Dense(6, use_bias=False, name="dense")(layers.Flatten(name="flatten")(x))
    model = randomized(keras.Model(images, layers.Dense(3, activation="tanh", name="last")(x)))
    fused = compress.fuse(model)
    assert [layer.name for layer in fused.layers[1:]] == ["a", "squeeze", "expand", "flatten", "dense"]
    assert fused.get_layer("dense").activation is keras.activations.tanh
    assert_same(model, fused, IMAGES)

    x = layers.Conv2D(2, 1, name="project")(images)
    model = keras.Model(images, layers.Conv2D(60, 1, name="expand")(x))  # 132 products a pixel, 360 as one
    assert [layer.name for layer in compress.fuse(model).layers[1:]] == ["project", "expand"]


def test_grouped_convolutions_are_not_merged():
    images = keras.Input((8, 8, 6))
    x = layers.Conv2D(6, 3, groups=2, name="a")(images)
    model = keras.Model(images, layers.Conv2D(2, 1, name="b")(x))
    fused = compress.fuse(model)
    assert [layer.name for layer in fused.layers[1:]] == ["a", "b"]
    assert_same(model, fused, IMAGES)


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_a_norm_before_an_activation_becomes_one_layer_with_it(options):
    images = keras.Input((8, 8, 6))

    def norm(x, **call):
        return layers.BatchNormalization(**options)(x, **call)

    joined = layers.ReLU()(norm(images))
    read_twice = norm(images)
    twice = layers.Add()([read_twice, layers.ReLU()(read_twice)])
    training = layers.ReLU()(norm(images, training=True))
    vector = layers.ReLU()(norm(layers.GlobalAveragePooling2D()(images)))
    softmax = layers.Softmax()(norm(images))
    model = randomized(keras.Model(images, [layers.Conv2D(4, 3, padding="same")(joined), twice, vector, softmax]))
    fused = compress.fuse(model)
    (made,) = (layer for layer in fused.layers if isinstance(layer, layers.DepthwiseConv2D))
    assert made.activation is keras.activations.relu
    assert made.name in norms(model)
    assert norms(fused) == [name for name in norms(model) if name != made.name]
    assert len(fused.layers) == len(model.layers) - 1
    for wanted, got in zip(model(IMAGES), fused(IMAGES), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    kept = keras.Model(images, training)
    assert norms(compress.fuse(kept)) == norms(kept)


@pytest.mark.parametrize("activation", ["relu", "relu6", "gelu", "silu", "hard_silu", "sigmoid"])
def test_activations_go_into_the_layer_before(activation):
    images = keras.Input((8, 8, 6))
    x = activate(layers.Conv2D(4, 3, name="c")(images), activation, name="act")
    model = keras.Model(images, x)
    fused = compress.fuse(model)
    assert [layer.name for layer in fused.layers[1:]] == ["c"]
    assert_same(model, fused, IMAGES)


def test_activations_that_stay():
    images = keras.Input((8, 8, 6))
    outputs = [
        layers.Softmax(name="a")(layers.Conv2D(4, 1)(images)),
        layers.Activation("softmax", name="b")(layers.Conv2D(4, 1)(images)),
        layers.ReLU(negative_slope=0.1, name="c")(layers.Conv2D(4, 1)(images)),
        layers.ReLU(max_value=5.0, name="d")(layers.Conv2D(4, 1)(images)),
        layers.ReLU(name="e")(layers.Conv2D(4, 1, activation="tanh")(images)),
    ]
    model = keras.Model(images, outputs)
    assert {"a", "b", "c", "d", "e"} <= {layer.name for layer in compress.fuse(model).layers}
    assert_same(model, compress.fuse(model), IMAGES)


def test_what_only_trains_goes():
    images = keras.Input((8, 8, 6))
    x = layers.GaussianNoise(0.1)(layers.Dropout(0.5)(images))
    x = DropPath(0.5)(layers.Conv2D(4, 1, name="c")(x))
    x = layers.Activation("linear")(layers.SpatialDropout2D(0.5)(x))
    model = keras.Model(images, [x, layers.Dropout(0.5, name="monte_carlo")(x, training=True)])
    fused = compress.fuse(model)
    assert [layer.name for layer in fused.layers[1:]] == ["c", "monte_carlo"]
    np.testing.assert_allclose(fused(IMAGES)[0], model(IMAGES)[0], atol=1e-6)
    through = keras.Model(images, layers.Dropout(0.5)(images))
    assert_same(through, compress.fuse(through), IMAGES)


def test_fuses_branches_and_what_follows_them():
    images = keras.Input((8, 8, 6))
    x = layers.Conv2D(6, 1, activation="relu", name="before")(images)
    branches = [layers.Conv2D(6, k, padding="same", name=f"b{k}")(x) for k in (1, 3)]
    x = layers.Add()([x, *(layers.BatchNormalization()(branch) for branch in branches)])
    model = randomized(keras.Model(images, layers.ReLU()(LayerScale(0.5)(x))))
    fused = compress.fuse(model)
    assert [layer.name for layer in fused.layers[1:]] == ["before", "b3"]
    assert_same(model, fused, IMAGES)


def test_the_layer_that_knows_the_preprocessing_stays(trained):
    fused = compress.fuse(trained)
    assert fused.get_layer("preprocessing").preprocessing == trained.get_layer("preprocessing").preprocessing
    images = keras.Input((8, 8, 6))
    x = layers.Rescaling(1 / 255, name="preprocessing")(images)
    model = keras.Model(images, layers.Conv2D(4, 1, name="c")(x))
    assert [layer.name for layer in compress.fuse(model).layers[1:]] == ["preprocessing", "c"]


def test_leaves_what_would_change_the_result():
    class Doubled(layers.Conv2D):
        def call(self, inputs):
            return 2 * super().call(inputs) + 1

    images = keras.Input((8, 8, 3), name="images")
    shared = layers.Conv2D(4, 1, name="shared")
    a, b = shared(images), shared(layers.ReLU(name="relu")(images))
    active = layers.Conv2D(4, 1, activation="relu", name="active")(images)
    read_twice = layers.Conv2D(4, 1, name="read_twice")(images)
    own = Doubled(4, 1, name="own")(images)
    rows = layers.BatchNormalization(axis=1, name="bn_rows")(layers.Conv2D(4, 1, name="rows")(images))
    x = layers.Add(name="add")(
        [
            *(layers.BatchNormalization(name=f"bn_{n}")(t) for n, t in enumerate((a, b, active, read_twice, own))),
            read_twice,
            rows,
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
