"""Builds tf_keras functional models from the graph of a Keras 3 model."""

from typing import Any

import keras
import tf_keras

from keraslight.compress._tfmot import twin_layers, twins
from keraslight.graph import Call, Graph, graph_name, run, with_graph_names


def inputs_of(graph: Graph) -> list[Any]:
    """A tf_keras input for each input of the graph."""
    return [
        tf_keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=graph_name(layer.name))
        for layer in graph.input_layers
    ]


def as_model(
    graph: Graph, inputs: list[Any], outputs: Any, name: str, kind: type[tf_keras.Model] = tf_keras.Model
) -> tf_keras.Model:
    """A tf_keras model whose inputs and outputs have the structure of the Keras 3 model's."""
    structured = isinstance(graph.inputs, dict | list | tuple)
    return kind(
        keras.tree.pack_sequence_as(graph.inputs, inputs) if structured else inputs[0], outputs, name=graph_name(name)
    )


def to_tf_keras(graph: Graph, name: str, around: twins.Around = lambda layer: layer) -> tf_keras.Model:
    """The float twin: one tf_keras layer for each Keras 3 layer.

    Args:
        graph: The Keras 3 model's graph.
        name: The twin's name.
        around: Put around each twin of a layer.
    """
    graph, _ = with_graph_names(graph)
    made: dict[str, tf_keras.layers.Layer] = {}

    def call_layer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return twins.apply(call.layer, call.name, made, args, kwargs, around)

    inputs = inputs_of(graph)
    outputs = run(graph, inputs, call_layer)
    for layer_name, layer in graph.layers().items():
        twin = made[layer_name]
        # A Normalization's statistics are constants of its twin; a KerasLayer starts with its source's weights.
        if getattr(layer, "weights", ()) and twin.weights and not isinstance(twin, twin_layers.KerasLayer):
            twin.set_weights(layer.get_weights())
    return as_model(graph, inputs, outputs, name)
