import keras
import pytest

import keraslight
from keraslight.analysis import count_parameters

SMALL = {"input_shape": (64, 64, 3), "width": 0.25, "classes": 10}


def layer_names(variant, **arguments):
    return {layer.name for layer in keraslight.RepVGG(variant, **SMALL, **arguments).layers}


def test_identity_branch_only_where_the_shape_stays_and_is_a_batch_norm():
    model = keraslight.RepVGG("a0", **SMALL)
    names = {layer.name for layer in model.layers if layer.name.endswith("_identity_bn")}
    assert "stage0_block0_identity_bn" not in names
    assert "stem_identity_bn" not in names
    assert len(names) == 1 + 3 + 13
    assert model.get_layer("stage0_block1_identity_bn").input is model.get_layer("stage0_block0_act").output


@pytest.mark.parametrize(("variant", "groups"), [("b1g2", 2), ("b3g4", 4)])
def test_every_second_layer_is_grouped(variant, groups):
    model = keraslight.RepVGG(variant, **SMALL)
    blocks = ["stem", *(f"stage{s}_block{b}" for s, n in enumerate((4, 6, 16, 1)) for b in range(n))]
    for index, block in enumerate(blocks):
        for part in ("conv", "point"):
            assert model.get_layer(f"{block}_{part}").groups == (groups if index % 2 == 0 and index else 1), block


def test_gate_comes_after_the_sum_and_before_the_activation():
    model = keraslight.RepVGG("d2se", **SMALL)
    assert model.get_layer("stage0_block1_se_mean").input is model.get_layer("stage0_block1_add_identity").output
    assert model.get_layer("stage0_block1_act").input is model.get_layer("stage0_block1_se_scale").output
    assert model.get_layer("stem_se_reduce").filters == 2  # a sixteenth of 40 channels, rounded down
    assert "stem_se_mean" not in layer_names("b2")


def test_stem_has_at_most_64_channels():
    stems = [keraslight.RepVGG(v, input_shape=(32, 32, 3)).get_layer("stem_conv").filters for v in ("a0", "a2")]
    assert stems == [48, 64]


@pytest.mark.parametrize(
    ("variant", "parameters"), [("a0", 8_309_384), ("a2", 25_499_944), ("b1g2", 41_360_104), ("b1g4", 36_125_416)]
)
def test_deploy_form_is_one_convolution_a_block(variant, parameters):
    model = keraslight.RepVGG(variant, deploy=True)
    assert count_parameters(model) == parameters
    kinds = {type(layer).__name__ for layer in model.layers} - {"InputLayer", "GroupedConv2D"}
    assert kinds == {"Conv2D", "ReLU", "ZeroPadding2D", "GlobalAveragePooling2D", "Dense", "Activation"}
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
