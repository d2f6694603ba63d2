"""Models read as lists of calls."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import UnreadableModelError, read, run


def backbone(shape=(8, 8, 3), name="inner"):
    images = keras.Input(shape)
    return keras.Model(images, layers.Conv2D(3, 3, padding="same", name="conv")(images), name=name)


def paths(graph):
    return [call.path for call in graph.calls]


class Own(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_calls_are_in_an_order_in_which_they_can_run():
    images = keras.Input((8, 8, 3), name="images")
    left = layers.Conv2D(4, 1, name="left")(images)
    right = layers.Conv2D(4, 1, name="right")(layers.ReLU(name="relu")(images))
    graph = read(keras.Model(images, layers.Add(name="add")([left, right]), name="branches"))
    known = set(keras.tree.flatten(graph.inputs))
    for call in graph.calls:
        assert known.issuperset(call.inputs)
        known.update(call.outputs)
    assert graph.name == "branches"
    assert sorted(paths(graph)) == ["add", "left", "relu", "right"]
    assert graph.outputs == graph.calls[-1].outputs[0]


def test_tensors_carry_shape_and_dtype():
    images = keras.Input((8, 8, 3), dtype="uint8")
    graph = read(keras.Model(images, layers.Conv2D(4, 1, strides=2, dtype="mixed_float16")(images)))
    (call,) = graph.calls
    assert (graph.inputs.shape, graph.inputs.dtype) == ((None, 8, 8, 3), "uint8")
    assert (call.outputs[0].shape, call.outputs[0].dtype) == ((None, 4, 4, 4), "float16")


def test_inputs_have_calls_of_their_own():
    images = keras.Input((8, 8, 3), name="images")
    graph = read(keras.Model(images, layers.ReLU()(images)))
    (call,) = graph.input_calls
    assert (call.path, call.inputs, call.outputs) == ("images", [], [graph.inputs])
    assert isinstance(call.layer, layers.InputLayer)
    assert graph.input_layers == [call.layer]


def test_all_calls_of_a_shared_layer_have_one_node():
    images = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    graph = read(keras.Model(images, shared(shared(images))))
    first, second = graph.calls
    assert first.node is second.node
    assert first.layer is shared
    assert second.inputs == first.outputs
    assert first.outputs != second.outputs


def test_a_nested_model_called_twice_is_opened_twice():
    inner = backbone()
    images = keras.Input((8, 8, 3))
    graph = read(keras.Model(images, inner(inner(images))))
    assert paths(graph) == ["inner/conv", "inner/conv"]
    assert graph.calls[0].node is graph.calls[1].node
    assert graph.calls[1].inputs == graph.calls[0].outputs
    assert graph.outputs == graph.calls[1].outputs[0]


def test_a_nested_sequential_model_is_opened():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU(name="relu")], name="row")
    images = keras.Input((8, 8, 3))
    assert paths(read(keras.Model(images, inner(images)))) == ["row/relu"]


def test_nested_models_stay_closed_if_asked():
    inner = backbone()
    images = keras.Input((8, 8, 3))
    graph = read(keras.Model(images, Own()(inner(images))), open_nested=False)
    assert paths(graph) == ["inner", "own"]
    assert graph.calls[0].layer is inner


def test_names_are_unique_and_paths_are_the_models_own():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 1, name="conv")(images)
    graph = read(keras.Model(images, backbone(name="b")(backbone(name="a")(x)), name="outer"))
    assert paths(graph) == ["conv", "a/conv", "b/conv"]
    assert [call.name for call in graph.calls] == ["conv", "a_conv", "b_conv"]
    assert list(graph.layers()) == ["conv", "a_conv", "b_conv"]


def test_dicts_of_inputs_and_outputs_keep_their_structure():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, {"joined": layers.Concatenate()([a, b]), "a": layers.ReLU()(a)})
    graph = read(model)
    assert {name: tensor.shape for name, tensor in graph.inputs.items()} == {"a": (None, 4), "b": (None, 3)}
    assert {name: tensor.shape for name, tensor in graph.outputs.items()} == {"joined": (None, 7), "a": (None, 4)}
    assert [call.path for call in graph.input_calls] == ["a", "b"]


@pytest.mark.parametrize("way", ["dict", "list", "keyword"])
def test_nested_models_take_their_inputs_by_name_or_in_order(way):
    a, b = keras.Input((4,), name="z"), keras.Input((3,), name="a")
    both = [layers.Dense(5, name="four")(a), layers.Dense(7, name="three")(b)]
    inner = keras.Model([a, b], layers.Concatenate()(both))
    x, y = keras.Input((4,)), keras.Input((3,))
    given = [x, y] if way == "list" else {"z": x, "a": y}
    graph = read(keras.Model([x, y], inner(inputs=given) if way == "keyword" else inner(given)))
    read_by = {call.layer.name: call.inputs[0].shape for call in graph.calls}
    assert read_by["four"] == (None, 4)
    assert read_by["three"] == (None, 3)


def test_bare_operations_keep_their_constants():
    images = keras.Input((4,))
    model = keras.Model(images, ops.multiply(images, np.arange(4.0, dtype="float32")) + 1.0)
    graph = read(model)
    assert [type(call.layer).__name__ for call in graph.calls] == ["Multiply", "Add"]
    assert [len(call.inputs) for call in graph.calls] == [1, 1]
    np.testing.assert_array_equal(run(graph, [np.ones((1, 4), "float32")]), [[1, 2, 3, 4]])


def test_input_shape_fills_open_sides_in_nested_models_too():
    images = keras.Input((None, None, 3))
    x = layers.MaxPooling2D(2, name="pool")(backbone((None, None, 3))(images))
    graph = read(keras.Model(images, x), (8, 6, 3))
    assert graph.inputs.shape == (None, 8, 6, 3)
    assert [call.outputs[0].shape for call in graph.calls] == [(None, 8, 6, 3), (None, 4, 3, 3)]


def test_sides_stay_open_without_input_shape():
    images = keras.Input((None, None, 3))
    graph = read(keras.Model(images, backbone((None, None, 3))(images)))
    assert graph.calls[0].outputs[0].shape == (None, None, None, 3)


@pytest.mark.parametrize("shape", [(9, 8, 3), (8, 8), [(8, 8, 3), (8, 8, 3)]])
def test_an_input_shape_that_does_not_fit_is_rejected(shape):
    with pytest.raises(InvalidArgumentError, match="`input_shape` must agree with the model's inputs"):
        read(backbone(), shape)


def test_a_model_without_a_graph_is_rejected():
    with pytest.raises(UnreadableModelError, match="can be read. Received: 'own' of class Own") as error:
        read(Own())
    assert isinstance(error.value, CompressionError)
    assert isinstance(error.value, InvalidArgumentError)


def test_a_nested_model_without_a_graph_is_rejected_unless_it_may_be_opaque():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, Own()(images))
    with pytest.raises(UnreadableModelError, match="Received: 'own' of class Own"):
        read(model)
    assert paths(read(model, opaque=True)) == ["own"]


def test_a_model_with_a_call_of_its_own_is_not_taken_for_its_graph():
    images = keras.Input((4,))

    class Doubled(type(keras.Model(images, images))):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    with pytest.raises(UnreadableModelError, match="of class Doubled"):
        read(Doubled(images, layers.ReLU()(images)))
