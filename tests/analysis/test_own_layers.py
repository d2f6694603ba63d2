"""The analysis knows every layer and block of keraslight: a new one must get a row here."""

import keras
import pytest

from keraslight import layers as own
from keraslight.analysis import profile, receptive_field
from keraslight.blocks.attention import cbam, coordinate_attention, efficient_channel_attention, squeeze_excite
from keraslight.errors import InvalidArgumentError
from keraslight.preprocessing import Preprocessing

WHOLE = "whole"
UNPOOLED = "depend on the map's values"

# Layer -> arguments, inputs, multiply-adds, and what it sees at stride 1: a window's (first, last) pixel relative to
# the output's own, everything, or the text of the refusal.
LAYERS = {
    "GRN": ({}, [(8, 8, 4)], 0, WHOLE),
    "BatchNorm": ({}, [(8, 8, 4)], 0, (0, 0)),
    "C4GroupConv2D": ({"filters": 2}, [(8, 8, 4)], 64 * 8 * 36, (-1, 1)),
    "C4GroupPooling": ({}, [(8, 8, 4)], 0, (0, 0)),
    "C4LiftingConv2D": ({"filters": 2}, [(8, 8, 4)], 64 * 8 * 36, (-1, 1)),
    "ChannelSlice": ({"stop": 2}, [(8, 8, 4)], 0, (0, 0)),
    "ChannelStatistics": ({}, [(8, 8, 4)], 0, (0, 0)),
    "CodeDistance": ({"classes": 5}, [(8, 8, 4)], 64 * 4 * 5, (0, 0)),
    "ConditionalConv2D": ({"filters": 2, "kernel_size": 3, "experts": 3}, [(8, 8, 4)], 64 * 72 + 3 * 72 + 12, WHOLE),
    "CoordinatePooling": ({}, [(8, 8, 4)], 0, WHOLE),
    "CoordinateSplit": ({}, [(16, 1, 4), (8, 8, 4)], 0, None),
    "DeformableConv2D": ({"filters": 2}, [(8, 8, 4)], 64 * (18 + 2) * 36, WHOLE),
    "DropPath": ({"rate": 0.5}, [(8, 8, 4)], 0, (0, 0)),
    "GroupedConv2D": ({"filters": 2, "kernel_size": 3, "groups": 2}, [(8, 8, 4)], 36 * 2 * 18, (0, 2)),
    "ImageNormalization": ({"preprocessing": Preprocessing(size=(8, 8))}, [(8, 8, 3)], 0, (0, 0)),
    "ImageStandardization": ({"preprocessing": Preprocessing(size=(8, 8), per_image=True)}, [(8, 8, 3)], 0, WHOLE),
    "ImageViews": ({"scales": (0.5, 1), "rotations": (0, 90)}, [(8, 8, 3)], 0, WHOLE),
    "LayerNorm": ({}, [(8, 8, 4)], 0, (0, 0)),
    "LayerScale": ({}, [(8, 8, 4)], 0, (0, 0)),
    "LocalResponseNorm": ({}, [(8, 8, 4)], 0, (0, 0)),
    "MergeViews": ({"count": 1}, [(8,)], 0, None),
    "MaxPoolWithIndices2D": ({"pool_size": 3, "strides": 1, "padding": 1}, [(8, 8, 4)], 0, (-1, 1)),
    "ResizeLike": ({}, [(8, 8, 4), (8, 8, 4)], 0, (0, 0)),
    "MaxUnpool2D": ({}, [(8, 8, 4), (8, 8, 4)], 0, UNPOOLED),
}


def test_every_layer_has_a_row():
    assert sorted(LAYERS) == sorted(own.__all__)


@pytest.mark.parametrize("name", LAYERS)
def test_profile_counts_it(name):
    arguments, shapes, macs, _ = LAYERS[name]
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, getattr(own, name)(**arguments)(inputs if len(inputs) > 1 else inputs[0]))
    result = profile(model)
    assert result.unknown == ()
    assert result.macs == macs


@pytest.mark.parametrize("name", [name for name, row in LAYERS.items() if row[3] is not None])
def test_receptive_field_follows_it(name):
    arguments, shapes, _, seen = LAYERS[name]
    images = keras.Input(shapes[0])
    outputs = getattr(own, name)(**arguments, name="it")([images] * len(shapes) if len(shapes) > 1 else images)
    model = keras.Model(images, outputs)
    if seen == UNPOOLED:
        with pytest.raises(InvalidArgumentError, match=f"{UNPOOLED}.* Received: layer 'it' of type {name}"):
            receptive_field(model)
        return
    field = receptive_field(model)[-1]
    assert field.whole == (seen == WHOLE)
    if seen == WHOLE:
        assert field.size == (8, 8)
    else:
        first, last = seen
        assert field.size == (last - first + 1,) * 2
        assert field.center == ((first + last) / 2,) * 2
        assert field.stride == (1, 1)


@pytest.mark.parametrize(
    ("block", "macs"),
    [
        (lambda x: squeeze_excite(x, 2, name="it"), 2 * 4 * 2),
        (lambda x: cbam(x, 2, kernel=3, name="it"), 2 * 2 * 4 * 2 + 64 * 9 * 2),  # the perceptron runs twice
        (lambda x: coordinate_attention(x, 2, name="it"), 16 * 4 * 2 + 2 * 8 * 2 * 4),
        (lambda x: efficient_channel_attention(x, 3, name="it"), 4 * 3),
    ],
    ids=["squeeze_excite", "cbam", "coordinate_attention", "efficient_channel_attention"],
)
def test_attention_blocks(block, macs):
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, block(images))
    result = profile(model)
    assert result.unknown == ()
    assert result.macs == macs
    field = receptive_field(model)[-1]
    assert field.whole
    assert field.size == (8, 8)
    assert field.stride == (1, 1)


def test_pooling_with_indices_keeps_its_window_and_stride():
    images = keras.Input((8, 8, 3))
    values, _ = own.MaxPoolWithIndices2D(2, name="first")(images)
    values, _ = own.MaxPoolWithIndices2D(3, strides=2, padding=1, name="second")(values)
    rows = receptive_field(keras.Model(images, values))
    assert [(row.size[0], row.stride[0], row.center[0]) for row in rows] == [(1, 1, 0), (2, 2, 0.5), (6, 4, 0.5)]
