"""Who makes, who reads and how often: what rewrites and analysis look up in a graph."""

import keras
import pytest
from keras import layers

from keraslight.graph import Graph, read


@pytest.fixture
def graph() -> Graph:
    """images -> shared -> shared -> relu; the sum of relu and the first shared output, and relu itself, come out."""
    images = keras.Input((8, 8, 3), name="images")
    shared = layers.Conv2D(3, 1, name="shared")
    short = shared(images)
    x = layers.ReLU(name="relu")(shared(short))
    return read(keras.Model(images, [layers.Add(name="add")([x, short]), x]))


def test_makers(graph):
    makers = graph.makers()
    assert [makers[call.outputs[0]] for call in graph.calls] == graph.calls
    assert graph.inputs not in makers


def test_readers(graph):
    first, second, relu, add = graph.calls
    readers = graph.readers()
    assert readers[graph.inputs] == [first]
    assert readers[first.outputs[0]] == [second, add]
    assert readers[relu.outputs[0]] == [add, None]  # None: the model's output
    assert readers[add.outputs[0]] == [None]


def test_uses(graph):
    assert {node.name: count for node, count in graph.uses().items()} == {"shared": 2, "relu": 1, "add": 1}


def test_a_new_tensor_is_none_of_the_others(graph):
    new = graph.new_tensor((None, 4), "float16")
    assert (new.shape, new.dtype) == ((None, 4), "float16")
    assert new not in {tensor for call in (*graph.input_calls, *graph.calls) for tensor in call.outputs}


def test_drop_unused_keeps_what_outputs_need(graph):
    graph.outputs = graph.calls[1].outputs[0]
    graph.drop_unused()
    assert [call.path for call in graph.calls] == ["shared", "shared"]


def test_a_copy_can_be_changed_alone(graph):
    copy = graph.copy()
    copy.calls[0].node.change(config={"use_bias": False}, weights=copy.calls[0].node.weights[:1])
    assert copy.calls[0].node is copy.calls[1].node
    assert not copy.calls[1].layer.use_bias
    assert graph.calls[0].layer.use_bias
