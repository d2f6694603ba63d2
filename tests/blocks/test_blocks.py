import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight.blocks import conv, mobile_mqa, uib
from keraslight.errors import InvalidArgumentError


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.path else rng.normal(size=v.shape) * 0.3)


@pytest.mark.parametrize(
    ("value", "limit", "wanted"), [(32, 0.9, 32), (33, 0.9, 32), (36, 0.9, 40), (11, 0.9, 16), (11, 0, 8), (3, 0.9, 8)]
)
def test_make_divisible(value, limit, wanted):
    assert conv.make_divisible(value, 8, limit) == wanted


def test_symmetric_and_same_padding_differ_where_pytorch_and_tensorflow_do():
    images = keras.Input((8, 8, 1))
    same = conv.ConvStyle("same", 1e-3, 0.99)
    models = [
        keras.Model(images, conv.conv_bn(images, 1, 3, stride=2, style=style, name="conv"))
        for style in (conv.TORCH, same)
    ]
    for model in models:
        model.get_layer("conv").kernel.assign(np.ones((3, 3, 1, 1)))
        model.get_layer("conv_bn").epsilon = 0
    corner = np.zeros((1, 8, 8, 1), "float32")
    corner[0, 0, 0, 0] = 1
    ours, theirs = (np.asarray(model(corner))[0, :, :, 0] for model in models)
    assert ours.shape == theirs.shape == (4, 4)
    last = np.zeros((1, 8, 8, 1), "float32")
    last[0, 7, 7, 0] = 1
    # The last pixel is the centre's lower right neighbour with symmetric padding, the centre's own with "same".
    assert np.asarray(models[0](last))[0, 3, 3, 0] == 1
    assert np.asarray(models[1](last))[0, 3, 3, 0] == 1
    assert np.asarray(models[0](np.ones_like(last)))[0, 0, 0, 0] == 4  # a padded row and column at the top left
    assert np.asarray(models[1](np.ones_like(last)))[0, 0, 0, 0] == 9
    assert models[1].get_layer("conv_bn").momentum == 0.99


@pytest.mark.parametrize("kv_stride", [1, 2])
def test_mobile_mqa_is_multi_query_attention(kv_stride):
    """Against an einsum over explicit heads."""
    heads, dim, size, channels = 3, 4, 6, 5
    images = keras.Input((size, size, channels))
    model = keras.Model(images, mobile_mqa.mobile_mqa(images, heads=heads, key_dim=dim, kv_stride=kv_stride, name="a"))
    randomize(model)
    x = np.random.default_rng(1).normal(size=(2, size, size, channels)).astype("float32")

    normalized = np.asarray(model.get_layer("a_norm")(x))

    def project(name, maps):
        return maps @ np.asarray(model.get_layer(name).kernel)[0, 0]

    def shared(name):
        maps = normalized
        if kv_stride == 2:
            kernel = np.asarray(model.get_layer(f"{name}_down").kernel)
            padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
            maps = tf.nn.depthwise_conv2d(padded, kernel, (1, 2, 2, 1), "VALID")
            maps = np.asarray(model.get_layer(f"{name}_down_bn")(maps))
        return project(name, maps).reshape(2, -1, dim)

    query = project("a_query", normalized).reshape(2, size * size, heads, dim)  # head-major channels
    key, value = shared("a_key"), shared("a_value")
    scores = np.einsum("bqhd,bkd->bhqk", query, key) / np.sqrt(dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    context = np.einsum("bhqk,bkd->bqhd", weights, value).reshape(2, size, size, heads * dim)
    wanted = x + project("a_output", context)
    np.testing.assert_allclose(np.asarray(model(x)), wanted, atol=2e-5)


@pytest.mark.parametrize(("start", "middle"), [(0, 3), (3, 0), (3, 5), (0, 0)])
def test_universal_inverted_bottleneck_shapes_and_residual(start, middle):
    images = keras.Input((7, 9, 16))
    kept = uib.universal_inverted_bottleneck(images, 16, expansion=2, start=start, middle=middle, name="kept")
    wider = uib.universal_inverted_bottleneck(images, 24, expansion=2, start=start, middle=middle, name="wider")
    assert kept.shape == (None, 7, 9, 16)
    assert wider.shape == (None, 7, 9, 24)
    names = {layer.name for layer in keras.Model(images, [kept, wider]).layers}
    assert "kept_add" in names
    assert "wider_add" not in names
    if start or middle:
        halved = uib.universal_inverted_bottleneck(
            images, 16, expansion=2, start=start, middle=middle, stride=2, name="halved"
        )
        assert halved.shape == (None, 4, 5, 16)


def test_fused_inverted_bottleneck_adds_where_shapes_allow():
    images = keras.Input((8, 8, 16))
    x = uib.fused_inverted_bottleneck(images, 16, expansion=4, name="fused")
    assert x.shape == (None, 8, 8, 16)
    assert "fused_add" in {layer.name for layer in keras.Model(images, x).layers}


def test_unknown_activation():
    with pytest.raises(InvalidArgumentError, match="`activation` must be None or one of .* Received: 'swish'"):
        conv.activate(keras.Input((4,)), "swish", name="a")
