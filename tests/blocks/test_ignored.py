"""Arguments that a builder would ignore, and typos in them, are refused; and convolutions give the sides they state."""

import keras
import numpy as np
import pytest

import keraslight
from keraslight.architectures.mobilenet_v4 import UIB, Conv
from keraslight.blocks import PLAIN, TENSORFLOW, TORCH, conv, conv_bn, depthwise_bn
from keraslight.errors import InvalidArgumentError

NO_TOP, FEATURES = {"include_top": False}, {"features_only": True}
IGNORED = "is for models with a top. Received: "


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pooling": "mean"}, "`pooling` must be one of .* Received: 'mean'"),
        ({"pooling": "avg"}, "`pooling` is for models without a top.* Received: pooling='avg', include_top=True"),
        ({"pooling": "max", **FEATURES}, "`pooling` is for models without a top.* features_only=True"),
        ({"pooling": "Max", **NO_TOP}, "`pooling` must be one of"),
        ({"pooling": "", **FEATURES}, "`pooling` must be one of"),
        ({"dropout": 7, **NO_TOP}, r"`dropout` must be in \[0, 1\). Received: dropout=7"),
        ({"dropout": -0.1, **FEATURES}, r"`dropout` must be in \[0, 1\)"),
        ({"dropout": 0.2, **NO_TOP}, f"`dropout` {IGNORED}dropout, with include_top=False"),
        ({"dropout": 0.2, **FEATURES}, f"`dropout` {IGNORED}dropout, with include_top=True, features_only=True"),
        ({"classes": 0, **NO_TOP}, "`classes` must be at least 1. Received: classes=0"),
        ({"classes": 2.5}, "`classes` must be at least 1. Received: classes=2.5, which is not"),
        ({"classes": 10, **NO_TOP}, f"`classes` {IGNORED}classes,"),
        ({"classes": 10, "dropout": 0.1, **FEATURES}, f"`classes` {IGNORED}classes, dropout,"),
        ({"classifier_activation": "sofmax"}, "`activation` must be None or one of .* Received: 'sofmax'"),
        ({"classifier_activation": "sofmax", **NO_TOP}, "`activation` must be None or one of"),
        ({"classifier_activation": "sigmoid", **NO_TOP}, f"`classifier_activation` {IGNORED}classifier_activation,"),
    ],
)
@pytest.mark.parametrize("name", ["mobilenet_v2_100", "squeezenet_1_1", "convnext_tiny"])
def test_arguments_without_effect_are_refused(name, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        keraslight.create_model(name, input_shape=(32, 32, 3), **arguments)


@pytest.mark.parametrize("arguments", [{}, {"pooling": "avg"}, {"dropout": 0.0}, {"classifier_activation": None}])
def test_what_changes_nothing_may_be_given(arguments):
    model = keraslight.SqueezeNet("1_1", width=0.25, input_shape=(32, 32, 3), include_top=False, **arguments)
    assert len(model.output_shape) == (2 if "pooling" in arguments else 4)


def test_the_familys_own_dropout_stays_the_default():
    for name, dropout in (("alexnet", {0.5}), ("resnet18", set())):
        model = keraslight.create_model(name, input_shape=(64, 64, 3), width=0.25)
        assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == dropout


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("kernel", [2, 4, 6])
def test_even_kernels_with_a_stride_and_symmetric_padding_are_refused(kernel, stride):
    x = keras.Input((8, 8, 3))
    for block in (
        lambda: conv(x, 4, kernel, stride=stride, name="it"),
        lambda: conv_bn(x, 4, kernel, stride=stride, style=PLAIN, name="it"),
        lambda: depthwise_bn(x, kernel, stride=stride, name="it"),
    ):
        text = f"`kernel` must be odd .* Received: kernel={kernel}, stride={stride}"
        with pytest.raises(InvalidArgumentError, match=text):
            block()


@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_maps_have_the_documented_sides(side, stride, kernel):
    x = keras.Input((side, side, 4))
    for style in (TORCH, TENSORFLOW):
        if kernel % 2 or stride == 1 or style is TENSORFLOW:
            for y in (
                conv_bn(x, 4, kernel, stride=stride, style=style, name="a"),
                depthwise_bn(x, kernel, stride=stride, style=style, name="b"),
            ):
                assert y.shape[1:3] == (-(-side // stride),) * 2


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_depthwise_convolutions_can_be_dilated(dilation):
    x = keras.Input((15, 15, 2))
    model = keras.Model(x, depthwise_bn(x, 3, dilation=dilation, style=PLAIN, name="it"))
    model.get_layer("it").set_weights([np.ones((3, 3, 2, 1)), np.zeros(2)])
    image = np.zeros((1, 15, 15, 2), "float32")
    image[0, 7, 7] = 1
    seen = np.argwhere(np.asarray(model(image))[0, :, :, 0])
    assert sorted(set(seen[:, 0])) == [7 - dilation, 7, 7 + dilation]
    with pytest.raises(InvalidArgumentError, match="can't both be above 1. Received: stride=2, dilation=2"):
        depthwise_bn(x, 3, stride=2, dilation=2, name="it")


@pytest.mark.parametrize("row", [(3, 32, 2), "conv", None])
def test_a_row_that_is_none(row):
    with pytest.raises(InvalidArgumentError, match="must be a Conv, Fused, UIB or MQA. Received: "):
        keraslight.MobileNetV4(stages=((row,), (UIB(3, 3, 2, 16, 2),), (Conv(1, 32),)), input_shape=(32, 32, 3))


def test_the_sample_network():
    """Stem 16; 16-24-40-80-112-160 with an expansion of 6; 960, then 1280."""
    model = keraslight.MobileNetV3("sample", input_shape=(64, 64, 3), weights=None)
    widths = [model.get_layer(f"stage{s}_block0_project").output.shape[1:] for s in range(6)]
    assert [shape[-1] for shape in widths] == [16, 24, 40, 80, 112, 160]
    assert [shape[0] for shape in widths] == [32, 16, 8, 4, 4, 2]
    before = [16, 16, 24, 40, 80, 112]
    assert [model.get_layer(f"stage{s}_block0_expand").filters for s in range(6)] == [6 * width for width in before]
    assert [model.get_layer(name).filters for name in ("stem", "head_expand", "head")] == [16, 960, 1280]


def test_compound_scaling_is_public():
    depth, width, size = keraslight.compound_scaling(1)
    assert (depth, width, size) == (1.2, 1.1, 258)
    small = keraslight.EfficientNet("b0", depth=depth, width=0.25 * width, input_shape=(32, 32, 3), classes=3)
    names = [layer.name for layer in small.layers]
    assert any(name.startswith("stage1_block2_") for name in names)  # ceil(1.2 * 2) blocks
    assert not any(name.startswith("stage1_block3_") for name in names)
