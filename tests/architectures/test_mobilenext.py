import functools

import keras
import pytest

import keraslight
from keraslight.architectures.mobilenext import STAGES


@functools.cache  # only looked at
def build(variant="100", **arguments):
    return keraslight.MobileNeXt(variant, input_shape=(64, 64, 3), classes=10, **arguments)


def parts(model, block):
    names = {layer.name for layer in model.layers}
    return {part for part in ("depthwise", "reduce", "expand", "depthwise_out", "add") if f"{block}_{part}" in names}


def test_changing_blocks_lose_depthwise_convolutions():
    model = build()
    assert parts(model, "stage2_block1") == {"depthwise", "reduce", "expand", "depthwise_out", "add"}
    assert parts(model, "stage2_block0") == {"reduce", "expand", "depthwise_out"}  # stride 2
    assert parts(model, "stage4_block0") == {"reduce", "expand"}  # only channels change
    for single in ("stage0_block0", "stage1_block0", "stage7_block0"):
        assert parts(model, single) == {"depthwise", "reduce", "expand", "depthwise_out"}


def test_the_last_depthwise_convolution_strides_and_is_linear():
    model = build()
    strided = [layer.name for layer in model.layers if getattr(layer, "strides", (1, 1)) == (2, 2)]
    assert strided == ["stem", *(f"stage{s}_block0_depthwise_out" for s in (0, 2, 3, 5))]
    names = {layer.name for layer in model.layers}
    assert {"stage0_block0_depthwise_act", "stage0_block0_expand_act"} <= names
    assert not any(name.endswith(("_reduce_act", "_depthwise_out_act")) for name in names)


@pytest.mark.parametrize(
    ("variant", "waists"),
    [
        ("100", "16 32 32 32 32 48 48 48 64 64 64 64 96 96 96 96 160 160 160 208"),
        ("075", "12 32 32 24 24 48 36 36 48 48 48 48 80 72 72 72 128 120 120 208"),
    ],
)
def test_the_waist_is_at_least_a_sixth_of_the_output(variant, waists):
    model = build(variant)
    reduces = [layer.filters for layer in model.layers if layer.name.endswith("_reduce")]
    assert reduces == [int(number) for number in waists.split()]


@pytest.mark.parametrize(("variant", "last"), [("035", 1280), ("140", 1792)])
def test_the_last_block_grows_with_the_width_and_never_shrinks(variant, last):
    model = build(variant)
    assert model.get_layer("stage7_block0_expand").filters == last
    assert model.get_layer("pool").input.shape[-1] == last  # no convolution after the blocks


def test_the_identity_connects_the_wide_ends():
    adds = [layer for layer in build().layers if isinstance(layer, keras.layers.Add)]
    assert len(adds) == sum(row.repeats - 1 for row in STAGES)
    assert {layer.output.shape[-1] for layer in adds} == {192, 288, 384, 576, 960}
