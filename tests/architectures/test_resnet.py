import keras
import numpy as np

import keraslight

SHAPE = {"input_shape": (64, 64, 3), "classes": 10}


def test_stride_of_a_bottleneck_sits_on_its_3x3_convolution():
    model = keraslight.ResNet("50", **SHAPE)
    assert model.get_layer("stage1_block0_reduce").strides == (1, 1)
    assert model.get_layer("stage1_block0_spatial").strides == (2, 2)
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


def test_shortcuts_only_where_the_shape_changes():
    def shortcuts(variant):
        return [layer.name for layer in keraslight.ResNet(variant, **SHAPE).layers if layer.name.endswith("_shortcut")]

    assert shortcuts("18") == [f"stage{s}_block0_shortcut" for s in (1, 2, 3)]
    assert shortcuts("50") == [f"stage{s}_block0_shortcut" for s in (0, 1, 2, 3)]


def test_last_activation_comes_after_the_addition():
    model = keraslight.ResNet("18", **SHAPE)
    assert model.get_layer("stage0_block1_act").input is model.get_layer("stage0_block1_add").output
    assert "stage0_block1_conv2_act" not in {layer.name for layer in model.layers}


def test_drop_path_rises_over_the_blocks():
    model = keraslight.ResNet("18", drop_path=0.7, **SHAPE)
    rates = [layer.rate for layer in model.layers if type(layer).__name__ == "DropPath"]
    np.testing.assert_allclose(rates, np.arange(1, 8) / 10)


def test_features_of_open_sizes():
    model = keraslight.ResNet("18", input_shape=(None, None, 1), features_only=True)
    features = model(np.zeros((1, 65, 40, 1), "float32"))
    assert {key: tuple(map_.shape[1:]) for key, map_ in features.items()} == {
        "stride_2": (33, 20, 64),
        "stride_4": (17, 10, 64),
        "stride_8": (9, 5, 128),
        "stride_16": (5, 3, 256),
        "stride_32": (3, 2, 512),
    }
