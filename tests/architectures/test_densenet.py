import keras
import numpy as np
import pytest

import keraslight
from tests.nets import of_top


def build(variant, **arguments):
    return keraslight.DenseNet(variant, **{"input_shape": (64, 64, 3), **of_top(arguments)})


def test_norm_and_relu_come_before_each_convolution():
    model = build("121")
    inner = model.get_layer("stage0_block1_reduce").input
    assert inner is model.get_layer("stage0_block1_norm_act").output
    assert model.get_layer("stage0_block1_grow").input is model.get_layer("stage0_block1_reduce_act").output
    assert model.get_layer("stage0_block1_concat").input[0] is model.get_layer("stage0_block0_concat").output
    assert model.get_layer("pool").input is model.get_layer("head_norm_act").output


def test_growth_and_stem():
    model = build("161", include_top=False)
    assert model.get_layer("stem").filters == 96
    assert {layer.filters for layer in model.layers if layer.name.endswith("_grow")} == {48}
    assert model.get_layer("stage1_transition").filters == (96 + 6 * 48) // 2
    assert model.output.shape[-1] == 2208


@pytest.mark.parametrize(
    ("variant", "repeats"), [pytest.param("201", [6, 12, 48, 32], marks=pytest.mark.slow), ("264", [6, 12, 64, 48])]
)
def test_blocks_have_the_layers_of_table_1(variant, repeats):
    """Table 1 of https://arxiv.org/abs/1608.06993; growth 32, bottlenecks of 4 x 32, transitions that halve."""
    model = build(variant)
    grown = [layer for layer in model.layers if layer.name.endswith("_grow")]
    assert [sum(x.name.startswith(f"stage{s}_") for x in grown) for s in range(4)] == repeats
    assert {(x.filters, x.kernel_size) for x in grown} == {(32, (3, 3))}
    reduced = [layer for layer in model.layers if layer.name.endswith("_reduce")]
    assert {(x.filters, x.kernel_size) for x in reduced} == {(128, (1, 1))}
    channels = 64
    for s, count in enumerate(repeats[:3], start=1):
        channels = (channels + 32 * count) // 2
        assert model.get_layer(f"stage{s}_transition").filters == channels


def test_layers_in_the_name_are_convolutions_and_the_classifier():
    for layers in (121, 169):  # the paper's 264 has 265
        model = build(str(layers))
        assert sum(isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) for layer in model.layers) == layers


def test_transitions_round_odd_sides_down():
    features = build("121", input_shape=(117, 150, 3), features_only=True).output
    assert [tuple(x.shape[1:3]) for x in features.values()] == [(59, 75), (30, 38), (15, 19), (7, 9), (3, 4)]


def test_open_image_size():
    model = build("121", input_shape=(None, None, 1))
    for shape in ((1, 32, 32, 1), (1, 65, 40, 1)):
        assert model(np.zeros(shape, "float32")).shape == (1, 10)
