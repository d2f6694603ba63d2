import keras
import numpy as np
import pytest

import keraslight
from keraslight.blocks.conv import TENSORFLOW, TORCH
from keraslight.blocks.pool import max_pool_signed
from tests.nets import of_top


def build(**arguments):
    return keraslight.Xception("xception", **{"input_shape": (64, 64, 3), **of_top(arguments)})


def test_nothing_between_depthwise_and_pointwise():
    model = build()
    pairs = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert len(pairs) == 34
    for depthwise in pairs:
        pointwise = model.get_layer(depthwise.name.replace("_depthwise", "_pointwise"))
        assert pointwise.input is depthwise.output
        assert not depthwise.use_bias


def test_relu_comes_before_each_pair_but_the_first_and_the_head():
    model = build()
    names = {layer.name for layer in model.layers}
    assert "stage0_block0_act0" not in names
    assert {"stage0_block0_act1", "stage1_block0_act0", "stage2_block8_act2"} <= names
    assert model.get_layer("head0_act").input is model.get_layer("head0_pointwise_bn").output
    shortcut = model.get_layer("stage1_block0_shortcut")
    assert shortcut.input is model.get_layer("stage0_block0_add").output  # not its ReLU


def test_stem_does_not_pad():
    features = build(features_only=True, input_shape=(150, 117, 3)).output
    assert [tuple(x.shape[1:3]) for x in features.values()] == [(72, 56), (36, 28), (18, 14), (9, 7), (5, 4)]


@pytest.mark.parametrize("side", [6, 7])
def test_max_pool_of_negative_maps(side):
    images = keras.Input((side, side, 1))
    styles = {style.padding: max_pool_signed(images, 3, stride=2, style=style, name=style.padding)
              for style in (TORCH, TENSORFLOW)}  # fmt: skip
    x = np.random.default_rng(0).normal(-9, 1, size=(1, side, side, 1)).astype("float32")
    pooled = keras.Model(images, styles)(x)
    padded = np.pad(x[0, :, :, 0], 1, constant_values=-np.inf)
    wanted = [[padded[r : r + 3, c : c + 3].max() for c in range(0, side, 2)] for r in range(0, side, 2)]
    np.testing.assert_array_equal(np.asarray(pooled["symmetric"])[0, :, :, 0], wanted)
    assert (np.asarray(pooled["same"])[0, :, :, 0] == wanted).all() == (side == 7)
    assert np.asarray(pooled["same"]).max() < 0


def test_the_keras_net():
    model = build(style=TENSORFLOW)
    stock = keras.applications.Xception(weights=None, input_shape=(96, 96, 3), include_top=False)
    ours = build(style=TENSORFLOW, input_shape=(96, 96, 3), include_top=False)
    assert model.get_layer("stem0_bn").epsilon == 1e-3
    assert ours.output_shape == stock.output_shape
    assert ours.count_params() == stock.count_params()
