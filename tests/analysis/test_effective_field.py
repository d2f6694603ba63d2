import keras
import numpy as np
import pytest
from keras import layers

import keraslight
from keraslight.analysis import EffectiveReceptiveField, effective_receptive_field, receptive_field
from keraslight.errors import InvalidArgumentError


def stack(depth, side=41, **settings):
    """3x3 convolutions of ones: the gradient is the number of paths."""
    x = images = keras.Input((side, side, 1))
    for number in range(depth):
        x = layers.Conv2D(1, 3, padding="same", kernel_initializer="ones", name=f"conv{number}", **settings)(x)
    return keras.Model(images, x)


def test_one_convolution():
    field = effective_receptive_field(stack(1))
    assert field.layer == "conv0"
    expected = np.zeros((41, 41))
    expected[19:22, 19:22] = 1
    np.testing.assert_array_equal(field.map, expected)
    assert field.extent() == (3, 3)
    assert field.extent(0.3) == (1, 1)


@pytest.mark.parametrize("channels", [1, 2])
def test_signs_do_not_cancel_out(channels):
    """A pixel that makes the output smaller counts as one that makes it larger, in each channel."""
    kernel = np.ones((3, 3, channels, 1))
    kernel[0] = -1  # a row
    kernel[:, :, 1:] *= -1  # a channel
    images = keras.Input((9, 9, channels))
    layer = layers.Conv2D(1, 3, padding="same", use_bias=False)
    model = keras.Model(images, layer(images))
    layer.set_weights([kernel])
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(effective_receptive_field(model).map, expected)


def test_a_stack_counts_its_paths():
    """Luo et al., section 2.2: the map of equal weights is a convolution of boxes, a Gaussian of variance n * 2 / 3."""
    paths = np.ones(1)
    for _ in range(12):
        paths = np.convolve(paths, np.ones(3))
    field = effective_receptive_field(stack(12))
    np.testing.assert_allclose(field.map[8:33, 8:33], np.outer(paths, paths) / paths.max() ** 2, rtol=1e-5)
    assert receptive_field(stack(12))[-1].size == (25, 25)
    width = 2 * 1.96 * np.sqrt(12 * 2 / 3)  # 95 % of a Gaussian: 11.1 pixels
    assert field.extent()[0] == field.extent()[1] == 11
    assert field.extent()[0] == pytest.approx(width, abs=1)


def test_oblong_images_and_the_middle():
    images = keras.Input((12, 21, 2))
    x = layers.Conv2D(3, (1, 5), strides=(2, 2), kernel_initializer="ones", name="wide")(images)
    field = effective_receptive_field(keras.Model(images, x))
    rows, columns = np.nonzero(field.map)
    assert set(rows) == {6}  # place 3 of 6
    assert set(columns) == set(range(8, 13))  # place 4 of 9
    assert field.extent() == (1, 5)


@pytest.fixture
def nested():
    """A nested model, a shared layer, and a head without a map."""
    images = keras.Input((16, 16, 3))
    inside = keras.Input((16, 16, 3))
    inner = keras.Model(inside, layers.Conv2D(3, 3, padding="same", kernel_initializer="ones")(inside), name="inner")
    shared = layers.Conv2D(3, 3, padding="same", kernel_initializer="ones", name="shared")
    x = layers.ReLU(name="act")(shared(shared(inner(images))))
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    return keras.Model(images, layers.Dense(2, name="dense")(layers.Flatten()(pooled)))


ONES = np.ones((1, 16, 16, 3))


def test_the_last_map_is_the_default(nested):
    assert effective_receptive_field(nested, images=ONES).layer == "act"


@pytest.mark.parametrize(
    ("layer", "extent"),
    [("inner", (3, 3)), ("shared", (7, 7)), ("pool", (16, 16))],
    ids=["nested model", "last call of a shared layer", "everything"],
)
def test_any_layer_with_a_map(nested, layer, extent):
    assert effective_receptive_field(nested, layer, images=ONES).extent(1) == extent


@pytest.mark.parametrize(
    ("layer", "text"),
    [("dense", "Received: 'dense', an output of shape"), ("stem", "Received: 'stem', no such layer")],
)
def test_a_layer_without_a_map_is_rejected(nested, layer, text):
    with pytest.raises(InvalidArgumentError, match=f"must name a layer .* {text}"):
        effective_receptive_field(nested, layer)


def test_a_model_of_vectors_is_rejected():
    flat = keras.Model(vector := keras.Input((4,)), layers.Dense(2)(vector))
    with pytest.raises(InvalidArgumentError, match="must have one input, an image"):
        effective_receptive_field(flat)


def test_a_model_without_maps_is_rejected():
    images = keras.Input((16, 16, 3))
    pooled_only = keras.Model(images, layers.GlobalMaxPooling2D(name="p")(images), name="short")
    with pytest.raises(InvalidArgumentError, match="more than one place. Received: 'short'"):
        effective_receptive_field(pooled_only)


def test_a_net_sees_less_than_it_could():
    keras.utils.set_random_seed(0)
    model = keraslight.VGG("11", include_top=False, width=0.125, input_shape=(128, 128, 3))
    name = "stage3_pool"
    field = effective_receptive_field(model, name)
    theory = next(row for row in receptive_field(model) if row.name == name)
    place = model.get_layer(name).output.shape[1] // 2
    first = int(theory.center[0] + place * theory.stride[0] - (theory.size[0] - 1) / 2)
    inside = np.zeros((128, 128), bool)
    inside[max(first, 0) : first + theory.size[0], max(first, 0) : first + theory.size[0]] = True
    assert not field.map[~inside].any()
    assert field.map.max() == 1
    assert 0 < field.extent()[0] < 0.9 * theory.size[0]
    np.testing.assert_array_equal(field.map, effective_receptive_field(model, name, seed=0).map)
    assert (field.map != effective_receptive_field(model, name, seed=1).map).any()


def test_nothing_seen():
    images = keras.Input((8, 8, 1))
    x = layers.ReLU()(layers.Conv2D(1, 3, bias_initializer=keras.initializers.Constant(-1e6))(images))
    field = effective_receptive_field(keras.Model(images, x))
    assert not field.map.any()
    assert field.extent() == (0, 0)


@pytest.fixture
def open_sided():
    return keras.Model(images := keras.Input((None, None, 3)), layers.Conv2D(1, 3)(images))


def test_an_open_size_must_be_given(open_sided):
    with pytest.raises(InvalidArgumentError, match="give `size`, or `images`. Received: .* size=None"):
        effective_receptive_field(open_sided)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [({"size": 9}, (9, 9)), ({"size": (9, 12)}, (9, 12)), ({"images": np.ones((2, 7, 8, 3))}, (7, 8))],
    ids=["side", "sides", "images"],
)
def test_ways_to_give_an_open_size(open_sided, arguments, shape):
    assert effective_receptive_field(open_sided, **arguments).map.shape == shape


def test_a_size_that_does_not_fit_is_rejected():
    with pytest.raises(InvalidArgumentError, match=r"`size` must be .* images \(41, 41, 1\). Received: size=40"):
        effective_receptive_field(stack(1), size=40)


def test_images_that_do_not_fit_are_rejected():
    with pytest.raises(
        InvalidArgumentError, match=r"`images` must be .* size \(41, 41, 1\). Received: shape \(41, 41,"
    ):
        effective_receptive_field(stack(1), images=np.ones((41, 41, 1)))


def test_a_share_out_of_range_is_rejected():
    with pytest.raises(InvalidArgumentError, match=r"`share` must be in \(0, 1\]. Received: share=0"):
        EffectiveReceptiveField("x", np.ones((2, 2))).extent(0)
