"""Graphs that are run, and models built of graphs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keraslight import layers as own
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import build, read, run
from keraslight.rewrite import in_forms

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


def randomized(model):
    rng = np.random.default_rng(1)
    model.set_weights([np.abs(rng.normal(0.5, 0.2, value.shape)) for value in model.get_weights()])
    return model


def mixed_model():
    """A shared layer, a nested model called twice, a bare operation with a constant, and training-only layers."""
    inside = keras.Input((8, 8, 3))
    inner = keras.Model(inside, layers.BatchNormalization(name="norm")(inside), name="inner")
    images = keras.Input((8, 8, 3), name="images")
    shared = layers.Conv2D(3, 3, padding="same", name="conv")
    x = inner(shared(inner(shared(images))))
    x = own.GRN(name="grn")(layers.Dropout(0.5, name="drop")(x)) * 2.0
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return randomized(keras.Model(images, layers.Dense(4, name="classifier")(x), name="mixed"))


MODELS = {
    "mixed": mixed_model,
    "sequential": lambda: randomized(
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3, name="conv"), layers.Flatten()], name="row")
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_computes_what_its_model_computes(name):
    model = MODELS[name]()
    np.testing.assert_allclose(run(read(model), [IMAGES]), model(IMAGES, training=False), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_built_model_computes_the_same(name):
    model = MODELS[name]()
    built = build(read(model))
    np.testing.assert_allclose(built(IMAGES), model(IMAGES, training=False), rtol=1e-5)
    assert built.name == model.name


def test_a_built_model_has_new_layers_with_unique_names():
    model = mixed_model()
    built = build(read(model), name="again")
    assert built.name == "again"
    assert [layer.name for layer in built.layers if layer.weights] == ["conv", "norm", "grn", "classifier"]
    assert not {id(layer) for layer in built.layers} & {id(layer) for layer in model.layers}


def test_a_built_model_has_the_same_graph():
    graph = read(mixed_model())
    again = read(build(graph))
    assert [call.name for call in again.calls] == [call.name for call in graph.calls]
    assert [[tensor.shape for tensor in call.outputs] for call in again.calls] == [
        [tensor.shape for tensor in call.outputs] for call in graph.calls
    ]
    assert sorted(again.uses().values()) == sorted(graph.uses().values())


def test_dicts_of_inputs_and_outputs_are_built_again():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    built = build(read(keras.Model({"a": a, "b": b}, {"sum": layers.Add()([a, b]), "first": layers.ReLU()(a)})))
    found = built({"a": np.full((1, 4), -1.0, "float32"), "b": np.full((1, 4), 3.0, "float32")})
    np.testing.assert_array_equal(found["sum"], np.full((1, 4), 2.0))
    np.testing.assert_array_equal(found["first"], np.zeros((1, 4)))


def test_random_layers_are_off_even_if_the_graph_turns_them_on():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, layers.Dropout(0.5)(images, training=True))
    np.testing.assert_array_equal(run(read(model), [IMAGES]), model(IMAGES, training=False))


def test_every_call_can_be_replaced():
    images = keras.Input((8, 8, 3))
    graph = read(keras.Model(images, layers.ReLU(name="b")(layers.Rescaling(2.0, name="a")(images))))
    seen = []

    def record(call, args, kwargs):
        seen.append(call.name)
        return args[0] + 1

    np.testing.assert_allclose(run(graph, [IMAGES], record), IMAGES + 2, rtol=1e-6)
    assert seen == ["a", "b"]


def test_a_layer_that_its_configuration_does_not_make_is_named():
    class Scale(layers.Layer):
        def __init__(self, factor):
            super().__init__(name="scale")
            self.factor = factor

        def call(self, inputs):
            return ops.multiply(inputs, self.factor)

    images = keras.Input((4,))
    with pytest.raises(CompressionError, match="Received: 'scale' of class .*Scale"):
        build(read(keras.Model(images, Scale(2.0)(images))))


def test_a_graph_in_the_forms_of_xnnpack_is_not_built():
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, own.ChannelSlice(0, None, 2, name="half")(images), name="slices")
    with pytest.raises(InvalidArgumentError, match=r"can be run, not built. Received: 'slices', call 'half'"):
        build(in_forms(read(model), int8=False))
