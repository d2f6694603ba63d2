import pytest

import keraslight
from keraslight.layers import GroupedConv2D


def build(variant, **arguments):
    return keraslight.ShuffleNetV1(variant, **{"input_shape": (64, 64, 3), "classes": 10, **arguments})


def test_the_first_reduction_sees_whole_channels_and_is_shuffled():
    model = build("g3_100")
    assert not isinstance(model.get_layer("stage0_block0_reduce"), GroupedConv2D)
    assert model.get_layer("stage0_block0_expand").groups == 3
    assert model.get_layer("stage0_block1_reduce").groups == 3
    assert model.get_layer("stage1_block0_reduce").groups == 3
    names = [layer.name for layer in model.layers]
    assert names.index("stage0_block0_depthwise_bn") < names.index("stage0_block0_shuffle_split")
    assert "stage0_block0_depthwise_act" not in names


def test_one_group_needs_neither_shuffle_nor_grouped_convolutions():
    model = build("g1_100")
    assert not any(isinstance(layer, GroupedConv2D) or "shuffle" in layer.name for layer in model.layers)


@pytest.mark.parametrize(
    ("variant", "stem", "channels"), [("g3_050", 12, 480), ("g8_050", 16, 768), ("g3_200", 48, 1920)]
)
def test_widths_of_the_authors_code(variant, stem, channels):
    model = build(variant)
    assert model.get_layer("stem").filters == stem
    assert model.get_layer("pool").input.shape[-1] == channels
    assert not model.get_layer("classifier").use_bias


def test_strided_unit_puts_the_pooled_input_first():
    model = build("g8_100")
    parts = model.get_layer("stage0_block0_concat").input
    assert [part.shape[-1] for part in parts] == [24, 384 - 24]
    assert model.get_layer("stage0_block0_act").input is model.get_layer("stage0_block0_expand_bn").output
    assert model.get_layer("stage0_block1_act").input is model.get_layer("stage0_block1_add").output


def test_scales_that_the_groups_do_not_divide_are_left_out():
    names = keraslight.list_models("shufflenet_v1_*")
    assert len(names) == 19
    assert "shufflenet_v1_g2_050" not in names
