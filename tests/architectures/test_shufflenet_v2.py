import keras
import numpy as np
import pytest

import keraslight
from keraslight.blocks.shuffle import channel_shuffle
from keraslight.errors import InvalidArgumentError


def build(variant, **arguments):
    return keraslight.ShuffleNetV2(variant, **{"input_shape": (64, 64, 3), "classes": 10, **arguments})


def test_channel_shuffle_and_its_inverse():
    images = keras.Input((2, 3, 6))
    mixed = channel_shuffle(images, 2, name="shuffle")
    model = keras.Model(images, [mixed, channel_shuffle(mixed, 3, name="back")])
    x = np.arange(36, dtype="float32").reshape(1, 2, 3, 6)
    shuffled, again = model(x)
    np.testing.assert_array_equal(np.asarray(shuffled), x[..., [0, 3, 1, 4, 2, 5]])
    np.testing.assert_array_equal(np.asarray(again), x)


def test_channel_shuffle_rules():
    with pytest.raises(InvalidArgumentError, match="`groups` must divide the channels. Received: groups=4, 6 channels"):
        channel_shuffle(keras.Input((2, 3, 6)), 4, name="shuffle")
    with pytest.raises(InvalidArgumentError, match="needs a known height or width"):
        build("100", input_shape=(None, None, 3))


def test_one_open_side():
    model = build("050", input_shape=(None, 48, 3))
    for height in (32, 65):
        assert model(np.zeros((1, height, 48, 3), "float32")).shape == (1, 10)


def test_both_branches_of_a_downsampling_unit_give_half():
    model = build("100")
    assert model.get_layer("stage0_block0_shortcut").filters == 58  # the authors' code keeps the input's 24 here
    assert model.get_layer("stage0_block0_project").filters == 58
    assert model.get_layer("stage0_block1_keep").output.shape[-1] == 58
    names = [layer.name for layer in model.layers]
    assert names.index("stage0_block1_concat") < names.index("stage0_block1_shuffle_permute")
    assert not any(name.endswith("depthwise_act") for name in names)


def test_the_authors_units_shuffle_first_and_keep_the_shortcut():
    model = build("100_megvii")
    assert model.get_layer("stage0_block0_shortcut").filters == 24
    assert model.get_layer("stage0_block0_project").filters == 92
    assert model.get_layer("stage0_block1_keep").get_config()["step"] == 2
    assert not any("shuffle" in layer.name for layer in model.layers)
    assert not model.get_layer("classifier").use_bias
    with pytest.raises(
        InvalidArgumentError, match="more channels than its shortcut keeps. Received: 16 channels, 24 kept"
    ):
        build("050_megvii", width=0.3)


def test_units_a_stage():
    names = [layer.name for layer in build("200").layers]
    assert [sum(n.startswith(f"stage{s}") and n.endswith("_concat") for n in names) for s in range(3)] == [4, 8, 4]
    assert build("200").get_layer("head").filters == 2048
