"""Output strides: dilated backbones compute the same values as strided ones, at more places."""

import numpy as np
import pytest

import keraslight
from keraslight.blocks.stride import OutputStride
from keraslight.errors import InvalidArgumentError


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "mobilenet_v3_small_050", "resnet18"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_the_last_map_has_the_output_stride(name, output_stride):
    model = keraslight.create_model(name, input_shape=(64, 64, 3), include_top=False, output_stride=output_stride)
    assert model.output_shape[1:3] == (64 // output_stride,) * 2


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "mobilenet_v3_small_050", "resnet18"])
def test_weights_do_not_depend_on_the_output_stride(name):
    shapes = [
        [weight.shape for weight in keraslight.create_model(name, input_shape=(64, 64, 3), **more).weights]
        for more in ({}, {"output_stride": 8})
    ]
    assert shapes[0] == shapes[1]


def test_all_depthwise_convolutions_of_mobilenet_v3s_last_stage_are_dilated():
    model = keraslight.MobileNetV3("small_050", input_shape=(64, 64, 3), output_stride=16)
    rates = [model.get_layer(f"stage{s}_block{b}_depthwise").dilation_rate[0] for s, b in ((3, 1), (4, 0), (4, 1))]
    assert rates == [1, 2, 2]


def test_the_first_block_of_a_dilated_resnet_stage_keeps_the_dilation_before_it():
    model = keraslight.ResNet("50", input_shape=(64, 64, 3), output_stride=8)
    rates = [
        model.get_layer(f"stage{s}_block{b}_spatial").dilation_rate[0]
        for s, b in ((1, 3), (2, 0), (2, 1), (3, 0), (3, 1))
    ]
    assert rates == [1, 1, 2, 2, 4]


def test_dilation_gives_the_strided_values_at_every_second_place():
    """A convolution of stride 2 and one of stride 1 after it are one of stride 1 and a dilated one."""
    import keras

    from keraslight.blocks.inverted_residual import inverted_residual

    x = keras.Input((16, 16, 8))
    nets = []
    for stride, dilation in ((2, 1), (1, 2)):
        y = inverted_residual(x, 12, expanded=16, stride=stride, name="a")
        y = inverted_residual(y, 12, expanded=24, dilation=dilation, name="b")
        nets.append(keras.Model(x, y))
    nets[1].set_weights(nets[0].get_weights())
    maps = np.random.default_rng(0).normal(size=(1, 16, 16, 8)).astype("float32")
    strided, dilated = (np.asarray(net(maps)) for net in nets)
    # Inside: at the right and lower border the dilated kernel sees a map where the strided one sees padding.
    np.testing.assert_allclose(dilated[:, ::2, ::2][:, :-1, :-1], strided[:, :-1, :-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("output_stride", [4, 12, 64])
def test_other_output_strides_are_an_error(output_stride):
    with pytest.raises(InvalidArgumentError, match=r"`output_stride` must be one of \(8, 16, 32\). Received: "):
        OutputStride(output_stride, 2)


def test_a_reduced_tail_halves_the_last_stage_but_not_its_first_expansion():
    model = keraslight.MobileNetV3("large_100", input_shape=(64, 64, 3), reduced_tail=True, include_top=False)
    widths = [model.get_layer(f"stage5_block{b}_{part}").filters for b in range(3) for part in ("expand", "project")]
    assert widths == [672, 80, 480, 80, 480, 80]
    assert model.output_shape[-1] == 480
