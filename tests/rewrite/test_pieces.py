import keras
import numpy as np
import pytest
from keras import layers, ops

from keraslight.rewrite import MAX_TAPS, cut, is_cut

CASES = [
    ((14, 14), (7, 7), (1, 1), "same", 3),
    ((15, 14), (7, 7), (2, 2), "same", 3),
    ((15, 18), (7, 7), (2, 2), "valid", 3),
    ((4, 4), (7, 7), (1, 1), "same", 3),
    ((2, 2), (7, 7), (1, 1), "same", 1),
    ((1, 1), (7, 7), (2, 2), "same", 1),
    ((4, 3), (7, 7), (2, 2), "same", 2),
    ((9, 40), (1, 31), (1, 1), "same", 2),
    ((20, 20), (13, 13), (2, 2), "same", 9),
    ((9, 5), (9, 6), (1, 1), "same", 3),
]


@pytest.mark.parametrize(("sizes", "taps", "strides", "padding", "number"), CASES)
def test_pieces_add_up_to_the_whole(sizes, taps, strides, padding, number):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, *sizes, 4)).astype("float32"), rng.normal(size=(*taps, 4, 2)).astype("float32")
    pieces = cut(sizes, kernel, strides, padding)
    assert len(pieces.kernels) == len(pieces.maps) == number
    covered = np.zeros(taps, int)
    padded, total = np.pad(images, [(0, 0), *pieces.padding, (0, 0)]), 0
    for window, (rows, columns) in zip(pieces.kernels, pieces.maps, strict=True):
        covered[window] += 1
        assert kernel[window][..., 0, 0].size <= MAX_TAPS
        assert 0 <= rows.start < rows.stop <= padded.shape[1]
        assert 0 <= columns.start < columns.stop <= padded.shape[2]
        total = total + ops.depthwise_conv(padded[:, rows, columns], kernel[window], strides, "valid")
    assert covered.max() == 1
    # What is left out meets nothing but padding.
    assert not np.any(ops.depthwise_conv(images, kernel * (covered == 0)[..., None, None], strides, padding))
    np.testing.assert_allclose(total, ops.depthwise_conv(images, kernel, strides, padding), rtol=1e-5, atol=1e-5)


def test_pieces_of_zeros_are_left_out():
    kernel = np.zeros((7, 7, 4, 1), "float32")
    assert len(cut((9, 9), kernel, (1, 1), "same").kernels) == 1  # something has to stay
    kernel[6] = 1.0
    assert cut((9, 9), kernel, (1, 1), "same").kernels == [(slice(5, 7), slice(0, 7))]
    assert len(cut((9, 9), kernel, (1, 1), "same", zeros=True).kernels) == 3


def test_which_layers_are_cut():
    class Other(layers.DepthwiseConv2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    maps = keras.Input((8, 8, 4))
    assert is_cut(layers.DepthwiseConv2D(7, padding="same"), maps)
    assert is_cut(layers.DepthwiseConv2D(7, padding="same", strides=8), maps)
    assert is_cut(layers.SeparableConv2D(8, (3, 9), padding="same"), maps)
    for other in (
        layers.DepthwiseConv2D(5),
        layers.DepthwiseConv2D(7, padding="same", dilation_rate=2),
        layers.DepthwiseConv2D(7, padding="same", data_format="channels_first"),
        layers.DepthwiseConv2D(7),  # its maps are 2x2
        layers.Conv2D(8, 7, padding="same"),
        Other(7, padding="same"),
    ):
        assert not is_cut(other, maps), other
    assert not is_cut(layers.DepthwiseConv2D(7, padding="same"), keras.Input((None, 8, 4)))
