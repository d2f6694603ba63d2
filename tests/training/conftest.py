"""Small nets and small data: the trainer's promises do not depend on the size of either."""

import keras
import pytest

from keraslight.layers import ImageNormalization
from keraslight.training import Augmentation, Recipe
from tests.bars import SMALL, bars


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture(scope="session")
def data():
    return bars()


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
