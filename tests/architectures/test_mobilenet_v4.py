import keras
import numpy as np
import pytest

import keraslight
from keraslight.analysis import count_parameters
from keraslight.errors import InvalidArgumentError


def layer_names(variant, **arguments):
    model = keraslight.MobileNetV4(variant, input_shape=(64, 64, 3), classes=10, **arguments)
    return [layer.name for layer in model.layers]


def test_the_four_forms_of_the_universal_block_by_their_layers():
    names = set(layer_names("conv_medium"))

    def parts(block):
        return {part for part in ("start", "expand", "depthwise", "project", "add") if f"{block}_{part}" in names}

    assert parts("stage1_block0") == {"start", "expand", "depthwise", "project"}  # ExtraDW, stride 2
    assert parts("stage1_block1") == {"start", "expand", "depthwise", "project", "add"}
    assert parts("stage2_block5") == {"start", "expand", "project", "add"}  # ConvNeXt-like
    assert parts("stage2_block6") == {"expand", "project", "add"}  # FFN
    assert parts("stage0_block0") == {"expand", "project"}  # fused
    small = set(layer_names("conv_small"))
    assert {"stage2_block1_depthwise"} <= small
    assert "stage2_block1_start" not in small  # IB


def test_stride_sits_on_the_middle_convolution():
    model = keraslight.MobileNetV4("conv_small", input_shape=(64, 64, 3))
    assert model.get_layer("stage2_block0_start").strides == (1, 1)
    assert model.get_layer("stage2_block0_depthwise").strides == (2, 2)


def test_layer_scale_only_in_hybrids_and_also_without_residual():
    assert not any("layer_scale" in name for name in layer_names("conv_medium"))
    hybrid = layer_names("hybrid_medium")
    assert "stage1_block0_layer_scale" in hybrid  # stride 2: no residual
    assert "stage1_block0_add" not in hybrid
    assert "stage0_block0_layer_scale" not in hybrid  # fused


@pytest.mark.parametrize(
    ("variant", "width", "size", "parameters"),
    [
        ("conv_small", 0.5, 224, 2_238_952),
        ("conv_small", 0.35, 224, 1_905_384),
        ("hybrid_medium", 0.75, 224, 7_313_528),
        ("hybrid_large", 0.75, 256, 22_754_984),
    ],
)
def test_narrow_nets_have_the_parameters_of_timms(variant, width, size, parameters):
    """timm 1.0.31: mobilenetv4_conv_small_050 and so on."""
    model = keraslight.MobileNetV4(variant, width=width, input_shape=(size, size, 3))
    assert count_parameters(model) == parameters


def test_drop_path_rises_over_the_blocks():
    model = keraslight.MobileNetV4("conv_small", input_shape=(32, 32, 3), drop_path=0.3)
    rates = [layer.rate for layer in model.layers if type(layer).__name__ == "DropPath"]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)
    assert rates[0] > 0


def test_open_image_size_without_attention_only():
    model = keraslight.MobileNetV4("conv_small", input_shape=(None, None, 3), classes=4)
    for shape in ((1, 32, 32, 3), (1, 65, 40, 3)):
        assert model(np.zeros(shape, "float32")).shape == (1, 4)
    with pytest.raises(InvalidArgumentError, match="Mobile MQA needs a fixed image size"):
        keraslight.MobileNetV4("hybrid_medium", input_shape=(None, 64, 3))


def test_trains_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keraslight.MobileNetV4("hybrid_medium", input_shape=(32, 32, 1), classes=3, drop_path=0.1)
    finally:
        keras.config.set_dtype_policy(before)
    # Eagerly: tracing takes longer than a single step.
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    loss = model.train_on_batch(np.ones((4, 32, 32, 1), "float32"), np.array([0, 1, 2, 0]))
    assert np.isfinite(loss)


def test_bad_stride_in_a_row_of_ones_own():
    from keraslight.architectures.mobilenet_v4 import UIB, Conv

    with pytest.raises(
        InvalidArgumentError, match="needs a depthwise convolution. Received: stride=2, start=0, middle=0"
    ):
        keraslight.MobileNetV4("conv_small", stages=((UIB(0, 0, 2, 16, 2),), (Conv(1, 960),)), input_shape=(32, 32, 3))
