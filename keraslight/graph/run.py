"""Runs a graph call by call, on any tensors: symbolic ones, arrays of any backend, or what stands for them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph.calls import Call, Graph, Node, Tensor
from keraslight.graph.ends import remember_task, remembered_task
from keraslight.graph.reader import read, takes_training
from keraslight.graph.weights import copy_frozen, copying, fill_weights

CallLayer = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
"""Makes a call's output(s) from the call, and its arguments with values in place of the `Tensor` leaves."""


def infer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a layer, or the function that a rewrite put in its place, as in inference.

    `training=False` replaces what the layer was called with in the graph, as in Keras' `model(x, training=False)`.
    """
    layer = call.layer if call.form is None else call.form
    if isinstance(layer, keras.Layer) and takes_training(layer):
        kwargs = {**kwargs, "training": False}
    if isinstance(layer, keras.Layer) and layer.name == call.name:  # it opens a scope itself
        return layer(*args, **kwargs)
    with keras.name_scope(call.name):
        return layer(*args, **kwargs)


def run(graph: Graph, inputs: Sequence[Any], call_layer: CallLayer = infer) -> Any:
    """Runs a graph.

    Args:
        graph: The graph. It is not changed.
        inputs: One value per input, flattened.
        call_layer: Makes each call.

    Returns:
        The outputs, in the model's own structure.
    """
    values: dict[Tensor, Any] = dict(zip(keras.tree.flatten(graph.inputs), inputs, strict=True))

    def fill(structure: Any) -> Any:
        return keras.tree.map_structure(lambda leaf: values[leaf] if isinstance(leaf, Tensor) else leaf, structure)

    for call in graph.calls:
        results = keras.tree.flatten(call_layer(call, fill(call.args), fill(call.kwargs)))
        values.update(zip(call.outputs, results, strict=True))
    return fill(graph.outputs)


def of_size(model: keras.Model, shape: tuple[int | None, ...]) -> keras.Model:
    """A functional model of the same layers for images of another shape (H, W, C); weights are shared."""
    (old,) = model.inputs
    images = keras.Input(shape, dtype=old.dtype, name=old.name)
    outputs = run(read(model, opaque=True), [images], lambda call, args, kwargs: call.layer(*args, **kwargs))
    return keras.Model(images, outputs, name=model.name)


def build(graph: Graph, name: str | None = None) -> keras.Model:
    """Makes a functional model of new layers with the graph's structure, names and weights, not compiled.

    Args:
        graph: The graph. It is not changed.
        name: Name of the model; None is the graph's.

    Raises:
        CompressionError: A layer's configuration does not make it again.
        InvalidArgumentError: The graph has calls in XNNPACK's forms, which are functions rather than layers.
    """
    made: dict[Node, Any] = {}

    def call_new(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        node = call.node
        if call.form is not None:
            raise InvalidArgumentError(
                f"A graph in XNNPACK's forms can be run, not built. Received: {graph.name!r}, call {call.name!r}."
            )
        if node not in made:
            made[node] = node.make()
        with copying(node.kind, node.name):
            return made[node](*args, **kwargs)

    inputs = [
        keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name) for layer in graph.input_layers
    ]
    outputs = run(graph, inputs, call_new)
    nested = isinstance(graph.inputs, dict | list | tuple)
    structure = keras.tree.pack_sequence_as(graph.inputs, inputs) if nested else inputs[0]
    model = keras.Model(structure, outputs, name=name or graph.name)
    for node, layer in made.items():
        if node.weights:
            fill_weights(layer, node.name, node.weights)
    remember_task(model, graph.task)
    return model


def ends_of(model: keras.Model) -> tuple[Any, Any]:
    """The inputs and outputs of a functional or Sequential model, in their structure."""
    sequential = isinstance(model, keras.Sequential)  # its `input` is there only once it was called
    return (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)


def copy(model: keras.Model) -> keras.Model:
    """Makes a functional copy with the same weights, layer names and nested models, not compiled.

    `clone_model` compiles the clone as the original is, and fails on a loss that Keras can't serialize.

    Args:
        model: A functional or built Sequential model. It is not changed.

    Raises:
        UnreadableModelError: The model, or one nested in it, has no graph.
        CompressionError: A layer's configuration does not make it again.
    """
    read(model)
    original = keras.Model(*ends_of(model), name=model.name)
    with copying(type(model), model.name):
        clone = keras.models.clone_model(original, clone_function=_made_again)
    for layer, again in zip(original.layers, clone.layers, strict=True):
        fill_weights(again, layer.name, layer.get_weights())
        copy_frozen(layer, again)
    remember_task(clone, remembered_task(model))
    return clone


def _made_again(layer: Any) -> Any:
    if isinstance(layer, keras.Model):
        return type(layer).from_config(layer.get_config())
    return Node(layer, layer.name).make()
