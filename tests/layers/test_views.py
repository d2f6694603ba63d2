import copy
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight.errors import InvalidArgumentError
from keraslight.layers import ImageNormalization, ImageStandardization, ImageViews, MergeViews
from keraslight.preprocessing import Preprocessing

SCALES, TURNS = (0.75, 1, 1.3), (-20, 0, 33, 90)


def warped(images, degrees, scale):
    """By TensorFlow's kernel, about the center, with zeros from outside."""
    height, width = images.shape[1:3]
    angle, x, y = math.radians(degrees), (width - 1) / 2, (height - 1) / 2
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    transform = [c, -s, x - c * x + s * y, s, c, y - s * x - c * y, 0, 0]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=[transform],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    ).numpy()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 11, 14, 3)).astype("float32")


@pytest.mark.parametrize("shape", [(11, 14, 3), (None, None, 3), (None, 14, 3)])
def test_views_are_those_of_tensorflows_kernel_in_order(images, shape):
    inputs = keras.Input(shape)
    layer = ImageViews(SCALES, TURNS, True)
    model = keras.Model(inputs, ImageViews.from_config(layer.get_config())(inputs))
    assert model.output_shape == (None, *shape)
    found = np.asarray(model(images)).reshape(2, layer.count, 11, 14, 3)
    place = 0
    for mirrored in (False, True):
        for degrees in TURNS:
            for scale in SCALES:
                wanted = warped(images[:, :, ::-1] if mirrored else images, degrees, scale)
                np.testing.assert_allclose(found[:, place], wanted, atol=0.02)  # float32 of TensorFlow's places
                place += 1
    assert place == layer.count == 24
    np.testing.assert_array_equal(found[:, 4], images)  # nothing is interpolated where nothing moves
    np.testing.assert_array_equal(found[:, 16], images[:, :, ::-1])


def test_positive_angles_turn_counterclockwise_and_larger_scales_enlarge():
    bar = np.zeros((1, 5, 5, 1), "float32")
    bar[0, 2, 3:] = 1  # from the center to the right
    turned, enlarged = np.asarray(ImageViews((1,), (90,))(bar)), np.asarray(ImageViews((2,), (0,))(bar))
    assert turned[0, :2, 2, 0].round(3).tolist() == [1, 1]
    assert enlarged.sum() > bar.sum()


def test_integers_stay_integers_and_whole_rounds():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1), "uint8")
    layer = ImageViews((0.8,), whole=True)
    found, rounded = (np.asarray(layer(each)) for each in (images, images.astype("float32")))
    assert (found.dtype, rounded.dtype) == ("uint8", "float32")
    np.testing.assert_array_equal(found, rounded)
    np.testing.assert_array_equal(rounded, np.asarray(ImageViews((0.8,))(images.astype("float32"))).round())
    assert layer(keras.Input((6, 6, 1), dtype="uint8")).dtype == "uint8"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scales": (1, 0)}, "`scales` must be above 0. Received: scales=(1.0, 0.0)"),
        ({"scales": (1, -2)}, "`scales` must be above 0"),
        ({"scales": ()}, "`scales` must be one or more finite numbers"),
        ({"scales": 1.3}, "`scales` must be one or more finite numbers, each only once. Received: scales=1.3"),
        ({"scales": (1, 1)}, "each only once"),
        ({"scales": "12"}, "`scales` must be one or more finite numbers"),
        ({"rotations": (float("nan"),)}, "`rotations` must be one or more finite numbers"),
        ({"rotations": ("left",)}, "`rotations` must be one or more finite numbers"),
        ({"flip": 1}, "`flip` must be True or False. Received: flip=1"),
    ],
)
def test_views_that_cannot_be(arguments, text):
    with pytest.raises(InvalidArgumentError) as error:
        ImageViews(**arguments)
    assert text in str(error.value)


def test_merging():
    views = np.array([[[0.5, 0.3, 0.2], [0.1, 0.75, 0.15]], [[0.9, 0.04, 0.06], [0.12, 0.08, 0.8]]], "float32")
    flat = views.reshape(4, 3)

    def merged(merge, independent=False):
        return np.asarray(MergeViews.from_config(MergeViews(2, merge, independent).get_config())(flat))

    np.testing.assert_allclose(merged("certain"), [views[0, 1], views[1, 0]], rtol=1e-6)
    np.testing.assert_allclose(merged("mean"), views.mean(1), rtol=1e-6)
    geometric = np.sqrt(views.prod(1))
    np.testing.assert_allclose(merged("log"), geometric / geometric.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(merged("certain", True), [[0.1, 0.75, 0.15], [0.9, 0.04, 0.06]], rtol=1e-6, atol=1e-7)
    odds = np.sqrt((views / (1 - views)).prod(1))
    np.testing.assert_allclose(merged("log", True), odds / (1 + odds), rtol=1e-5)


@pytest.mark.parametrize("independent", [False, True])
def test_merging_certainties_of_0_and_1_makes_numbers(independent):
    for merge in ("certain", "mean", "log"):
        found = np.asarray(MergeViews(2, merge, independent)(np.array([[0, 1.0], [1, 0]], "float32")))
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"count": 0}, "`count` must be an integer of at least 1. Received: count=0"),
        ({"count": 2, "merge": "max"}, r"`merge` must be one of \('certain', 'mean', 'log'\). Received: merge='max'"),
    ],
)
def test_merges_that_cannot_be(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        MergeViews(**arguments)


PER_IMAGE = Preprocessing((11, 14), per_image=True)


@pytest.mark.parametrize("shape", [(11, 14, 3), (None, None, 3)])
def test_standardization_is_tensorflows(images, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, ImageNormalization(PER_IMAGE)(inputs))
    flat = np.concatenate([images, np.full_like(images[:1], 200), images[:1] * 1e-4])  # std below 1 / sqrt(n)
    np.testing.assert_allclose(model(flat), tf.image.per_image_standardization(flat), atol=1e-5)


def test_a_preprocessing_per_image_makes_a_layer_of_its_own():
    layer = ImageNormalization(PER_IMAGE)
    assert type(layer) is ImageStandardization
    assert type(ImageNormalization(PER_IMAGE.to_dict())) is ImageStandardization
    again = ImageStandardization.from_config(layer.get_config())
    assert (again.preprocessing, again.name) == (PER_IMAGE, "preprocessing")
    assert type(ImageNormalization(PER_IMAGE.replace(per_image=False))) is ImageNormalization
    with pytest.raises(InvalidArgumentError, match="`preprocessing` must have per_image=True"):
        ImageStandardization(Preprocessing((4, 4)))
    built = keras.Sequential([keras.Input((11, 14, 3)), layer])
    assert type(copy.deepcopy(built).layers[0]) is ImageStandardization


def test_standardized_images_are_the_same_in_any_light(images):
    layer = ImageNormalization(PER_IMAGE)
    for changed in (images * 0.3, images + 80, images * 0.3 + 90):
        np.testing.assert_allclose(layer(changed), layer(images), atol=1e-4)
