"""Small nets and small data: the trainer's promises do not depend on the size of either."""

import keras
import numpy as np
import pytest

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import Augmentation, ImageData, Recipe

SMALL = Preprocessing(size=(12, 12), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture(scope="session")
def data():
    """120 images of three classes, told apart by where the bright bar is, with noise."""
    random = np.random.default_rng(0)
    targets = np.arange(120) % 3
    pixels = random.integers(0, 120, (120, 12, 12, 1), dtype=np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image[4 * target : 4 * target + 3] += 100
    return ImageData.from_arrays(pixels, targets, ["top", "middle", "bottom"], SMALL)


@pytest.fixture(scope="session")
def build():
    """A builder of a small net with all that an exact resume has to restore: statistics, dropout, moments."""

    def build(classes=3, *, activation="softmax", normalization=None, size=12, filters=6):
        layers = keras.layers
        images = keras.Input((size, size, 1))
        x = (normalization or ImageNormalization(SMALL))(images)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Flatten()(layers.DepthwiseConv2D(3, strides=2, activation="relu")(x))
        x = layers.Dropout(0.2)(x)
        return keras.Model(images, layers.Dense(classes, activation=activation)(x))

    return build


@pytest.fixture(scope="session")
def recipe():
    return Recipe(
        epochs=4,
        batch_size=16,
        learning_rate=0.01,
        warmup_epochs=1,
        augmentation=Augmentation(shift=0.05, rotate_degrees=5, zoom=0.05, brightness=0.1),
        seed=5,
    )
