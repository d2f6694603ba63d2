"""Nets of a convolution and a dense layer, on images that such nets tell apart."""

import types

import keras
import pytest

from keraslight.layers import ImageNormalization
from keraslight.search import _search
from keraslight.training import Recipe
from tests.bars import SMALL, bars


@pytest.fixture(scope="session")
def data():
    return bars()


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
