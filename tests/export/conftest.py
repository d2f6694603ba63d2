"""A net that exports in a moment."""

import keras
import numpy as np
import pytest

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

SPEC = Preprocessing((8, 12), interpolation="bilinear")


@pytest.fixture(scope="session")
def build_net():
    """A function that builds raw pixels (8, 12, 3) -> 3 classes; the same weights for the same seed."""

    def build(seed=0, preprocessing=SPEC, activation="softmax"):
        keras.utils.set_random_seed(seed)
        images = keras.Input((*preprocessing.size, preprocessing.channels), name="images")
        x = ImageNormalization(preprocessing)(images)
        x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        x = keras.layers.ReLU(name="relu")(x)
        x = keras.layers.Dropout(0.2, name="dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
        model = keras.Model(images, keras.layers.Dense(3, activation=activation, name="classifier")(x), name="net")
        rng = np.random.default_rng(seed)
        for name in ("moving_mean", "moving_variance"):
            variable = getattr(model.get_layer("norm"), name)
            variable.assign(rng.uniform(0.2, 1, variable.shape))
        return model

    return build
