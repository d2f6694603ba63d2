import keras
import pytest

import keraslight
from keraslight.blocks.conv import make_divisible
from tests.nets import of_top


def net(variant="b0", **arguments):
    return keraslight.EfficientNetV2(variant, **{"input_shape": (32, 32, 3), **of_top(arguments)})


def parts(model, block):
    names = {layer.name for layer in model.layers}
    kinds = ("conv", "expand", "depthwise", "se_reduce", "project", "add")
    return [part for part in kinds if f"{block}_{part}" in names]


def test_the_three_forms_of_blocks():
    model = net("s", features_only=True)
    assert parts(model, "stage0_block0") == ["conv", "add"]  # expansion 1: no projection
    assert model.get_layer("stage0_block0_conv").kernel_size == (3, 3)
    assert "stage0_block0_conv_act" in [layer.name for layer in model.layers]
    assert parts(model, "stage1_block1") == ["expand", "project", "add"]  # no squeeze-and-excitation
    assert model.get_layer("stage1_block1_expand").kernel_size == (3, 3)
    assert parts(model, "stage3_block1") == ["expand", "depthwise", "se_reduce", "project", "add"]


def test_squeeze_is_a_quarter_of_the_blocks_input():
    model = net()
    assert model.get_layer("stage3_block0_se_reduce").filters == 12  # of 48
    assert model.get_layer("stage3_block1_se_reduce").filters == 24  # of 96


def test_channels_are_rounded_without_a_guard():
    assert make_divisible(16 * 1.2) == 24  # EfficientNet's rule
    model = net("b3", features_only=True)
    assert model.get_layer("stage0_block0_conv").filters == 16
    assert model.get_layer("stem").filters == 40


def test_depth_of_the_base_nets_and_stages_of_the_others():
    def counts(variant):
        names = [layer.name for layer in net(variant, features_only=True).layers]
        ends = ("_project", "_conv")
        return [sum(n.startswith(f"stage{s}_") and n.endswith(ends) for n in names) for s in range(7)]

    assert counts("b3") == [2, 3, 3, 5, 7, 12, 0]
    assert counts("s") == [2, 4, 4, 6, 9, 15, 0]


def test_padding_by_source():
    google = keraslight.create_model("efficientnet_v2_b0", input_shape=(32, 32, 3))
    assert not any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in google.layers)
    torch = keraslight.create_model("torchvision/efficientnet_v2_s", input_shape=(32, 32, 3), features_only=True)
    assert torch.get_layer("stem_pad").padding == ((1, 1), (1, 1))
    for model in (google, torch):
        assert model.get_layer("stem_bn").epsilon == 1e-3
        assert model.get_layer("stem_bn").momentum == 0.9


def test_preprocessing_differs_between_base_and_larger_nets():
    assert keraslight.model_info("efficientnet_v2_b0").preprocessing.mean == (0.485, 0.456, 0.406)
    for name in ("efficientnet_v2_s", "efficientnet_v2_xl", "torchvision/efficientnet_v2_l"):
        assert keraslight.model_info(name).preprocessing.mean == (0.5, 0.5, 0.5)
    assert keraslight.model_info("torchvision/efficientnet_v2_m").preprocessing.mean == (0.485, 0.456, 0.406)


def test_drop_path_rises_by_the_share_of_all_blocks():
    model = net(drop_path=0.2, features_only=True)  # 21 blocks
    assert model.get_layer("stage1_block1_drop_path").rate == pytest.approx(0.2 * 2 / 21)
    assert model.get_layer("stage5_block7_drop_path").rate == pytest.approx(0.2 * 20 / 21)
