"""What a model takes and gives, read off its layers: the ways in which people build the ends of a classifier."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight.errors import InvalidArgumentError
from keraslight.graph.ends import final_activation, own_preprocessing
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training._loss import gives_logits


def classifier(activation="softmax"):
    images = keras.Input((4, 4, 1))
    return keras.Model(images, layers.Dense(3, activation=activation)(layers.Flatten()(images)))


def behind(*parts):
    """A functional model of the parts in a row."""
    x = images = keras.Input((4, 4, 1))
    for part in parts:
        x = part(x)
    return keras.Model(images, x)


def averaged(*names):
    images = keras.Input((4, 4, 1))
    return keras.Model(images, layers.Average()([classifier(name)(images) for name in names]))


ENDS = {
    "softmax in the last layer": (lambda: classifier(), "softmax"),
    "sigmoid in the last layer": (lambda: classifier("sigmoid"), "sigmoid"),
    "logits": (lambda: classifier(None), None),
    "Softmax": (lambda: behind(classifier(None), layers.Softmax()), "softmax"),
    "Activation": (lambda: behind(classifier(None), layers.Activation("softmax")), "softmax"),
    "operation": (lambda: behind(classifier(None), keras.ops.softmax), "softmax"),
    "operation sigmoid": (lambda: behind(classifier(None), keras.ops.sigmoid), "sigmoid"),
    "nested": (lambda: behind(layers.RandomFlip(), classifier()), "softmax"),
    "nested twice": (lambda: behind(behind(layers.Rescaling(2.0), classifier())), "softmax"),
    "nested logits": (lambda: behind(layers.RandomFlip(), classifier(None)), None),
    "sequential": (lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Rescaling(0.1), classifier()]), "softmax"),
    "cast": (lambda: behind(classifier(), layers.Activation("linear", dtype="float32")), "softmax"),
    "shape": (lambda: behind(classifier(), layers.Reshape((3, 1)), layers.Flatten(), layers.Identity()), "softmax"),
    "a model that only reshapes": (
        lambda: behind(classifier(), keras.Sequential([keras.Input((3,)), layers.Reshape((3,))])),
        "softmax",
    ),
    "average": (lambda: averaged("softmax", "softmax"), "softmax"),
    "average that disagrees": (lambda: averaged("softmax", None), "Average of no activation and softmax"),
    "relu": (lambda: classifier("relu"), "relu"),
    "only an input": (lambda: behind(layers.Flatten()), None),
}


@pytest.mark.parametrize("end", ENDS)
def test_final_activation(end):
    build, expected = ENDS[end]
    model = build()
    assert final_activation(model) == expected
    sums = np.asarray(model(np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype("float32"))).sum(axis=1)
    assert np.allclose(sums, 1, atol=1e-5) == (expected == "softmax")
    if expected in ("softmax", None):
        assert gives_logits(model) == (expected is None)
    else:
        with pytest.raises(InvalidArgumentError, match=rf"must end in a softmax .*Received: {expected} at the end of"):
            gives_logits(model)


def test_own_preprocessing():
    spec = Preprocessing((4, 4), mean=(0.5,), std=(0.25,))
    inner = behind(ImageNormalization(spec), classifier())
    assert own_preprocessing(inner) == spec
    assert own_preprocessing(behind(layers.RandomFlip(), inner)) == spec
    assert own_preprocessing(keras.Sequential([keras.Input((4, 4, 1)), inner])) == spec
    assert own_preprocessing(classifier()) is None
