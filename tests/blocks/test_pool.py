import keras
import numpy as np
import pytest

from keraslight.blocks.conv import ConvStyle
from keraslight.blocks.pool import max_pool, max_pool_ceil


def pooled(function, side, kernel, **arguments):
    images = keras.Input((None, None, 1))
    model = keras.Model(images, function(images, kernel, name="pool", **arguments))
    ramp = np.arange(side * side, dtype="float32").reshape(1, side, side, 1)
    return np.asarray(model(ramp))[0, :, :, 0], ramp[0, :, :, 0]


@pytest.mark.parametrize("side", [5, 6, 7, 8, 9, 12, 13])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 3)])
def test_ceil_mode_keeps_the_window_that_hangs_over(side, kernel, stride):
    result, ramp = pooled(max_pool_ceil, side, kernel, stride=stride)
    starts = range(0, -(-(side - kernel) // stride) * stride + 1, stride)
    wanted = [[ramp[i : i + kernel, j : j + kernel].max() for j in starts] for i in starts]
    np.testing.assert_array_equal(result, wanted)


def test_symmetric_and_same_padding_differ_on_even_sides():
    symmetric, ramp = pooled(max_pool, 6, 3, stride=2)
    same, _ = pooled(max_pool, 6, 3, stride=2, style=ConvStyle("same", 1e-3, 0.99))
    assert symmetric.shape == same.shape == (3, 3)
    assert symmetric[0, 0] == ramp[1, 1]
    assert same[0, 0] == ramp[2, 2]
