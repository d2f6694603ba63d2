"""Which channels belong together, and models without some of them, on small nets of every mechanism."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keraslight import compress
from keraslight.blocks import channel_shuffle, coordinate_attention, efficient_channel_attention, squeeze_excite
from keraslight.compress import channel_groups, shrink
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import own_preprocessing, remember_task, remembered_task
from keraslight.layers import ChannelSlice, GroupedConv2D, ImageNormalization, LayerScale
from keraslight.preprocessing import Preprocessing
from tests.compress.masking import (
    distance,
    images_for,
    kept_places,
    mask,
    outputs,
    random_keep,
    randomize,
    shrunk_and_distance,
)


def conv(x, filters, kernel=3, *, norm=True, act="relu", kind=layers.Conv2D, name=None, **options):
    x = kind(filters, kernel, padding="same", use_bias=not norm, name=name, **options)(x)
    if norm:
        x = layers.BatchNormalization(name=name and f"{name}_bn", axis=1 if options.get("data_format") else -1)(x)
    return layers.Activation(act)(x) if act else x


def stem(side=6, channels=8, **options):
    images = keras.Input((side, side, 3), name="images")
    return images, conv(images, channels, name="stem", **options)


def classify(images, x, pool=True):
    x = layers.GlobalAveragePooling2D(name="pool")(x) if pool else x
    return keras.Model(images, layers.Dense(3, name="classifier")(x), name="net")


def residual():
    images, x = stem()
    for n in range(2):
        y = conv(x, 12, 1, name=f"expand{n}", act="relu6")
        y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
        y = LayerScale(0.5)(conv(y, 8, 1, act=None, name=f"project{n}"))
        x = layers.Add()([x, y])
    return classify(images, x)


def squeeze_and_excitation():
    images, x = stem()
    x = squeeze_excite(x, 4, gate="hard_sigmoid", name="se")
    y = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(layers.GlobalMaxPooling2D()(x)))
    return classify(images, coordinate_attention(layers.multiply([x, y]), 4, name="coordinates"))


def shuffled():
    images, x = stem()
    y = conv(ChannelSlice(4)(x), 4, 1, name="branch")
    x = channel_shuffle(layers.Concatenate()([ChannelSlice(0, 4)(x), y]), 2, name="shuffle")
    even, odd = ChannelSlice(0, None, 2)(x), ChannelSlice(1, None, 2)(x)
    x = layers.Concatenate()([even, conv(odd, 6, 1, name="odd")])
    return classify(images, x)


def dense_blocks():
    images, x = stem()
    for n in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(y, 4, norm=False, act=None, name=f"grow{n}")])
    return classify(images, conv(x, 6, 1, name="transition"))


def grouped():
    images, x = stem()
    x = conv(x, 16, groups=4, name="grouped", kind=GroupedConv2D)
    x = conv(x, 16, groups=16, name="like_depthwise", kind=GroupedConv2D)
    x = layers.GroupNormalization(16)(x)  # of each channel by itself
    return classify(images, conv(x, 32, groups=16, name="multiplied", kind=GroupedConv2D))


def flattened():
    images, x = stem()
    x = layers.MaxPooling2D()(layers.ZeroPadding2D(1)(layers.PReLU()(x)))
    x = layers.Dense(10, activation="gelu", name="hidden")(layers.Flatten()(x))
    x = layers.Reshape((10,))(layers.Reshape((5, 2))(layers.Dense(10, name="pairs")(x)))
    return classify(images, layers.Dropout(0.5)(x), pool=False)


def attention():
    images, x = stem()
    query, key, value = (layers.Reshape((36, 4))(layers.Conv2D(4, 1, name=n)(x)) for n in ("query", "key", "value"))
    scores = layers.Softmax()(layers.Dot((2, 2), name="scores")([query, key]))
    y = layers.Reshape((6, 6, 4))(layers.Dot((2, 1), name="context")([scores, value]))
    y = layers.Conv2D(8, 1, name="merge")(y)
    return classify(images, layers.Add()([x, y]))


def channel_neighbours():
    images, x = stem()
    x = efficient_channel_attention(x, 3, name="eca")
    return classify(images, conv(x, 8, name="after"))


def separable():
    images, x = stem()
    x = layers.SeparableConv2D(10, 3, depth_multiplier=2, activation="relu", name="separable")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=3, name="depthwise", activation="relu")(x)
    return classify(images, x)


def transposed():
    images, x = stem()
    x = conv(x, 10, kind=layers.Conv2DTranspose, strides=2, name="up")
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(images, conv(x, 2, act="softmax", norm=False, name="map"))


def one_dimension():
    series = keras.Input((16, 3))
    x = conv(series, 8, kind=layers.Conv1D, name="stem")
    x = layers.DepthwiseConv1D(3, padding="same")(layers.AveragePooling1D(2)(x))
    x = layers.Conv1DTranspose(6, 2, name="up", activation="silu")(layers.SeparableConv1D(8, 3, name="separable")(x))
    x = layers.SpatialDropout1D(0.2)(layers.Cropping1D(1)(layers.ZeroPadding1D(2)(x)))
    return keras.Model(series, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


def three_dimensions():
    volume = keras.Input((4, 4, 4, 1))
    x = layers.MaxPooling3D()(conv(volume, 6, kind=layers.Conv3D, name="stem"))
    return keras.Model(volume, layers.Dense(2)(layers.Flatten()(conv(x, 4, kind=layers.Conv3D, name="next"))))


def several_ends():
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 1), name="right")
    x = conv(left, 8, name="left_conv") * conv(right, 8, name="right_conv")
    x = conv(x, 8, name="joined")
    heads = {n: layers.Dense(2, name=n)(layers.GlobalAveragePooling2D()(x)) for n in ("first", "second")}
    return keras.Model({"left": left, "right": right}, {**heads, "map": layers.Conv2D(1, 1, name="map")(x)})


def shared():
    images, x = stem()
    again = layers.Conv2D(8, 3, padding="same", name="again", activation="relu")
    norm = layers.BatchNormalization()
    x = norm(again(norm(again(x))))
    inner = keras.Input((6, 6, 8))
    part = keras.Model(inner, conv(conv(inner, 12, name="inner"), 8, name="inner_out"), name="part")
    return classify(images, part(part(x)))


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            keras.Sequential([keras.Input((4, 4, 8)), layers.Conv2D(6, 3, name="second"), layers.LeakyReLU()]),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="classifier"),
        ]
    )


def operations():
    images, x = stem()
    x = ops.relu(x * 0.5 + 0.1) + ops.sigmoid(conv(x, 8, name="gate"))
    first, second = ops.split(x, 2, axis=-1)
    x = ops.concatenate([ops.multiply(first, second), x[..., 2:6], x[:, :, :, 6:]], axis=-1)
    x = ops.transpose(ops.reshape(x, (-1, 36, 10)), (0, 2, 1))
    x = ops.mean(conv(ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, 6, 6, 10)), 6, name="next"), axis=(1, 2))
    x = ops.squeeze(ops.expand_dims(x, 1), 1)
    return classify(images, ops.reshape(ops.stack([x, layers.Dense(6, name="other")(x)], 1), (-1, 12)), pool=False)


def pixel_shuffle():
    images, x = stem()
    x = layers.Reshape((6, 6, 2, 2, 4))(conv(x, 16, name="wide"))
    x = layers.Reshape((12, 12, 4))(layers.Permute((1, 3, 2, 4, 5))(x))
    return classify(images, conv(x, 4, name="next"))


def mixer():
    images, x = stem()
    x = layers.Permute((2, 1))(layers.Reshape((36, 8))(x))
    x = layers.Dense(36, name="tokens")(layers.Dense(10, activation="gelu", name="across")(x))
    x = layers.Dense(12, activation="gelu", name="channels")(layers.Permute((2, 1))(x))
    return classify(images, layers.GlobalAveragePooling1D()(layers.RepeatVector(2)(layers.GlobalMaxPooling1D()(x))), False)


def open_sides():
    images = keras.Input((None, None, 3))
    x = conv(images, 8, name="stem", strides=2)
    x = channel_shuffle_open(layers.Concatenate()([x, conv(x, 8, name="branch")]))
    return classify(images, x)


def channel_shuffle_open(x):
    return ops.concatenate([x[..., 8:], x[..., :8]], axis=-1)


MODELS = {
    make.__name__: make
    for make in (
        residual,
        squeeze_and_excitation,
        shuffled,
        dense_blocks,
        grouped,
        flattened,
        attention,
        channel_neighbours,
        separable,
        transposed,
        one_dimension,
        three_dimensions,
        several_ends,
        shared,
        sequential,
        operations,
        pixel_shuffle,
        mixer,
        open_sides,
    )
}


@pytest.mark.parametrize("name", MODELS)
def test_a_shrunk_model_is_the_masked_one(name):
    small, error = shrunk_and_distance(MODELS[name](), 0.4)
    assert error <= 1e-5
    print(name, [(g.name, g.size, g.layers) for g in channel_groups(small)])
