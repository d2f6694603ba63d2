"""Which channels belong together, and models without some of them, on small nets of every mechanism."""

import re

import keras
import kimm
import numpy as np
import pytest
from keras import layers, ops
from keras.src.applications import convnext, inception_resnet_v2

from keraslight import compress
from keraslight._litert_files import interpreter
from keraslight.blocks import channel_shuffle, coordinate_attention, efficient_channel_attention, squeeze_excite
from keraslight.compress import channel_groups, shrink
from keraslight.compress.channels.groups import Groups
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export import to_litert
from keraslight.graph import own_preprocessing, read, remember_task, remembered_task
from keraslight.layers import GRN, ChannelSlice, GroupedConv2D, ImageNormalization, LayerNorm, LayerScale
from keraslight.preprocessing import Preprocessing
from tests.compress.masking import (
    distance,
    images_for,
    kept_places,
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


def scaled_by_other_libraries():
    """With layers that Keras' and kimm's own networks have, and that are no part of Keras."""
    images, x = stem()
    scale = convnext.LayerScale(init_values=0.5, projection_dim=8, name="keras_scale")
    x = layers.Add()([x, scale(conv(x, 8, 1, act=None, name="first"))])
    x = layers.Add()([x, kimm.layers.LayerScale(name="kimm_scale")(conv(x, 8, 1, act=None, name="second"))])
    add = inception_resnet_v2.CustomScaleLayer(0.3, name="scaled_add")
    return classify(images, layers.ReLU()(add([x, conv(x, 8, 1, act=None, name="third")])))


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
    return classify(
        images, layers.GlobalAveragePooling1D()(layers.RepeatVector(2)(layers.GlobalMaxPooling1D()(x))), False
    )


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
        scaled_by_other_libraries,
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


# Groups that can be shrunk, with the number of their units and their layers; those that can't, and why.
GROUPS = {
    "residual": ({"stem": (8, 3), "expand0": (12, 1), "expand1": (12, 1)}, {}),
    "scaled_by_other_libraries": ({"stem": (8, 4)}, {}),
    "squeeze_and_excitation": ({"stem": (8, 5), "se_reduce": (4, 1), "coordinates_reduce": (4, 1)}, {}),
    "shuffled": ({"stem": (4, 2), "stem:2": (4, 1), "odd": (6, 1)}, {}),
    "dense_blocks": ({"stem": (8, 1), "grow0": (4, 1), "grow1": (4, 1), "transition": (6, 1)}, {}),
    "grouped": ({"stem": (2, 1), "grouped": (4, 3)}, {}),
    "flattened": ({"stem": (8, 1), "hidden": (10, 1), "pairs": (2, 1)}, {}),
    "attention": ({"stem": (8, 2)}, {"query": "'scores' (Dot)", "key": "attention", "value": "'context' (Dot)"}),
    "channel_neighbours": ({"after": (8, 1)}, {"stem": "'eca_conv' (Conv2D)"}),
    "separable": ({"stem": (8, 1), "separable": (10, 1)}, {}),
    "transposed": ({"stem": (8, 1), "up": (10, 1)}, {}),
    "one_dimension": ({"stem": (8, 1), "separable": (8, 1), "up": (6, 1)}, {}),
    "three_dimensions": ({"stem": (6, 1), "next": (4, 1)}, {}),
    "several_ends": ({"left_conv": (8, 2), "joined": (8, 1)}, {"first": "output", "second": "output", "map": "output"}),
    "shared": ({"stem": (8, 3), "inner": (12, 1)}, {}),
    "sequential": ({"first": (8, 1), "second": (6, 1)}, {}),
    "operations": ({"stem": (2, 2), "stem:2": (2, 2), "next": (6, 2)}, {}),
    "pixel_shuffle": ({"stem": (8, 1), "wide": (4, 1), "next": (4, 1)}, {}),
    "mixer": ({"stem": (8, 1), "channels": (12, 1)}, {}),
    "open_sides": ({"stem": (8, 1), "branch": (8, 1)}, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_shrunk_model_is_the_masked_one(name):
    model = MODELS[name]()
    removable, frozen = GROUPS[name]
    groups = channel_groups(model)
    assert {g.name.replace("right", "left"): (g.size, len(g.layers)) for g in groups if g.removable} == removable
    reasons = {g.name: g.reason for g in groups if not g.removable}
    assert all(text in reasons[group] for group, text in {"classifier": "output", **frozen}.items() if group in reasons)
    assert frozen.keys() <= reasons.keys()
    small, error = shrunk_and_distance(model, 0.4)
    assert error <= 1e-5
    assert {layer.name for layer in small.layers} >= {layer for group in groups for layer in group.layers}
    assert small.count_params() < model.count_params()


def test_masks_make_the_model_compute_what_the_shrunk_one_does():
    model = squeeze_and_excitation()
    randomize(model)
    images, widths = images_for(model), {"stem": 5, "se_reduce": 1}
    small = shrink(model, widths)
    groups = Groups(read(model))
    masks = groups.masks(groups.kept(widths, None))
    assert {float(value) for _, mask in masks for value in np.unique(mask)} == {0.0, 1.0}
    for weight, mask in masks:
        weight.assign(weight * mask)
    assert distance(outputs(model, images), outputs(small, images)) <= 1e-5


def test_widths_keep_the_units_with_the_largest_kernels_and_keep_those_it_names():
    model = residual()
    randomize(model)
    kernel = model.get_layer("expand0").get_weights()[0]
    strongest = np.sort(np.argsort(-np.square(kernel).sum((0, 1, 2)))[:5])
    np.testing.assert_array_equal(_kept(model, shrink(model, {"expand0": 5}), "expand0"), strongest)
    evenly = shrink(model, {"expand0": 5}, choice="uniform")
    np.testing.assert_array_equal(_kept(model, evenly, "expand0"), [0, 2, 4, 7, 9])
    np.testing.assert_array_equal(_kept(model, shrink(model, keep={"expand0": [7, 2]}), "expand0"), [2, 7])
    # A residual stream is as strong as all kernels that write to it.
    names = ("stem", "project0", "project1")
    total = sum(np.square(model.get_layer(name).get_weights()[0]).sum((0, 1, 2)) for name in names)
    small = shrink(model, {"stem": 3})
    for name in names:
        np.testing.assert_array_equal(_kept(model, small, name), np.sort(np.argsort(-total)[:3]))


def _kept(model, small, name):
    ours, theirs = (each.get_layer(name).get_weights()[0] for each in (small, model))
    return kept_places(ours, theirs)[-1]


def test_a_share_narrows_every_group_and_the_divisor_rounds():
    groups = channel_groups(residual())
    assert compress.channel_widths(groups, 0.5) == {"stem": 4, "expand0": 6, "expand1": 6}
    assert compress.channel_widths(groups, 0.01) == {"stem": 1, "expand0": 1, "expand1": 1}
    assert compress.channel_widths(groups, 0.5, divisor=8) == {"stem": 8, "expand0": 8, "expand1": 8}
    assert [g.size for g in channel_groups(shrink(residual(), 0.5))] == [4, 6, 6, 3]


@keras.saving.register_keras_serializable(package="tests")
class Mine(layers.Layer):
    def call(self, x):
        return x[..., ::-1] if keras.ops.is_tensor(x) else x


@keras.saving.register_keras_serializable(package="tests")
class Standardized(layers.Conv2D):
    """A convolution whose kernel depends on all of its input channels."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2)))


def _with(change):
    images, x = stem()
    return classify(images, conv(change(x), 6, name="after"))


UNKNOWN = {
    "layer": (lambda x: Mine(name="mine")(x), "'mine' (Mine)"),
    "derived": (lambda x: Standardized(8, 3, name="derived")(x), "'derived' (Standardized)"),
    "lambda": (lambda x: layers.Lambda(lambda v: v * 2, output_shape=(6, 6, 8), name="twice")(x), "'twice' (Lambda)"),
    "activation": (lambda x: layers.Activation("softmax", name="soft")(x), "'softmax'"),
    "own activation": (lambda x: layers.Activation(lambda v: v - ops.mean(v, -1, True), name="own")(x), "'own'"),
    "constants": (lambda x: x * np.arange(8.0, dtype="float32"), "constants"),
    "rescaling": (lambda x: layers.Rescaling(np.arange(8.0).tolist(), name="scales")(x), "'scales' (Rescaling)"),
    "sum": (lambda x: x - ops.mean(x, axis=-1, keepdims=True), "(ops.Mean)"),
    "convolution": (lambda x: ops.conv(x, np.ones((1, 1, 8, 4), "float32")), "(ops.Conv)"),
    "wrapper": (lambda x: layers.SpectralNormalization(layers.Conv2D(4, 1), name="wrapped")(x), "'wrapped'"),
    "attention": (lambda x: layers.MultiHeadAttention(2, 4, name="heads")(x, x), "'heads' (MultiHeadAttention)"),
    "step": (lambda x: x[..., 1::3], "steps"),
    "outer product": (
        lambda x: layers.Reshape((36, 8))(x)[:, :8] * layers.Permute((2, 1))(layers.Reshape((36, 8))(x)[:, :8]),
        "axes",
    ),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_uses_channels_in_unknown_ways_keeps_them_and_is_named(kind):
    change, text = UNKNOWN[kind]
    if kind == "outer product":
        images, x = stem()
        y = change(x)
        model = classify(images, layers.Dense(4, name="after")(layers.Flatten()(y)), pool=False)
    else:
        model = _with(change)
    groups = {group.name: group for group in channel_groups(model)}
    assert not groups["stem"].removable
    assert text in groups["stem"].reason
    assert groups["after"].removable
    with pytest.raises(InvalidArgumentError, match=f"must be removable.*Received: 'stem'.*{re.escape(text)}"):
        shrink(model, {"stem": groups["stem"].size - 1} if groups["stem"].size > 1 else {"stem": 0})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Either `widths` or `keep`"),
        ({"widths": 0.5, "keep": {}}, "Either `widths` or `keep`"),
        ({"widths": 0.0}, "above 0 and at most 1. Received: 0.0"),
        ({"widths": 2}, "above 0 and at most 1. Received: 2"),
        ({"widths": "half"}, "above 0 and at most 1. Received: 'half'"),
        ({"widths": {"expand": 4}}, "`channel_groups.model.`. Received: 'expand'; the nearest are .'expand0'"),
        ({"widths": {"expand0": 0}}, "from 1 to 12. Received: 0"),
        ({"widths": {"expand0": 13}}, "from 1 to 12. Received: 13"),
        ({"widths": {"expand0": 4.5}}, "from 1 to 12. Received: 4.5"),
        ({"widths": {"expand0": True}}, "from 1 to 12. Received: True"),
        ({"widths": {"classifier": 2}}, "must be removable.*'classifier' with 2 of 3.*the model's output"),
        ({"keep": {"expand0": []}}, "at least one of the places 0 to 11, each once. Received: .."),
        ({"keep": {"expand0": [1, 1]}}, "each once. Received: .1, 1."),
        ({"keep": {"expand0": [12]}}, "0 to 11"),
        ({"keep": {"expand0": [-1]}}, "0 to 11"),
        ({"keep": {"expand0": [0.5]}}, "0 to 11"),
        ({"keep": {"classifier": [0]}}, "must be removable.*'classifier'"),
        ({"widths": 0.5, "choice": "best"}, "magnitude, uniform. Received: 'best'"),
    ],
)
def test_what_cannot_be_removed_is_an_error(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        shrink(residual(), **arguments)


def test_groups_that_keep_their_size_may_be_frozen():
    small = shrink(residual(), {"classifier": 3, "expand0": 6})
    assert [group.size for group in channel_groups(small)] == [8, 6, 12, 3]


def test_one_channel_stays_in_every_slice_branch_and_group():
    for name in ("shuffled", "grouped", "pixel_shuffle", "operations"):
        model = MODELS[name]()
        small = shrink(model, {group.name: 1 for group in channel_groups(model) if group.removable})
        assert all(np.isfinite(each).all() for each in outputs(small, images_for(small)))


def test_the_result_keeps_flags_preprocessing_task_and_precision():
    spec = Preprocessing((6, 6), mean=(0.5,) * 3, std=(0.2,) * 3)
    images = keras.Input((6, 6, 3), name="images")
    x = layers.Conv2D(8, 3, name="stem", dtype="mixed_bfloat16", trainable=False)(ImageNormalization(spec)(images))
    x = layers.BatchNormalization(name="norm", trainable=False)(x)
    x = layers.Dense(6, name="hidden", kernel_regularizer="l2")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, layers.Dense(1, name="score")(x), name="mine")
    remember_task(model, "regression")
    small = shrink(model, 0.5)
    assert own_preprocessing(small) == spec
    assert remembered_task(small) == "regression"
    assert (small.name, small.inputs[0].name) == ("mine", "images")
    assert small.get_layer("stem").dtype_policy.name == "mixed_bfloat16"
    assert [v.path for v in small.trainable_variables] == [
        *("hidden/kernel", "hidden/bias", "score/kernel", "score/bias"),
    ]
    assert small.get_layer("hidden").kernel_regularizer is not None
    assert tuple(small.get_layer("hidden").kernel.shape) == (4, 3)


def test_channels_first_models_have_the_same_groups():
    def build(data_format):
        first = data_format == "channels_first"
        images = keras.Input((3, 6, 6) if first else (6, 6, 3))
        options = {"data_format": data_format} if first else {}
        x = conv(images, 8, name="stem", **options)
        y = conv(layers.ZeroPadding2D(1, **options)(x), 6, name="wide", groups=2, **options)
        y = layers.Concatenate(axis=1 if first else -1)([y, layers.UpSampling2D(1, **options)(y)])
        y = layers.GlobalAveragePooling2D(keepdims=True, **options)(layers.SpatialDropout2D(0.1, **options)(y))
        x = layers.multiply([x, layers.Conv2D(8, 1, name="gate", **options)(y)])
        return keras.Model(images, layers.Dense(2, name="classifier")(layers.Flatten()(x)))

    groups = [channel_groups(build(data_format)) for data_format in ("channels_first", "channels_last")]
    assert groups[0] == groups[1]
    assert {g.name: g.size for g in groups[0] if g.removable} == {"stem": 4, "wide": 3}
    small = shrink(build("channels_first"), 0.5)
    assert small.get_layer("gate").output.shape == (None, 4, 1, 1)
    assert tuple(small.get_layer("classifier").kernel.shape) == (4 * 36, 2)


def test_norms_over_channels_are_cut_with_them():
    images, x = stem(norm=False)
    x = layers.LayerNormalization()(layers.GroupNormalization(2)(x))
    x = layers.UnitNormalization()(layers.RMSNormalization()(layers.LayerNormalization(axis=[1, 2, 3])(x)))
    x = LayerNorm()(GRN()(x))
    model = classify(images, x)
    assert {g.name: g.size for g in channel_groups(model) if g.removable} == {"stem": 4}  # in two groups of a norm
    small = shrink(model, 0.5)
    assert {tuple(w.shape)[-1] for layer in small.layers for w in layer.weights[:2]} == {4, 3}
    assert np.isfinite(outputs(small, images_for(small))[0]).all()


def test_models_without_a_graph_and_layers_that_cannot_be_made_again_are_typed_errors():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InvalidArgumentError, match="functional Keras 3 model"):
        channel_groups(Subclassed())

    class Forgetful(layers.Layer):
        def __init__(self, function):
            super().__init__(name="forgetful")
            self.function = function

        def call(self, x):
            return self.function(x)

    model = _with(lambda x: Forgetful(lambda values: values * 2)(x))
    assert "'forgetful' (Forgetful)" in channel_groups(model)[0].reason
    with pytest.raises(CompressionError, match="forgetful"):
        shrink(model, 0.5)


def test_a_shrunk_model_is_saved_trained_shrunk_again_and_converted(tmp_path):
    model = shuffled()
    randomize(model)
    small = shrink(model, keep=random_keep(model))
    images = images_for(small)
    expected = outputs(small, images)
    small.save(tmp_path / "small.keras")
    assert distance(expected, outputs(keras.saving.load_model(tmp_path / "small.keras"), images)) == 0
    file = to_litert(small, tmp_path / "small.tflite")
    answers = interpreter(file, 1).get_signature_runner()(images=images[0][:1])
    np.testing.assert_allclose(next(iter(answers.values())), expected[0][:1], atol=1e-5 * expected[0].std())
    tuned = compress.fine_tune(small, (images[0], np.array([0, 1, 2, 1])), epochs=1, seed=3, verbose=0)
    assert distance(expected, outputs(small, images)) == 0
    assert distance(expected, outputs(tuned, images)) > 0
    assert channel_groups(shrink(tuned, 0.5))[-1].name == "classifier"
