import keras
import pytest

import keraslight
from keraslight.architectures.efficientnet import compound_scaling
from keraslight.blocks.conv import TORCH
from keraslight.errors import InvalidArgumentError
from tests.nets import of_top


def layer_names(variant="b0", **arguments):
    model = keraslight.EfficientNet(variant, **{"input_shape": (64, 64, 3), **of_top(arguments)})
    return [layer.name for layer in model.layers]


def test_squeeze_is_a_quarter_of_the_blocks_input_unrounded():
    model = keraslight.EfficientNet("b0", input_shape=(32, 32, 3))
    squeezed = [model.get_layer(f"stage{s}_block0_se_reduce").filters for s in range(7)]
    assert squeezed == [8, 4, 6, 10, 20, 28, 48]
    assert model.get_layer("stage1_block0_se_reduce_act").activation is keras.activations.silu
    assert model.get_layer("stage1_block0_se_gate").activation is keras.activations.sigmoid


def test_first_stage_has_no_expansion():
    names = set(layer_names())
    assert "stage0_block0_expand" not in names
    assert "stage1_block0_expand" in names


def test_repeats_are_rounded_up():
    names = layer_names("b3", features_only=True)  # depth 1.4: ceil of 1.4, 2.8, 2.8, 4.2, 4.2, 5.6, 1.4
    counts = [sum(name.startswith(f"stage{s}_") and name.endswith("_depthwise") for name in names) for s in range(7)]
    assert counts == [2, 3, 3, 5, 5, 6, 2]


def test_padding_and_epsilon_by_source():
    default = keraslight.create_model("efficientnet_b0", input_shape=(32, 32, 3))
    google = keraslight.create_model("timm/tf_efficientnet_b0", input_shape=(32, 32, 3))
    for model in (default, google):
        assert not any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in model.layers)
        assert model.get_layer("head_bn").epsilon == 1e-3
        assert model.get_layer("head_bn").momentum == 0.99
    torch = keraslight.create_model("torchvision/efficientnet_b0", input_shape=(32, 32, 3))
    assert torch.get_layer("stem_pad").padding == ((1, 1), (1, 1))
    assert torch.get_layer("stage2_block0_depthwise_pad").padding == ((2, 2), (2, 2))
    assert torch.get_layer("head_bn").epsilon == 1e-5


def test_torchvisions_large_nets_keep_tensorflows_epsilon():
    from keraslight.weights import CHECKPOINTS

    styles = [CHECKPOINTS[f"torchvision/efficientnet_b{i}"].arguments["style"] for i in range(8)]
    assert [style.epsilon for style in styles] == 5 * [1e-5] + 3 * [1e-3]
    assert [style.momentum for style in styles] == 5 * [0.9] + 3 * [0.99]
    assert {style.padding for style in styles} == {"symmetric"}


def test_drop_path_rises_by_the_share_of_all_blocks():
    model = keraslight.EfficientNet("b0", input_shape=(32, 32, 3), drop_path=0.2, style=TORCH)
    assert model.get_layer("stage1_block1_drop_path").rate == pytest.approx(0.2 * 2 / 16)
    assert model.get_layer("stage5_block3_drop_path").rate == pytest.approx(0.2 * 14 / 16)


class TestCompoundScaling:
    def test_powers_of_the_coefficients(self):
        assert compound_scaling(0) == (1, 1, 224)
        depth, width, size = compound_scaling(2, alpha=1.5, beta=1.25, gamma=1.2, base_size=100)
        assert (depth, width, size) == (2.25, 1.5625, 144)

    def test_builds_a_net(self):
        scaling = compound_scaling(1)  # B2 without the released code's rounding of 257.6 to 260
        assert (round(scaling.depth, 6), round(scaling.width, 6), scaling.size) == (1.2, 1.1, 258)
        net = keraslight.EfficientNet(
            depth=scaling.depth, width=scaling.width, input_shape=(scaling.size, scaling.size, 3)
        )
        assert net.count_params() == keraslight.EfficientNet("b2").count_params()
        assert net.input_shape == (None, 258, 258, 3)

    def test_coefficients_below_one(self):
        with pytest.raises(InvalidArgumentError, match="must be at least 1. Received: alpha=0.9, beta=1.1, gamma=1.15"):
            compound_scaling(1, alpha=0.9)
