"""The table of layer kinds."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keraslight import layers as own
from keraslight.graph import read
from keraslight.graph.kinds import (
    KINDS,
    UNKNOWN,
    activation_of,
    affine,
    base_kind,
    exact_kind,
    kind,
    operation_name,
)


def identity(x):
    return x


class Renamed(layers.ReLU):
    """Keeps `call`, so it computes what its base class computes."""


class Flipped(layers.ReLU):
    """Has a `call` of its own, so it may compute anything."""

    def call(self, inputs):
        return inputs[:, ::-1]


class FlippedConv2D(layers.Conv2D):
    def call(self, inputs):
        return super().call(inputs)[:, ::-1]


@pytest.mark.parametrize("name", own.__all__)
def test_every_layer_of_keraslight_has_a_row(name):
    row = KINDS[getattr(own, name)]
    assert row.macs is not None
    assert row.field is not None


def test_a_subclass_that_keeps_call_is_of_its_base_s_kind():
    assert kind(Renamed()) is base_kind(Renamed) is KINDS[layers.ReLU]


def test_a_subclass_with_a_call_of_its_own_computes_something_unknown():
    assert kind(Flipped()) is UNKNOWN
    assert kind(FlippedConv2D(2, 3)) is UNKNOWN


def test_a_subclass_with_a_call_of_its_own_is_stored_like_its_base():
    assert base_kind(Flipped) is KINDS[layers.ReLU]
    assert base_kind(FlippedConv2D).prunes == "kernel"


def test_rewrites_ask_for_the_exact_class():
    assert exact_kind(layers.ReLU) is KINDS[layers.ReLU]
    assert exact_kind(Renamed) is UNKNOWN


def test_layers_that_nobody_listed_are_unknown():
    assert kind(layers.Hashing(2)) is base_kind(layers.Hashing) is UNKNOWN


def test_bare_operations_have_rows_by_name():
    images = keras.Input((4, 4))
    add, matmul, sort = read(keras.Model(images, ops.sort(ops.matmul(images + 1, images)))).calls
    assert kind(add.layer).field == "merge"
    assert kind(matmul.layer).macs(matmul.layer, [(None, 4, 4)] * 2, [(None, 4, 4)]) == 4**3
    assert kind(matmul.layer).int8 == "converted"
    assert kind(sort.layer) is UNKNOWN
    assert operation_name(add.layer) == "ops.Add"
    assert operation_name(layers.ReLU()) == "ReLU"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(6), "relu6"),
        (layers.Activation("hard_silu"), "hard_silu"),
        (layers.Activation("linear"), "linear"),
        (layers.ReLU(5), None),
        (layers.ReLU(negative_slope=0.1), None),
        (layers.ReLU(threshold=1.0), None),
        (layers.Activation(identity), None),
        (layers.Dense(2, activation="relu"), None),
        (Renamed(), None),
    ],
)
def test_activation_of(layer, name):
    assert activation_of(layer) == name


def random_norm():
    norm = layers.BatchNormalization()
    norm.build((None, 3))
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 2, 3).astype("float32") for _ in range(4)])
    return norm


@pytest.mark.parametrize(
    "layer",
    [
        random_norm,
        lambda: layers.Rescaling(0.5, offset=-1.0),
        lambda: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
        lambda: own.LayerScale(0.3),
    ],
    ids=["BatchNormalization", "Rescaling", "Normalization", "LayerScale"],
)
def test_affine_layers_scale_and_shift(layer):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    made = layer()
    expected = np.asarray(made(x))
    scale, shift = affine(made)
    np.testing.assert_allclose(x * scale + shift, expected, rtol=1e-5, atol=1e-6)


def test_other_layers_are_not_affine():
    assert affine(layers.ReLU()) is None
    assert affine(layers.Normalization(mean=0.0, variance=1.0, invert=True)) is None
