import functools

import keras
import pytest

import keraslight
from tests.nets import of_top


@functools.cache  # only looked at
def build(variant="100", **arguments):
    return keraslight.MobileNetV2(variant, input_shape=(64, 64, 3), **of_top(arguments))


def test_the_first_block_has_no_expansion_and_projections_are_linear():
    names = {layer.name for layer in build().layers}
    assert "stage0_block0_expand" not in names
    assert {"stage0_block0_depthwise", "stage1_block0_expand"} <= names
    assert not any(name.endswith("project_act") for name in names)


def test_residuals_only_where_stride_and_channels_stay():
    adds = {layer.name.removesuffix("_add") for layer in build().layers if isinstance(layer, keras.layers.Add)}
    repeats = (1, 2, 3, 4, 3, 3, 1)
    assert adds == {f"stage{s}_block{b}" for s, n in enumerate(repeats) for b in range(1, n)}


@pytest.mark.parametrize(
    ("variant", "stem", "head"), [("035", 16, 1280), ("100", 32, 1280), ("130", 40, 1664), ("140", 48, 1792)]
)
def test_the_head_grows_with_the_width_and_never_shrinks(variant, stem, head):
    model = build(variant)
    assert model.get_layer("stem").filters == stem
    assert model.get_layer("head").filters == head


def test_widths_round_to_eights_but_not_below_nine_tenths():
    model = build(width=0.35)
    assert model.get_layer("stage0_block0_project").filters == 8  # 5.6
    assert model.get_layer("stage3_block0_project").filters == 24  # 22.4
    assert model.get_layer("stage4_block0_project").filters == 32  # 33.6
    assert model.get_layer("stage6_block0_project").filters == 112


def test_drop_path_rises_to_its_value_at_the_last_block():
    rates = [layer.rate for layer in build(drop_path=0.16).layers if type(layer).__name__ == "DropPath"]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.15)  # block 15 of 0 to 16; the last has no residual


def test_features_are_the_last_map_of_each_resolution():
    features = build(features_only=True).output
    assert [tensor.shape[-1] for tensor in features.values()] == [16, 24, 32, 96, 320]
