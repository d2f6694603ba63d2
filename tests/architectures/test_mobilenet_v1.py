import keras
import pytest

import keraslight
from keraslight.blocks.conv import TENSORFLOW


def test_only_the_stem_and_four_depthwise_convolutions_stride():
    model = keraslight.MobileNetV1("025", input_shape=(64, 64, 3), classes=10)
    strided = [layer.name for layer in model.layers if getattr(layer, "strides", (1, 1)) == (2, 2)]
    assert strided == ["stem", *(f"stage{s}_block0_depthwise" for s in (1, 2, 3, 4))]
    assert model.get_layer("stage4_block1_depthwise").strides == (1, 1)  # table 1 prints 2


def test_both_convolutions_of_a_block_have_batch_norm_and_relu6():
    model = keraslight.MobileNetV1("025", input_shape=(32, 32, 3))
    convs = [layer for layer in model.layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))]
    assert len(convs) == 1 + 2 * 13
    for conv in convs:
        assert not conv.use_bias
        assert model.get_layer(f"{conv.name}_bn").epsilon == 1e-5
        assert model.get_layer(f"{conv.name}_act").max_value == 6
    assert not any(isinstance(layer, keras.layers.Add) for layer in model.layers)


@pytest.mark.parametrize(("width", "channels"), [(0.25, (8, 16, 256)), (1.25, (40, 80, 1280))])
def test_width_scales_the_stem_too(width, channels):
    model = keraslight.MobileNetV1(width=width, input_shape=(32, 32, 3))
    names = ("stem", "stage0_block0_pointwise", "stage4_block1_pointwise")
    assert tuple(model.get_layer(name).filters for name in names) == channels


def test_tensorflow_style_pads_in_the_convolution():
    names = [layer.name for layer in keraslight.MobileNetV1(style=TENSORFLOW, input_shape=(33, 50, 1)).layers]
    assert not any(name.endswith("_pad") for name in names)
    model = keraslight.MobileNetV1(style=TENSORFLOW, input_shape=(33, 50, 1), features_only=True)
    assert model.get_layer("stem_bn").epsilon == 1e-3
    assert model.output["stride_32"].shape[1:3] == (2, 2)
