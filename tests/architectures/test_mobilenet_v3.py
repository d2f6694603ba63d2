import functools

import keras
import pytest

import keraslight
from keraslight.blocks.conv import TENSORFLOW
from tests.nets import of_top

MINIMALISTIC = {
    "large_minimalistic": (
        "16-16/1, 64-24/2, 72-24/1, 72-40/2, 120-40/1, 120-40/1, 240-80/2, 200-80/1, 184-80/1, 184-80/1, "
        "480-112/1, 672-112/1, 672-160/2, 960-160/1, 960-160/1"
    ),
    "small_minimalistic": (
        "16-16/2, 72-24/2, 88-24/1, 96-40/2, 240-40/1, 240-40/1, 120-48/1, 144-48/1, 288-96/2, 576-96/1, 576-96/1"
    ),
}
SMALL_SQUEEZED = [8, 24, 64, 64, 32, 40, 72, 144, 144]


@functools.cache  # only looked at
def build(variant, **arguments):
    return keraslight.MobileNetV3(variant, input_shape=(64, 64, 3), **of_top(arguments))


def order(model, *names):
    layers = [layer.name for layer in model.layers]
    return [layers.index(name) for name in names]


def test_squeeze_is_a_quarter_of_the_expanded_width_in_eights():
    model = build("small_100")
    reduces = [layer for layer in model.layers if layer.name.endswith("_se_reduce")]
    assert [layer.filters for layer in reduces] == SMALL_SQUEEZED
    assert all(layer.use_bias for layer in reduces)


def test_squeeze_stands_between_the_depthwise_activation_and_the_projection():
    model = build("large_100")
    block = "stage2_block0"
    parts = ("depthwise", "depthwise_bn", "depthwise_act", "se_reduce", "se_gate", "se_scale", "project")
    positions = order(model, *(f"{block}_{part}" for part in parts))
    assert positions == sorted(positions)
    assert model.get_layer(f"{block}_se_reduce_act").__class__ is keras.layers.ReLU
    assert model.get_layer(f"{block}_se_gate").activation is keras.activations.hard_sigmoid


@pytest.mark.parametrize(("variant", "first"), [("large_100", "stage3_block0"), ("small_100", "stage2_block0")])
def test_hard_swish_begins_in_the_deeper_half(variant, first):
    model = build(variant)
    blocks = [layer.name for layer in model.layers if layer.name.endswith("_depthwise_act")]
    start = blocks.index(f"{first}_depthwise_act")
    for i, name in enumerate(blocks):
        assert isinstance(model.get_layer(name), keras.layers.Activation) == (i >= start)
    assert model.get_layer("stem_act").activation is keras.activations.hard_silu


def test_the_head_has_a_biased_convolution_without_batch_norm_after_the_pooling():
    model = build("small_075")
    assert model.get_layer("head_expand").filters == 432
    assert model.get_layer("head").filters == 1024  # kept below width 1
    assert model.get_layer("head").use_bias
    assert model.get_layer("head").input.shape[1:3] == (1, 1)
    assert "head_bn" not in {layer.name for layer in model.layers}
    assert build("small_075", width=1.25).get_layer("head").filters == 1280


def test_the_stem_keeps_its_width_below_1():
    model = build("small_050")
    assert model.get_layer("stem").filters == 16
    assert model.get_layer("stage0_block0_project").filters == 8
    assert "stage0_block0_expand" not in {layer.name for layer in model.layers}


def test_expansion_counts_from_the_rounded_input():
    model = build("large_075")
    assert model.get_layer("stage3_block1_expand").filters == 160  # 2.5 * 64; rounding 0.75 * 200 would give 152


@pytest.mark.parametrize("variant", ["large_minimalistic", "small_minimalistic"])
def test_minimalistic_has_kernels_of_3_relu_and_no_squeeze(variant):
    model = build(variant)
    assert not any("_se_" in layer.name for layer in model.layers)
    assert {x.kernel_size for x in model.layers if isinstance(x, keras.layers.DepthwiseConv2D)} == {(3, 3)}
    rows = [  # expanded and output channels and stride, as printed in tables 1 and 2
        (model.get_layer(x.name.replace("_depthwise", "_project")), x)
        for x in model.layers
        if isinstance(x, keras.layers.DepthwiseConv2D)
    ]
    printed = ", ".join(f"{x.input.shape[-1]}-{project.filters}/{x.strides[0]}" for project, x in rows)
    assert printed == MINIMALISTIC[variant]
    activations = [layer.activation for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    assert activations == [keras.activations.softmax]


def test_checkpoints_bring_their_own_style():
    def stem(name):
        model = keraslight.create_model(name, input_shape=(32, 32, 3), features_only=True)
        return "stem_pad" in {layer.name for layer in model.layers}, model.get_layer("stem_bn").epsilon

    assert stem("mobilenet_v3_small_100") == (True, 1e-5)
    assert stem("torchvision/mobilenet_v3_small") == (True, 1e-3)
    assert stem("timm/tf_mobilenetv3_small_100") == (False, TENSORFLOW.epsilon)


def test_features_are_the_last_map_of_each_resolution():
    for variant, channels in (("large_100", [16, 24, 40, 112, 160]), ("small_100", [16, 16, 24, 48, 96])):
        assert [tensor.shape[-1] for tensor in build(variant, features_only=True).output.values()] == channels
