import keras
import pytest

import keraslight
from keraslight.blocks.shuffle import shuffle_plus_unit
from keraslight.errors import InvalidArgumentError


def build(variant, **arguments):
    return keraslight.ShuffleNetV2Plus(variant, **{"input_shape": (64, 64, 3), "classes": 10, **arguments})


def test_searched_kernels_by_their_layers():
    model = build("small")
    kernels = [
        layer.kernel_size[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.name.endswith("_depthwise")
        if "shortcut" not in layer.name
    ]
    assert kernels == [3, 3, 5, 5, 5, 3, 3, 7, 3, 7, 5, 5, 3, 7, 3, 7, 5, 7]
    names = {layer.name for layer in model.layers}
    assert {"stage0_block2_pointwise2", "stage3_block2_depthwise2"} <= names  # the Xception form
    assert model.get_layer("stage2_block0_shortcut_depthwise").kernel_size == (7, 7)


def test_shortcut_takes_the_even_channels():
    model = build("small")
    keep, take = (model.get_layer(f"stage0_block1_{part}") for part in ("keep", "take"))
    assert (keep.start, keep.step, take.start, take.step) == (0, 2, 1, 2)
    assert [t.shape[-1] for t in model.get_layer("stage1_block0_concat").input] == [36, 104 - 36]
    assert not any("shuffle" in layer.name for layer in model.layers)


def test_attention_in_the_last_two_stages_and_after_the_pool():
    model = build("small")
    scales = [layer.name for layer in model.layers if layer.name.endswith("_se_scale")]
    assert len(scales) == 13
    assert not any(name.startswith(("stage0", "stage1")) for name in scales)
    assert model.get_layer("stage2_block0_se_reduce").filters == (208 - 104) // 4
    assert model.get_layer("head_se_mean").input is model.get_layer("pool").output
    assert "stage2_block0_se_reduce_bn" in {layer.name for layer in model.layers}


def test_no_bias_anywhere():
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    assert not any(layer.use_bias for layer in build("large").layers if isinstance(layer, kinds))


def test_xception_form_has_stride_1():
    with pytest.raises(InvalidArgumentError, match="The Xception form needs stride 1. Received: stride=2"):
        shuffle_plus_unit(
            keras.Input((8, 8, 8)), 16, kernel=None, stride=2, activation="relu", attention=False, name="unit"
        )
