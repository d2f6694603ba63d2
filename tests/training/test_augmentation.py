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

    shifted = Augmentation(shift=0.2, edges="constant")(tf.constant(dot), [3, 4]).numpy()[..., 0]
    rows, columns = np.mgrid[:15, :15]
    for axis in (rows, columns):
        centre = (shifted * axis).sum((1, 2)) / shifted.sum((1, 2)) - 7
        assert np.abs(centre).max() <= 3 + 1e-3  # 0.2 of 15 pixels
        assert np.abs(centre).max() > 2
        assert abs(centre.mean()) < 0.8


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
    assert np.max(Augmentation(brightness=1.0)(tf.fill((32, 4, 4, 1), 250.0), [0, 0])) == 255


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"shift": 1.0}, r"`shift` must be in \[0, 1\)\. Received: shift=1\.0\."),
        ({"zoom": -0.1}, r"`zoom` must be in \[0, 1\)\. Received: zoom=-0\.1\."),
        ({"rotate_degrees": 181}, r"`rotate_degrees` must be in \[0, 180\]\. Received: rotate_degrees=181\."),
        ({"brightness": 2}, r"`brightness` must be in \[0, 1\]\. Received: brightness=2\."),
        ({"edges": "wrap"}, r"`edges` must be one of \('reflect', 'nearest', 'constant'\)\. Received: 'wrap'\."),
    ],
)
def test_values_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Augmentation(**values)
