"""RandAugment against Pillow, operation by operation, and its draws."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from keraslight.errors import InvalidArgumentError
from keraslight.training import Augmentation, _rand_augment as ra

SEED = (3, 4)


@pytest.fixture(scope="module")
def photos():
    """Two photographs at 48 x 64, float32."""
    files = [Image.fromarray(array).resize((64, 48)) for array in load_sample_images().images]
    return np.stack([np.asarray(file, np.float32) for file in files])


def pillow(images, change):
    return np.stack([np.asarray(change(Image.fromarray(image.astype(np.uint8))), np.float32) for image in images])


@pytest.mark.parametrize(
    ("operation", "strength", "change", "within"),
    [
        (ra._equalize, 0.0, ImageOps.equalize, 0.0),
        (ra._auto_contrast, 0.0, ImageOps.autocontrast, 1.0),
        (ra._invert, 0.0, ImageOps.invert, 0.0),
        (ra._posterize, 0.5, lambda image: ImageOps.posterize(image, 2), 0.0),
        (ra._posterize, 0.9, lambda image: ImageOps.posterize(image, 1), 0.0),
        (ra._solarize, 0.5, lambda image: ImageOps.solarize(image, 128), 0.0),
        (ra._color, 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45), 1.6),
        (ra._color, -0.5, lambda image: ImageEnhance.Color(image).enhance(0.55), 1.6),
        (ra._contrast, 0.5, lambda image: ImageEnhance.Contrast(image).enhance(1.45), 1.6),
        (ra._brightness, -0.9, lambda image: ImageEnhance.Brightness(image).enhance(0.19), 1.0),
        (ra._sharpness, 0.9, lambda image: ImageEnhance.Sharpness(image).enhance(1.81), 2.1),
        (ra._sharpness, -0.9, lambda image: ImageEnhance.Sharpness(image).enhance(0.19), 2.1),
    ],
)
def test_operations_are_pillows(photos, operation, strength, change, within):
    amount, sign = np.full(2, abs(strength), np.float32), np.full(2, np.sign(strength), np.float32)
    found = operation(tf.constant(photos), tf.constant(amount), tf.constant(sign)).numpy()
    assert np.abs(found - pillow(photos, change)).max() <= within


def test_brighter_below_the_middle_only(photos):
    found = ra._solarize_add(tf.constant(photos), tf.ones(2), tf.ones(2)).numpy()
    np.testing.assert_allclose(found, np.where(photos < 128, np.minimum(photos + 110, 255), photos))


def test_a_shift_by_45_percent_and_a_turn_by_30_degrees():
    """Of a dot: the matrix takes places of the result to those of the image."""
    image = np.zeros((1, 41, 41, 1), np.float32)
    image[0, 20, 32] = 255
    for matrix, place in ((ra._WARPS[3], (20, 32 - 18)), (ra._rotation, (14, 30))):
        found = ra._warped(matrix, "constant")(tf.constant(image), tf.ones(1), tf.ones(1)).numpy()[0, ..., 0]
        np.testing.assert_allclose(np.unravel_index(found.argmax(), found.shape), place, atol=1)


def test_each_image_has_draws_of_its_own(photos):
    copies = tf.constant(np.repeat(photos[:1], 32, axis=0))
    change = Augmentation(rand_layers=2, rand_magnitude=9, rand_std=0.5)
    found = change(copies, SEED).numpy()
    assert len({image.tobytes() for image in found}) >= 28
    assert (found == change(copies, SEED).numpy()).all()
    assert not (found == change(copies, (3, 5)).numpy()).all()
    assert found.shape == copies.shape
    assert 0 <= found.min() <= found.max() <= 255


def test_nothing_is_changed_without_probability_and_gray_images_pass(photos):
    assert (Augmentation(rand_layers=2, rand_probability=0)(tf.constant(photos), SEED).numpy() == photos).all()
    grays = np.repeat(photos[..., :1], 16, axis=0)
    found = tf.function(Augmentation(rand_layers=3, rand_probability=1))(tf.constant(grays), tf.constant(SEED)).numpy()
    assert found.shape == grays.shape
    assert np.isfinite(found).all()


def test_strength_grows_the_change(photos):
    copies = tf.constant(np.repeat(photos[:1], 64, axis=0))
    changes = [
        np.abs(Augmentation(rand_layers=1, rand_magnitude=m, rand_probability=1)(copies, SEED).numpy() - copies).mean()
        for m in (1, 5, 10)
    ]
    assert changes == sorted(changes)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rand_layers": -1}, r"`rand_layers` must be at least 0\. Received: rand_layers=-1\."),
        ({"rand_magnitude": 31}, r"`rand_magnitude` must be in \[0, 30\]\. Received: rand_magnitude=31\."),
        ({"rand_probability": 2}, r"`rand_probability` must be in \[0, 1\]\. Received: rand_probability=2\."),
        ({"rand_std": float("nan")}, r"`rand_std` must be at least 0\. Received: rand_std=nan\."),
        ({"erase": -0.1}, r"`erase` must be in \[0, 1\]\. Received: erase=-0.1\."),
        ({"crop": (0.5, 0.2)}, r"`crop` must be the least and .* in \(0, 1\]\. Received: \(0.5, 0.2\)\."),
        ({"crop": (0, 1)}, r"`crop` must be"),
        ({"crop": (0.5,)}, r"`crop` must be"),
    ],
)
def test_values_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Augmentation(**values)


# ---------------------------------------------------------------- crops and erasing


def test_crops_keep_the_drawn_share_and_enlarge_it():
    """Of coordinates as pixels, so that each result says which part of the image it is."""
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(60.0), indexing="ij")
    image = np.stack([rows, columns], -1).astype(np.float32)
    found = Augmentation(crop=(0.25, 0.5))(tf.constant(np.repeat(image[None], 200, axis=0)), SEED).numpy()
    heights = (found[:, -1, 0, 0] - found[:, 0, 0, 0]) / 39
    widths = (found[:, 0, -1, 1] - found[:, 0, 0, 1]) / 59
    shares, aspects = heights * widths, widths / heights
    assert shares.min() > 0.24
    assert shares.max() < 0.51
    assert shares.max() - shares.min() > 0.2
    assert aspects.min() > 0.74
    assert aspects.max() < 1.34
    assert found[..., 0].min() >= -1e-3
    assert found[..., 0].max() <= 39.001
    assert found[:, 0, 0, 0].std() > 3  # all over the image
    whole = Augmentation(crop=(1.0, 1.0))(tf.constant(image[None]), SEED).numpy()
    assert np.abs(whole - image).max() < 40 * (1 - 0.75**0.5)  # of another form, a little less than the whole


def test_erasing_replaces_a_rectangle_of_the_stated_size_by_noise():
    images = tf.fill([400, 30, 30, 1], -1.0)
    found = Augmentation(erase=0.5)(images, SEED).numpy()[..., 0]
    erased = found != -1
    touched = erased.any((1, 2))
    assert 0.4 < touched.mean() < 0.6
    for mask in erased[touched]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()
        assert 0.005 < mask.mean() < 0.36
    assert 110 < found[erased].mean() < 145
    assert found[erased].min() >= 0
