"""Resizing to the size of another map."""

import keras
import numpy as np
import pytest

from keraslight.analysis import receptive_field
from keraslight.blocks.resize import resize_like, upsample
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ResizeLike

MAPS = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_it_is_keras_resizing_to_that_size(interpolation):
    like = np.zeros((2, 8, 13, 1), "float32")
    wanted = keras.layers.Resizing(8, 13, interpolation=interpolation)(MAPS)
    np.testing.assert_allclose(ResizeLike(interpolation)([MAPS, like]), wanted, atol=1e-6)


def test_bilinear_values_lie_between_pixel_centers():
    row = np.arange(2, dtype="float32").reshape(1, 1, 2, 1)
    (values,) = np.asarray(ResizeLike()([row, np.zeros((1, 1, 4, 1))])).reshape(1, 4)
    np.testing.assert_allclose(values, [0, 0.25, 0.75, 1])  # as torch's interpolate(align_corners=False)


def test_another_interpolation_is_an_error():
    with pytest.raises(InvalidArgumentError, match=r"`interpolation` must be one of .* Received: interpolation='area'"):
        ResizeLike("area")


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_upsampling_of_open_sizes_is_that_of_fixed_ones(interpolation):
    nets = []
    for shape in ((5, 6, 3), (None, None, 3)):
        x = keras.Input(shape)
        nets.append(keras.Model(x, upsample(x, 2, interpolation=interpolation, name="up")))
    np.testing.assert_allclose(nets[0](MAPS), nets[1](MAPS), atol=1e-6)


def test_fixed_sizes_need_no_layer_of_our_own():
    x = keras.Input((5, 6, 3))
    net = keras.Model(x, resize_like(x, keras.Input((10, 12, 1)), name="up"))
    assert isinstance(net.get_layer("up"), keras.layers.Resizing)


def test_the_receptive_field_is_followed_through_it():
    like = keras.Input((16, 16, 1))
    x = keras.layers.MaxPooling2D(2, name="pool")(like)
    y = ResizeLike(name="up")([x, like])
    fields = {field.name: field.size for field in receptive_field(keras.Model(like, y))}
    assert fields["up"] == (4, 4)  # two windows of the pooling
