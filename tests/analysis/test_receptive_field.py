import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from keras import layers

import keraslight
from keraslight.analysis import backward_receptive_field, receptive_field
from keraslight.analysis._gradient import gradient
from keraslight.errors import InvalidArgumentError
from keraslight.layers import C4GroupConv2D, C4GroupPooling, C4LiftingConv2D, ConditionalConv2D, GroupedConv2D


def fields(model, input_shape=None):
    return {field.name: field for field in receptive_field(model, input_shape)}


def test_vgg16():
    rows = fields(keraslight.VGG("16", include_top=False, width=0.125))
    # Three layers of 3x3 and a 2x2 pooling add (3 * 2 + 1) * stride; the first two stages have two layers.
    assert [rows[f"stage{s}_pool"].size for s in range(5)] == [(6, 6), (16, 16), (44, 44), (100, 100), (212, 212)]
    assert rows["stage4_pool"].stride == (32, 32)
    assert rows["stage4_pool"].center == (15.5, 15.5)  # 32 pixels a place: its own tile's middle
    assert not rows["stage4_pool"].whole


def test_resnet50():
    """The stem sees 7 + 2 * 2 pixels at stride 4; after it each 3x3 convolution adds twice its input's stride."""
    own = fields(keraslight.ResNet("50", width=0.25))
    size = 11 + 3 * 2 * 4
    for stride, blocks in ((4, 4), (8, 6), (16, 3)):  # the first block's 3x3 has the stride
        size += 2 * stride + (blocks - 1) * 2 * 2 * stride
    assert size == 427
    assert own["stage3_block2_add"].size == (size, size)
    assert own["stage3_block2_add"].center == (0.0, 0.0)  # symmetric padding
    assert own["pool"].whole
    assert own["pool"].size == own["classifier"].size == (224, 224)
    assert own["classifier"].stride == (0, 0)
    # He et al.'s own version strides in the 1x1 convolution before: 483, as in Araujo et al., table 1.
    first = fields(keras.applications.ResNet50(include_top=False, weights=None))
    assert first["conv5_block3_out"].size == (483, 483)
    assert first["conv5_block3_out"].stride == (32, 32)


def test_dilated_stack():
    x = images = keras.Input((None, None, 3))
    for dilation in (1, 2, 4, 8):
        x = layers.Conv2D(2, 3, dilation_rate=dilation, padding="same", name=f"d{dilation}")(x)
    assert [row.size[0] for row in receptive_field(keras.Model(images, x))] == [1, 3, 7, 15, 31]
    assert fields(keras.Model(images, x))["d8"].center == (0.0, 0.0)


SIDES = (57, 64)
kernels = st.tuples(st.integers(1, 4), st.integers(1, 4))
paddings = st.sampled_from(["same", "valid"])
# Kind, kernel, stride or dilation, padding.
kinds = st.one_of(
    st.tuples(st.just("conv"), kernels, st.integers(1, 2), paddings),
    st.tuples(st.just("dilated"), kernels, st.integers(1, 3), paddings),
    st.tuples(st.just("depthwise"), kernels, st.just(2), paddings),
    st.tuples(st.just("grouped"), kernels, st.integers(1, 2), paddings),
    st.tuples(st.just("pool"), kernels, st.integers(1, 2), paddings),
    st.tuples(st.just("padded"), kernels, st.just(1), st.just("valid")),
    st.tuples(st.just("branches"), kernels, st.integers(1, 2), st.just("same")),
    st.tuples(st.just("lifted"), kernels, st.integers(1, 2), paddings),
)


def add(x, kind, kernel, number, padding):
    """A layer, or a few, with kernels of ones: nothing of what is seen can cancel out."""
    ones = {"kernel_initializer": "ones", "padding": padding}
    match kind:
        case "conv":
            return layers.Conv2D(2, kernel, strides=number, **ones)(x)
        case "dilated":
            return layers.Conv2D(2, kernel, dilation_rate=number, **ones)(x)
        case "depthwise":
            return layers.DepthwiseConv2D(kernel, strides=2, depthwise_initializer="ones", padding=padding)(x)
        case "grouped":
            x = layers.Concatenate()([x, x])
            return GroupedConv2D(4, kernel, strides=number, groups=2, **ones)(x)
        case "pool":
            return layers.AveragePooling2D(kernel, strides=number, padding=padding)(x)
        case "padded":
            return layers.Conv2D(2, kernel, **ones)(layers.ZeroPadding2D(((1, 0), (2, 1)))(x))
        case "lifted":
            return C4LiftingConv2D(1, kernel[0] // 2 * 2 + 1, strides=number, **ones)(x)
    wide = layers.Conv2D(2, (5, 2), dilation_rate=(1, number), **ones)(x)
    high = layers.Conv2D(2, kernel, **ones)(x)
    return layers.ReLU()(layers.Concatenate()([layers.Add()([wide, high]), x]))


@settings(
    derandomize=True, max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much]
)
@given(st.lists(kinds, min_size=2, max_size=5))
def test_agrees_with_the_support_of_the_gradient(stack):
    """Random small networks: an output's gradient is above 0 exactly where it can see."""
    x = images = keras.Input((*SIDES, 1))
    for kind in stack:
        assume(min(x.shape[1:3]) >= 10)  # every window fits
        x = add(x, *kind)
    model = keras.Model(images, x)
    field = receptive_field(model)[-1]
    places = [(i, j) for i in (x.shape[1] // 2, 0, x.shape[1] - 1) for j in (x.shape[2] // 2, 0, x.shape[2] - 1)]

    def seen_from(place):
        """The field's first and last pixel on both axes."""
        ends = []
        for axis in (0, 1):
            first = field.center[axis] + place[axis] * field.stride[axis] - (field.size[axis] - 1) / 2
            ends.append((first, first + field.size[axis] - 1))
        return ends

    # Nothing of the middle's field in a padding, so that one place at least is compared exactly.
    assume(all(first >= 0 and last < side for (first, last), side in zip(seen_from(places[0]), SIDES, strict=True)))

    # One image a place, so that one way back is enough.
    _, slopes = gradient(
        lambda batch: sum(model(batch, training=False)[n, i, j] for n, (i, j) in enumerate(places)),
        np.ones((len(places), *SIDES, 1)),
    )
    for place, slope in zip(places, slopes[..., 0] > 0, strict=True):
        for axis, (first, last) in enumerate(seen_from(place)):
            pixels = np.flatnonzero(slope.any(axis=1 - axis))
            if not len(pixels):
                continue  # all in the padding
            assert first <= pixels[0]
            assert pixels[-1] <= last
            if first >= 0 and last < SIDES[axis]:
                assert (first, last) == (pixels[0], pixels[-1])


def enlarged(x, kind, number):
    """A layer that makes maps larger, with kernels of ones."""
    ones = {"kernel_initializer": "ones"}
    match kind:
        case "transposed":
            return layers.Conv2DTranspose(2, number, strides=2, padding="same", **ones)(x)
        case "transposed thrice":
            return layers.Conv2DTranspose(2, number, strides=3, padding="valid", **ones)(x)
        case "resized":
            return layers.Resizing(x.shape[1] * 3 // 2, x.shape[2] + number, interpolation="bilinear")(x)
        case "resized to nearest":
            return layers.Resizing(x.shape[1] + number, x.shape[2] * 4 // 3, interpolation="nearest")(x)
        case "operation":
            return keras.ops.image.resize(x, (x.shape[1] * 2, x.shape[2] * 2), interpolation="bilinear")
        case "skip":  # down, up again, and both added, as in a U-Net
            down = layers.Conv2D(2, number, strides=2, padding="same", **ones)(x)
            up = layers.UpSampling2D(2)(down)
            return layers.Add()([layers.Conv2D(2, 1, **ones)(x), up])
    return layers.UpSampling2D(number, interpolation=kind)(x)


ENLARGED = ("nearest", "bilinear", "transposed", "transposed thrice", "resized", "resized to nearest", "operation")
larger = st.tuples(st.sampled_from((*ENLARGED, "skip", "skip")), st.integers(2, 4))
window = st.tuples(st.just("window"), st.integers(1, 2))


@settings(derandomize=True, max_examples=8, deadline=None, database=None)
@given(larger, st.lists(st.one_of(window, larger), max_size=2), window)
def test_what_makes_maps_larger_agrees_with_the_support_of_the_gradient(first, middle, last):
    x = images = keras.Input((20, 16, 1))
    for kind, number in (first, *middle, last):
        if kind == "window":
            x = layers.Conv2D(2, 3, strides=number, padding="same", kernel_initializer="ones")(x)
        elif kind != "skip" or not (x.shape[1] % 2 or x.shape[2] % 2):
            x = enlarged(x, kind, number)
        assume(x.shape[1] <= 90)
    model = keras.Model(images, x)
    field = receptive_field(model)[-1]
    assert backward_receptive_field(model)[-1] == field.size
    for axis, side in enumerate((20, 16)):
        count, span = x.shape[1 + axis], field.size[axis]
        other = x.shape[2 - axis] // 2
        middles = [field.center[axis] + place * field.stride[axis] for place in range(count)]
        inside = [n for n, at in enumerate(middles) if span / 2 + 1 <= at <= side - span / 2 - 2]
        if field.stride[axis] == 0 or len(inside) * field.stride[axis] < 2:
            continue  # no whole period that sees nothing of the borders
        places = [(n, other) if axis == 0 else (other, n) for n in inside]
        _, slopes = gradient(
            lambda batch, places=places: sum(model(batch, training=False)[n, i, j] for n, (i, j) in enumerate(places)),
            np.ones((len(places), 20, 16, 1)),
        )
        seen = [np.flatnonzero((slope[..., 0] > 0).any(axis=1 - axis)) for slope in slopes]
        assert max(pixels[-1] - pixels[0] + 1 for pixels in seen if len(pixels)) <= span
        for n, pixels in zip(inside, seen, strict=True):
            if len(pixels):
                assert abs((pixels[0] + pixels[-1]) / 2 - middles[n]) <= max(1, field.stride[axis])
        if len(inside) * field.stride[axis] >= 6:
            assert max(pixels[-1] - pixels[0] + 1 for pixels in seen if len(pixels)) == span


@pytest.mark.parametrize(
    ("layer", "size", "stride", "center"),
    [
        (layers.UpSampling2D(2), 1, 0.5, -0.25),
        (layers.UpSampling2D(4), 1, 0.25, -0.375),
        (layers.UpSampling2D(2, interpolation="bilinear"), 2, 0.5, -0.25),
        (layers.UpSampling2D(3, interpolation="bilinear"), 2, 1 / 3, -1 / 3),
        (layers.UpSampling2D(2, interpolation="bicubic"), 4, 0.5, -0.25),
        (layers.Resizing(12, 12), 2, 2 / 3, -1 / 6),
        (layers.Resizing(4, 4), 2, 2, 0.5),
        (layers.Resizing(4, 4, interpolation="nearest"), 1, 2, 1),
        (layers.Resizing(8, 8), 1, 1, 0),
        (layers.Conv2DTranspose(2, 2, strides=2), 1, 0.5, -0.25),
        (layers.Conv2DTranspose(2, 4, strides=2, padding="same"), 2, 0.5, -0.25),
        (layers.Conv2DTranspose(2, 3, strides=1, padding="same"), 3, 1, 0),
        (layers.Conv2DTranspose(2, 3, strides=1), 3, 1, -1),
        (layers.Conv2DTranspose(2, 3, dilation_rate=2), 5, 1, -2),
    ],
)
def test_layers_that_make_maps_larger(layer, size, stride, center):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, layer(images))
    row = receptive_field(model)[-1]
    assert row.size == (size, size)
    assert row.stride == pytest.approx((stride, stride))
    assert row.center == pytest.approx((center, center))
    assert backward_receptive_field(model)[-1] == (size, size)


def test_a_u_net_sees_what_its_deepest_layer_sees():
    """conv 3, pool 2, conv 3, up 2, add: the deep branch sees 3 + 1 + 2 * 2 pixels, the convolution after it more."""
    images = keras.Input((32, 32, 3))
    high = layers.Conv2D(4, 3, padding="same")(images)
    low = layers.Conv2D(4, 3, padding="same", name="low")(layers.MaxPooling2D(2)(high))
    x = layers.Add(name="add")([high, layers.UpSampling2D(2)(low)])
    rows = fields(keras.Model(images, layers.Conv2D(2, 3, padding="same", name="last")(x)))
    assert rows["low"].size == rows["add"].size == (8, 8)
    assert rows["add"].stride == (1, 1)
    assert rows["last"].size == (10, 10)  # three pixels lie in two of the low map


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_100", "mobilenet_v3_sample"])
def test_backwards_gives_the_same(name):
    model = keraslight.create_model(name, input_shape=(64, 96, 3), width=0.25)
    rows = receptive_field(model)
    assert backward_receptive_field(model) == [row.size for row in rows]
    assert sum(not row.whole for row in rows) > 10


def test_backwards_gives_the_same_for_open_sizes_shared_layers_and_cropping():
    images = keras.Input((None, None, 3))
    shared = layers.Conv2D(3, 3, dilation_rate=2, name="shared")
    x = layers.Cropping2D(1)(shared(layers.ZeroPadding2D(2)(shared(images))))
    x = layers.MaxPooling2D(3, strides=2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, x)
    assert backward_receptive_field(model) == [row.size for row in receptive_field(model)]
    assert [size[0] for size in backward_receptive_field(model)] == [1, 5, 5, 9, 9, 11, None]


@pytest.mark.parametrize("order", [(5, 1), (1, 5)])
def test_of_two_branches_the_wider_counts_backwards_in_either_order(order):
    images = keras.Input((32, 32, 3))
    x = layers.Add()([layers.Conv2D(4, size, padding="same")(images) for size in order])
    model = keras.Model(images, x)
    assert backward_receptive_field(model)[-1] == receptive_field(model)[-1].size == (5, 5)


def test_bicubic_sees_a_pixel_more_on_either_side_than_bilinear():
    images = keras.Input((12, 12, 1))
    sizes = {
        kind: receptive_field(keras.Model(images, layers.Resizing(24, 24, interpolation=kind)(images)))[-1].size
        for kind in ("bilinear", "bicubic")
    }
    assert sizes == {"bilinear": (2, 2), "bicubic": (4, 4)}


def test_branches_padding_and_cropping():
    images = keras.Input((32, 32, 3))
    wide = layers.Conv2D(4, 5, strides=2, padding="same", name="wide")(images)
    narrow = layers.Conv2D(4, 1, strides=2, name="narrow")(images)
    x = layers.Concatenate(name="both")([wide, narrow])
    x = layers.Cropping2D(((1, 0), (0, 0)), name="crop")(x)
    x = layers.Conv2D(4, (3, 1), name="high")(layers.ZeroPadding2D(1, name="pad")(x))
    rows = fields(keras.Model(images, x))
    assert rows["wide"] == ("wide", (5, 5), (2, 2), (1.0, 1.0), False)  # 3 pixels missing: 1 before, 2 after
    assert rows["narrow"] == ("narrow", (1, 1), (2, 2), (0.0, 0.0), False)
    assert rows["both"] == ("both", (5, 5), (2, 2), (1.0, 1.0), False)  # -1 to 3
    assert rows["crop"].center == (3.0, 1.0)
    assert rows["pad"].center == (1.0, -1.0)
    assert rows["high"] == ("high", (9, 5), (2, 2), (3.0, -1.0), False)


def test_the_whole_image():
    images = keras.Input((16, 12, 4))
    x = layers.Conv2D(4, 3, strides=2, name="conv")(images)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply(name="scale")([x, gate])
    x = layers.Conv2D(4, 3, strides=2, name="after")(x)
    x = layers.Dense(3, name="dense")(layers.Flatten(name="flat")(x))
    rows = fields(keras.Model(images, x))
    assert rows["mean"] == ("mean", (16, 12), (0, 0), (7.5, 5.5), True)
    assert rows["gate"] == rows["mean"]._replace(name="gate")
    assert rows["scale"] == ("scale", (16, 12), (2, 2), (7.5, 5.5), True)
    assert rows["after"].stride == (4, 4)
    assert rows["flat"].stride == rows["dense"].stride == (0, 0)


def test_shuffled_channels_keep_their_pixels_and_attention_mixes_them():
    shuffled = fields(keraslight.create_model("shufflenet_v1_g3_100", input_shape=(64, 64, 3)))
    assert not any(field.whole for name, field in shuffled.items() if name.startswith("stage"))
    hybrid = fields(keraslight.create_model("mobilenet_v4_hybrid_medium", input_shape=(64, 64, 3)))
    names = list(hybrid)
    assert not any(hybrid[name].whole for name in names[: names.index("stage2_block4_query_rows")])
    assert hybrid["stage2_block4_key_rows"].stride == (32, 32)
    assert hybrid["stage2_block4_add"] == ("stage2_block4_add", (64, 64), (16, 16), (31.5, 31.5), True)
    assert all(hybrid[name].whole for name in names[names.index("stage2_block4_add") :])


def test_rotation_equivariant_and_conditional_convolutions():
    images = keras.Input((9, 9, 3))
    x = C4LiftingConv2D(2, 3, strides=2, name="lift")(images)
    x = C4GroupPooling(name="pool")(C4GroupConv2D(2, 3, name="group")(x))
    x = ConditionalConv2D(2, 3, experts=2, strides=2, name="conditional")(x)
    rows = fields(keras.Model(images, x))
    assert rows["lift"] == ("lift", (3, 3), (2, 2), (0.0, 0.0), False)
    assert rows["pool"] == ("pool", (7, 7), (2, 2), (0.0, 0.0), False)
    assert rows["conditional"] == ("conditional", (9, 9), (4, 4), (4.0, 4.0), True)  # routed by the map's mean


def test_nested_and_shared_layers():
    inside = keras.Input((None, None, 2))
    shared = layers.Conv2D(2, 3, name="conv")
    inner = keras.Model(inside, shared(shared(inside)), name="inner")
    images = keras.Input((20, 20, 2))
    rows = receptive_field(keras.Model(images, layers.MaxPooling2D(2, name="pool")(inner(inner(images)))))
    assert [row.name for row in rows][1:] == ["inner/conv"] * 4 + ["pool"]
    assert [row.size[0] for row in rows] == [1, 3, 5, 7, 9, 10]


def test_sizes_left_open():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layers.Conv2D(2, 3, strides=2, padding="same", name="stem")(images))
    with pytest.raises(InvalidArgumentError, match="needs a fixed input size.* Received: layer 'stem"):
        receptive_field(model)
    assert receptive_field(model, (8, 9, 3))[-1].center == (1.0, 0.0)  # an even side is padded behind only
    with pytest.raises(InvalidArgumentError, match="must agree with the model's inputs"):
        receptive_field(model, (8, 9, 4))


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (layers.Conv2DTranspose(2, 3, strides=2, output_padding=1, name="it"), "followed without `output_padding`"),
        (layers.UpSampling2D(interpolation="lanczos3", name="it"), "must be nearest, bilinear or bicubic"),
        (layers.Resizing(4, 4, antialias=True, name="it"), "without anti-aliasing"),
        (layers.Resizing(6, 9, crop_to_aspect_ratio=True, name="it"), "to an aspect ratio"),
        (layers.Lambda(lambda x: x[:, ::-1], output_shape=(8, 8, 3), name="it"), "type of layer is not known"),
        (layers.Concatenate(axis=1, name="it"), "along their channels"),
    ],
)
def test_what_is_not_known_is_refused(layer, text):
    images = keras.Input((8, 8, 3))
    x = layer([images, images]) if isinstance(layer, layers.Concatenate) else layer(images)
    with pytest.raises(InvalidArgumentError, match=f"{text}.* Received: layer 'it' of type {type(layer).__name__}"):
        receptive_field(keras.Model(images, x))


def test_a_layer_derived_with_a_call_of_its_own_is_not_taken_for_its_parent():
    class Flipped(layers.ReLU):
        def call(self, inputs):
            return inputs[:, ::-1]

    images = keras.Input((8, 8, 3))
    with pytest.raises(InvalidArgumentError, match="not known. Received: layer 'f' of type Flipped"):
        receptive_field(keras.Model(images, Flipped(name="f")(images)))


def different_sizes(images):
    return layers.Concatenate(name="c")([layers.MaxPooling2D(2)(images), layers.Conv2D(2, 5)(images)])


def no_grid(images):
    return layers.Conv2D(2, 3)(layers.Reshape((4, 4, 12))(images))


@pytest.mark.parametrize(
    ("outputs", "text"), [(different_sizes, "same stride and size"), (no_grid, "A window needs a grid of pixels")]
)
def test_layers_that_do_not_fit_are_rejected(outputs, text):
    images = keras.Input((8, 8, 3))
    with pytest.raises(InvalidArgumentError, match=text):
        receptive_field(keras.Model(images, outputs(images)))


def test_a_model_of_two_images_is_rejected():
    images, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(InvalidArgumentError, match="must have one input, an image"):
        receptive_field(keras.Model([images, other], layers.Add()([images, other])))


def test_a_model_without_a_graph_is_rejected():
    with pytest.raises(InvalidArgumentError, match="must be a functional Keras 3 model"):
        receptive_field(keras.Sequential([layers.Conv2D(2, 3)]))
