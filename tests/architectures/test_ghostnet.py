import functools

import keras
import pytest

import keraslight
from keraslight.blocks.ghost import ghost_module
from keraslight.errors import InvalidArgumentError


@functools.cache  # only looked at
def build(variant="100", **arguments):
    return keraslight.GhostNet(variant, input_shape=(64, 64, 3), classes=10, **arguments)


def names(model):
    return {layer.name for layer in model.layers}


def test_half_of_a_ghost_modules_channels_are_cheap():
    model = build()
    primary, cheap = model.get_layer("stage1_block0_expand_primary"), model.get_layer("stage1_block0_expand_cheap")
    assert primary.filters == 24
    assert isinstance(cheap, keras.layers.DepthwiseConv2D)
    assert model.get_layer("stage1_block0_expand_concat").output.shape[-1] == 48


def test_the_second_module_and_the_shortcut_are_linear():
    model = build()
    assert "stage1_block0_expand_primary_act" in names(model)
    linear = ("_project_primary_act", "_project_cheap_act", "_depthwise_act", "_project_act")
    assert not any(name.endswith(linear) for name in names(model))


def test_the_depthwise_convolution_is_there_only_to_stride():
    depthwise = {name for name in names(build()) if name.endswith("_depthwise") and "shortcut" not in name}
    assert depthwise == {f"stage{s}_block0_depthwise" for s in (1, 2, 3, 4)}


def test_the_shortcut_is_convolved_where_shapes_change():
    shortcuts = {name for name in names(build()) if name.endswith("_shortcut_project")}
    blocks = ("stage1_block0", "stage2_block0", "stage3_block0", "stage3_block4", "stage4_block0")
    assert shortcuts == {f"{block}_shortcut_project" for block in blocks}
    assert build().get_layer("stage2_block0_shortcut_depthwise").kernel_size == (5, 5)


def test_squeeze_rounds_a_quarter_of_the_expanded_width_to_fours():
    reduces = [layer.filters for layer in build().layers if layer.name.endswith("_se_reduce")]
    assert reduces == [20, 32, 120, 168, 168, 240, 240]
    assert build().get_layer("stage2_block0_se_gate").activation is keras.activations.hard_sigmoid


@pytest.mark.parametrize(("variant", "stem", "last"), [("050", 8, 480), ("130", 20, 1248)])
def test_widths_round_to_fours_and_the_head_stays(variant, stem, last):
    model = build(variant)
    assert model.get_layer("stem").filters == stem
    assert model.get_layer("head_expand").filters == last
    assert model.get_layer("head").filters == 1280
    assert model.get_layer("head").use_bias
    assert "head_bn" not in names(model)


def test_odd_widths_of_ones_own():
    with pytest.raises(InvalidArgumentError, match="must be even. Received: channels=7"):
        ghost_module(keras.Input((8, 8, 4)), 7, name="ghost")
