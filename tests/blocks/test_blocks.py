import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight import blocks
from keraslight.analysis import count_parameters, receptive_field
from keraslight.blocks.shuffle import channel_shuffle
from keraslight.errors import InvalidArgumentError


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.path else rng.normal(size=v.shape) * 0.3)


@pytest.mark.parametrize(
    ("value", "limit", "wanted"), [(32, 0.9, 32), (33, 0.9, 32), (36, 0.9, 40), (11, 0.9, 16), (11, 0, 8), (3, 0.9, 8)]
)
def test_make_divisible(value, limit, wanted):
    assert blocks.make_divisible(value, 8, limit) == wanted


def test_symmetric_and_same_padding_differ_where_pytorch_and_tensorflow_do():
    images = keras.Input((8, 8, 1))
    same = blocks.ConvStyle("same", 1e-3, 0.99)
    models = [
        keras.Model(images, blocks.conv_bn(images, 1, 3, stride=2, style=style, name="conv"))
        for style in (blocks.TORCH, same)
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
    model = keras.Model(images, blocks.mobile_mqa(images, heads=heads, key_dim=dim, kv_stride=kv_stride, name="a"))
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
    kept = blocks.universal_inverted_bottleneck(images, 16, expansion=2, start=start, middle=middle, name="kept")
    wider = blocks.universal_inverted_bottleneck(images, 24, expansion=2, start=start, middle=middle, name="wider")
    assert kept.shape == (None, 7, 9, 16)
    assert wider.shape == (None, 7, 9, 24)
    names = {layer.name for layer in keras.Model(images, [kept, wider]).layers}
    assert "kept_add" in names
    assert "wider_add" not in names
    if start or middle:
        halved = blocks.universal_inverted_bottleneck(
            images, 16, expansion=2, start=start, middle=middle, stride=2, name="halved"
        )
        assert halved.shape == (None, 4, 5, 16)


def test_fused_inverted_bottleneck_adds_where_shapes_allow():
    images = keras.Input((8, 8, 16))
    x = blocks.fused_inverted_bottleneck(images, 16, expansion=4, name="fused")
    assert x.shape == (None, 8, 8, 16)
    assert "fused_add" in {layer.name for layer in keras.Model(images, x).layers}


def test_unknown_activation():
    with pytest.raises(InvalidArgumentError, match="`activation` must be None or one of .* Received: 'swish'"):
        blocks.activate(keras.Input((4,)), "swish", name="a")


@pytest.mark.parametrize(("kernel", "dilation", "span"), [(3, 1, 3), (3, 2, 5), (5, 3, 13), (1, 7, 1)])
def test_effective_kernel_size_is_what_a_dilated_kernel_spans(kernel, dilation, span):
    assert blocks.effective_kernel_size(kernel, dilation) == span
    images = keras.Input((31, 31, 2))
    model = keras.Model(images, blocks.conv_bn(images, 4, kernel, dilation=dilation, groups=2, name="conv"))
    assert model.output_shape == (None, 31, 31, 4)
    assert model.get_layer("conv").kernel.shape == (kernel, kernel, 1, 4)  # no more weights
    assert receptive_field(model)[-1].size == (span, span)


def test_bad_dilations():
    with pytest.raises(InvalidArgumentError, match="must be at least 1. Received: kernel=3, dilation=0"):
        blocks.effective_kernel_size(3, 0)
    with pytest.raises(InvalidArgumentError, match="can't both be above 1. Received: stride=2, dilation=2"):
        blocks.conv(keras.Input((8, 8, 2)), 4, 3, stride=2, dilation=2, name="c")


def layers_of(block, shape, *args, **settings):
    images = keras.Input(shape)
    model = keras.Model(images, block(images, *args, **settings, name="b"))
    return model, [layer.name for layer in model.layers[1:]]


def test_basic_block():
    model, names = layers_of(blocks.basic_block, (9, 8, 6), 6)
    assert "b_shortcut" not in names
    assert count_parameters(model) == 9 * (36 + 36) + 4 * 6
    model, names = layers_of(blocks.basic_block, (9, 8, 6), 10, stride=2)
    assert model.output_shape == (None, 5, 4, 10)
    assert "b_shortcut" in names
    assert count_parameters(model) == 9 * (60 + 100) + 4 * 10 + 60 + 2 * 10


def test_bottleneck_block():
    model, names = layers_of(blocks.bottleneck_block, (9, 8, 16), 4)
    assert "b_shortcut" not in names
    assert count_parameters(model) == 64 + 9 * 16 + 64 + 4 * 4 + 2 * 16
    model, names = layers_of(blocks.bottleneck_block, (9, 8, 16), 4, expansion=2, stride=2)
    assert model.output_shape == (None, 5, 4, 8)
    assert model.get_layer("b_spatial").strides == (2, 2)
    assert count_parameters(model) == 64 + 9 * 16 + 32 + 4 * 4 + 2 * 8 + 16 * 8 + 2 * 8


def test_dense_layer_and_transition():
    model, _ = layers_of(blocks.dense_layer, (9, 8, 6), 3)
    assert model.output_shape == (None, 9, 8, 9)
    assert count_parameters(model) == 6 * 12 + 9 * 12 * 3 + 2 * (6 + 12)
    x = np.random.default_rng(0).normal(size=(1, 9, 8, 6)).astype("float32")
    np.testing.assert_array_equal(np.asarray(model(x))[..., :6], x)  # the input stays in front
    model, _ = layers_of(blocks.transition, (9, 8, 6), 3)
    assert model.output_shape == (None, 4, 4, 3)
    assert count_parameters(model) == 6 * 3 + 2 * 6


def test_a_channel_shuffle_deals_the_groups_out():
    images = keras.Input((2, 3, 6))
    model = keras.Model(images, channel_shuffle(images, 2, name="shuffle"))
    x = np.arange(36, dtype="float32").reshape(1, 2, 3, 6)
    np.testing.assert_array_equal(model(x), x[..., [0, 3, 1, 4, 2, 5]])


def test_grouped_shuffle_unit():
    model, names = layers_of(blocks.grouped_shuffle_unit, (9, 8, 24), 24, groups=3)
    assert names[-1] == "b_act"
    assert count_parameters(model) == 24 * 6 // 3 + 9 * 6 + 6 * 24 // 3 + 2 * (6 + 6 + 24)
    model, names = layers_of(blocks.grouped_shuffle_unit, (9, 8, 12), 24, groups=3, stride=2, first=True)
    assert model.output_shape == (None, 5, 4, 24)
    assert count_parameters(model) == 12 * 6 + 9 * 6 + 6 * 12 // 3 + 2 * (6 + 6 + 12)
    x = np.ones((1, 9, 8, 12), "float32")
    assert np.asarray(model(x))[0, 1, 1, 0] == 1  # the pool of the input comes first


@pytest.mark.parametrize(("stride", "parameters"), [(1, 10 * 36 + 6 * 6), (2, 10 * 36 + 4 * 6)])
def test_repvgg_block(stride, parameters):
    model, names = layers_of(blocks.repvgg_block, (9, 8, 6), 6, stride=stride)
    assert ("b_identity_bn" in names) == (stride == 1)
    assert count_parameters(model) == parameters
    model, names = layers_of(blocks.repvgg_block, (9, 8, 6), 6, stride=stride, deploy=True)
    assert count_parameters(model) == 9 * 36 + 6
    model, names = layers_of(blocks.repvgg_block, (9, 8, 6), 6, gated=True, groups=2)
    assert "b_se_scale" in names


def test_xception_module():
    model, names = layers_of(blocks.xception_module, (9, 8, 6), (6, 6))
    assert names[0] == "b_act0"
    assert count_parameters(model) == 2 * (9 * 6 + 36 + 12)
    model, names = layers_of(blocks.xception_module, (9, 8, 6), (4, 10), stride=2, activate_first=False)
    assert "b_act0" not in names
    assert model.output_shape == (None, 5, 4, 10)
    assert count_parameters(model) == 54 + 24 + 8 + 36 + 40 + 20 + 60 + 20
