import numpy as np
import pytest
import tensorflow as tf

from keraslight.errors import InvalidArgumentError
from keraslight.training import Augmentation


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 14, 3)).astype(np.float32)
    return tf.constant(pixels)


def test_nothing_switched_on_changes_nothing(images):
    np.testing.assert_array_equal(Augmentation()(images, [1, 2]), images)


def test_same_seed_same_images_and_other_seed_other_images(images):
    augmentation = Augmentation(shift=0.1, rotate_degrees=20, zoom=0.2, brightness=0.1, flip=True)
    once = augmentation(images, [1, 2])
    np.testing.assert_array_equal(once, augmentation(images, [1, 2]))
    assert np.abs(once - augmentation(images, [1, 3])).max() > 1
    assert once.shape == images.shape
    assert once.dtype == tf.float32
    assert 0 <= np.min(once) <= np.max(once) <= 255


def test_flip_mirrors_some_images_exactly(images):
    flipped = Augmentation(flip=True)(images, [0, 1]).numpy()
    mirrored = [np.allclose(new, old[:, ::-1], atol=1e-2) for new, old in zip(flipped, images.numpy(), strict=True)]
    same = [np.allclose(new, old, atol=1e-2) for new, old in zip(flipped, images.numpy(), strict=True)]
    assert all(np.logical_xor(mirrored, same))
    assert 0 < sum(mirrored) < len(mirrored)


def test_rotation_and_zoom_keep_the_centre_and_shift_stays_in_range():
    dot = np.zeros((64, 15, 15, 1), np.float32)
    dot[:, 7, 7] = 255
    turned = Augmentation(rotate_degrees=90, zoom=0.3)(tf.constant(dot), [3, 4]).numpy()
    np.testing.assert_allclose(turned[:, 7, 7], 255, atol=0.1)

    wide = np.zeros((64, 15, 31, 1), np.float32)
    wide[:, 7, 15] = 255
    shifted = centres(Augmentation(shift=0.2, edges="constant")(tf.constant(wide), [3, 4]).numpy())
    for centre, most in zip(shifted.T, (6.2, 3), strict=True):  # 0.2 of 31 and of 15 pixels
        assert np.abs(centre).max() <= most + 1e-3
        assert np.abs(centre).max() > most * 0.7
        assert abs(centre.mean()) < most * 0.27


def centres(images):
    """Centre of each image's light, as (x, y) from the middle."""
    rows, columns = (axis - (axis.max() / 2) for axis in np.mgrid[: images.shape[1], : images.shape[2]])
    light = images[..., 0].sum((1, 2))
    return np.stack([(images[..., 0] * axis).sum((1, 2)) / light for axis in (columns, rows)], 1)


def test_rotation_takes_a_dot_along_its_circle():
    dot = np.zeros((64, 41, 41, 1), np.float32)
    dot[:, 14:17, 30:33] = 255  # at (11, -5) from the centre
    seed = [3, 4]
    turned = centres(Augmentation(rotate_degrees=60, edges="constant")(tf.constant(dot), seed).numpy())
    angles = np.radians(60) * tf.random.stateless_uniform([64, 6], seed, minval=-1, maxval=1).numpy()[:, 0]
    # The transform maps the output to the input, with y downwards.
    x, y = np.cos(angles) * 11 + np.sin(angles) * -5, -np.sin(angles) * 11 + np.cos(angles) * -5
    np.testing.assert_allclose(turned, np.stack([x, y], 1), atol=0.15)
    assert np.ptp(angles) > np.radians(90)


def test_zoom_scales_the_radius_of_a_ring():
    rows, columns = np.mgrid[:61, :61] - 30
    radius = np.hypot(rows, columns)
    ring = np.broadcast_to((np.abs(radius - 18) < 1.5)[None, ..., None] * 255.0, (32, 61, 61, 1)).astype(np.float32)
    seed = [1, 2]
    zoomed = Augmentation(zoom=0.4, edges="constant")(tf.constant(ring), seed).numpy()[..., 0]
    found = (zoomed * radius).sum((1, 2)) / zoomed.sum((1, 2))
    wanted = 18 * (1 + 0.4 * tf.random.stateless_uniform([32, 6], seed, minval=-1, maxval=1).numpy()[:, 1])
    np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert np.ptp(wanted) > 10


def gray(images):
    return (images @ np.array([0.299, 0.587, 0.114]))[..., None]


def factors(seed, column):
    return 1 + tf.random.stateless_uniform([8, 1, 1, 1, 2], np.add(seed, 1), minval=-1, maxval=1).numpy()[..., column]


def test_contrast_scales_around_the_mean_gray(images):
    pixels, seed = images.numpy(), [5, 6]
    middle = gray(pixels).mean((1, 2), keepdims=True)
    wanted = np.clip(middle + (pixels - middle) * (1 + 0.8 * (factors(seed, 0) - 1)), 0, 255)
    np.testing.assert_allclose(Augmentation(contrast=0.8)(images, seed), wanted, atol=1e-2)
    assert np.abs(wanted - pixels).max() > 30
    single = pixels[..., :1]
    middle = single.mean((1, 2), keepdims=True)
    wanted = np.clip(middle + (single - middle) * (1 + 0.8 * (factors(seed, 0) - 1)), 0, 255)
    np.testing.assert_allclose(Augmentation(contrast=0.8)(tf.constant(single), seed), wanted, atol=1e-2)


def test_saturation_scales_around_each_pixels_gray(images):
    pixels, seed = images.numpy(), [5, 6]
    wanted = np.clip(gray(pixels) + (pixels - gray(pixels)) * factors(seed, 1), 0, 255)
    np.testing.assert_allclose(Augmentation(saturation=1.0)(images, seed), wanted, atol=1e-2)
    assert np.abs(wanted - pixels).max() > 30
    unclipped = gray(np.clip(wanted, 0, 255))[np.all((wanted > 0) & (wanted < 255), -1)]
    np.testing.assert_allclose(unclipped, gray(pixels)[np.all((wanted > 0) & (wanted < 255), -1)], atol=1e-2)
    with pytest.raises(InvalidArgumentError, match=r"three channels. Received: saturation=0.5, images of 1 channels"):
        Augmentation(saturation=0.5)(images[..., :1], seed)


@pytest.mark.parametrize(("edges", "lowest"), [("constant", 0), ("nearest", 200), ("reflect", 200)])
def test_edges_decide_what_comes_in(edges, lowest):
    white = tf.fill((16, 10, 10, 1), 200.0)
    shifted = Augmentation(shift=0.4, edges=edges)(white, [0, 0])
    assert np.min(shifted) == pytest.approx(lowest, abs=1e-3)


def test_brightness_adds_one_amount_per_image_and_clips():
    grey = tf.fill((32, 4, 4, 1), 100.0)
    added = Augmentation(brightness=0.2)(grey, [0, 0]).numpy() - 100
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-3
    assert added.min() < -25
    assert added.max() > 25
    assert np.abs(added).max() <= 51
    # Brightness has a draw of its own.
    draws = tf.random.stateless_uniform([32, 6], [0, 0], minval=-1, maxval=1).numpy()
    np.testing.assert_allclose(added[:, 0, 0, 0], 51 * draws[:, 4], atol=1e-3)
    assert np.max(Augmentation(brightness=1.0)(tf.fill((32, 4, 4, 1), 250.0), [0, 0])) == 255


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"shift": 1.0}, r"`shift` must be in \[0, 1\)\. Received: shift=1\.0\."),
        ({"zoom": -0.1}, r"`zoom` must be in \[0, 1\)\. Received: zoom=-0\.1\."),
        ({"rotate_degrees": 181}, r"`rotate_degrees` must be in \[0, 180\]\. Received: rotate_degrees=181\."),
        ({"brightness": 2}, r"`brightness` must be in \[0, 1\]\. Received: brightness=2\."),
        ({"contrast": 1.5}, r"`contrast` must be in \[0, 1\]\. Received: contrast=1\.5\."),
        ({"saturation": -1}, r"`saturation` must be in \[0, 1\]\. Received: saturation=-1\."),
        ({"edges": "wrap"}, r"`edges` must be one of \('reflect', 'nearest', 'constant'\)\. Received: 'wrap'\."),
    ],
)
def test_values_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Augmentation(**values)
