"""Nets of a convolution and a dense layer, on images that such nets tell apart."""

import types

import keras
import numpy as np
import pytest

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.search import _search
from keraslight.training import ImageData, Recipe

SMALL = Preprocessing(size=(12, 12), crop_mode="squash", interpolation="bilinear", mean=(0.5,), std=(0.5,))


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
def recipe():
    return Recipe(epochs=1, batch_size=16, learning_rate=0.01)


def small_net(trial):
    images = keras.Input((12, 12, 1))
    x = ImageNormalization(SMALL)(images)
    stride = trial.suggest_categorical("stride", [2, 3])
    x = keras.layers.Conv2D(trial.suggest_int("width", 2, 9), 3, strides=stride, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))


@pytest.fixture
def trained(monkeypatch):
    """Replaces the training by none, and gives the list of the run folders in which it would have been."""
    folders = []

    def train(model, data, recipe, *, run_dir, **options):
        folders.append(run_dir.name)
        return types.SimpleNamespace(model=model)

    monkeypatch.setattr(_search, "train", train)
    return folders
