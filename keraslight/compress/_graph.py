"""A functional Keras 3 model as a plain list of calls, with nested models opened up.

Fusing and the bridge to tf_keras both walk this list. It is read from the public `model.get_config()` and
`model.operations`; Keras' own private walkers change their signatures between releases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keraslight.errors import CompressionError, KeraslightError
from keraslight.layers._weights import set_weights


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor's place in the graph; a leaf of `Call.args`."""

    index: int


@dataclasses.dataclass
class Call:
    """One call of one layer.

    Attributes:
        layer: The Keras 3 layer (or bare operation); the same object in two calls is a shared layer.
        name: The layer's name, made unique over nested models.
        args, kwargs: What it was called with: nested structures with `Tensor` leaves.
        outputs: Its output tensors, flattened, as far as anything uses them.
    """

    layer: Any
    name: str
    args: tuple
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors that the call reads, in order."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


@dataclasses.dataclass
class Graph:
    """A model's calls in an order in which they can run.

    Attributes:
        inputs, outputs: Structures with `Tensor` leaves, as the model's own inputs and outputs.
        input_layers: The `InputLayer` of every input, flattened.
        calls: Every call of every layer, nested models opened up.
    """

    inputs: Any
    outputs: Any
    input_layers: list[keras.layers.InputLayer]
    calls: list[Call]

    def consumers(self) -> dict[Tensor, list[Call | None]]:
        """Who reads each tensor; None stands for the model's output."""
        readers = defaultdict(list)
        for call in self.calls:
            for tensor in call.inputs:
                readers[tensor].append(call)
        for tensor in keras.tree.flatten(self.outputs):
            readers[tensor].append(None)
        return readers

    def layers(self) -> dict[str, Any]:
        """Every layer once, by its unique name, in the order of the first call."""
        return {call.name: call.layer for call in self.calls}

    def rebuild(self, inputs: list, call_layer) -> Any:
        """Runs the graph on other tensors.

        Args:
            inputs: One value for each input, flattened.
            call_layer: `(call, args, kwargs) -> output(s)`, with the values in place of the `Tensor` leaves.

        Returns:
            The outputs, in the model's own structure.
        """
        values = dict(zip(keras.tree.flatten(self.inputs), inputs, strict=True))

        def fill(structure):
            return keras.tree.map_structure(lambda v: values[v] if isinstance(v, Tensor) else v, structure)

        for call in self.calls:
            results = keras.tree.flatten(call_layer(call, fill(call.args), fill(call.kwargs)))
            values.update(zip(call.outputs, results, strict=False))  # outputs that nobody reads have no Tensor
        return fill(self.outputs)

    def model(self, name: str, call_layer) -> keras.Model:
        """A functional model of the same structure whose calls `call_layer` makes, as in `rebuild`."""

        def call_copy(call, args, kwargs):
            with _copying(call.layer, call.name):
                return call_layer(call, args, kwargs)

        inputs = [
            keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name)
            for layer in self.input_layers
        ]
        outputs = self.rebuild(inputs, call_copy)
        nested = isinstance(self.inputs, dict | list)
        return keras.Model(
            keras.tree.pack_sequence_as(self.inputs, inputs) if nested else inputs[0], outputs, name=name
        )


def read(model: keras.Model) -> Graph:
    """Reads a functional or sequential model.

    Raises:
        CompressionError: the model (or one nested in it) is subclassed, so that it has no graph; or a layer has no
            configuration.
    """
    return _Reader().read(model)


def copy(model: keras.Model) -> keras.Model:
    """A functional copy with the same weights and layer names, not compiled.

    `clone_model` compiles the clone as the original is, and fails at a loss that Keras can't serialize.

    Raises:
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    read(model)
    graph = _functional(model)
    original = keras.Model(graph.input, graph.output, name=model.name)
    with _copying(model, model.name):
        clone = keras.models.clone_model(original)
    for layer, again in zip(original.layers, clone.layers, strict=True):
        fill_weights(again, layer.name, layer.get_weights())
    return clone


def fill_weights(layer: keras.Layer, name: str, values: list[np.ndarray]) -> None:
    """Gives the copy of the model's layer `name` its weights.

    Raises:
        CompressionError: they don't fit.
    """
    with _copying(layer, name):
        set_weights(layer, values)


@contextlib.contextmanager
def _copying(layer: Any, name: str) -> Iterator[None]:
    """Says of a layer or model whose copy fails what a copy needs: people forget arguments in `get_config`.

    Raises:
        CompressionError: in place of what Keras raises.
    """
    try:
        yield
    except KeraslightError:
        raise
    except (NotImplementedError, TypeError, ValueError) as error:
        kind = type(layer)
        raise CompressionError(
            "Every layer must be made again by `from_config(layer.get_config())`, with the same shapes. "
            f"Received: {name!r} of class {kind.__module__}.{kind.__qualname__}, of which Keras says: {error}"
        ) from error


class _Reader:
    def __init__(self):
        self.count = 0
        self.names: dict[int, str] = {}  # id(layer) -> unique name
        self.calls: list[Call] = []

    def tensor(self) -> Tensor:
        self.count += 1
        return Tensor(self.count - 1)

    def unique(self, layer, model) -> str:
        if id(layer) not in self.names:
            taken, name, n = set(self.names.values()), layer.name, 1
            while name in taken:
                name, n = f"{model.name}_{layer.name}" if n == 1 else f"{model.name}_{layer.name}_{n}", n + 1
            self.names[id(layer)] = name
        return self.names[id(layer)]

    def read(self, model) -> Graph:
        config = _functional_config(model)
        layers = {operation.name: operation for operation in _functional(model).operations}
        input_layers = [layers[key[0]] for key in _keys(config["input_layers"])]
        for layer in input_layers:
            self.unique(layer, model)
        inputs, outputs = self.expand(model, config, [self.tensor() for _ in input_layers])
        return Graph(inputs, outputs, input_layers, self.calls)

    def expand(self, model, config, feeds: list[Tensor]) -> tuple[Any, Any]:
        """Appends the calls of `model` fed with `feeds`; returns its inputs and outputs as structures of tensors."""
        operations = {operation.name: operation for operation in _functional(model).operations}
        values: dict[tuple, Tensor] = dict(zip(_keys(config["input_layers"]), feeds, strict=True))
        used = defaultdict(int)  # (layer, node) -> number of outputs that something reads
        for name, node, index in [*_references(config["layers"]), *_keys(config["output_layers"])]:
            used[name, node] = max(used[name, node], index + 1)
        pending = [
            (entry["name"], n, node) for entry in config["layers"] for n, node in enumerate(entry["inbound_nodes"])
        ]
        while pending:  # Keras lists nodes by layer, so a shared layer's second call may come before what it needs
            waiting = []
            for name, n, node in pending:
                if not all(key in values for key in _references(node)):
                    waiting.append((name, n, node))
                    continue
                args, kwargs = _fill(node["args"], values), _fill(node["kwargs"], values)
                layer = operations[name]
                if isinstance(layer, keras.Model):
                    fed = [leaf for leaf in keras.tree.flatten(args) if isinstance(leaf, Tensor)]
                    results = keras.tree.flatten(self.expand(layer, _functional_config(layer), fed)[1])
                else:
                    results = [self.tensor() for _ in range(max(used[name, n], 1))]
                    kwargs = {key: value for key, value in kwargs.items() if value is not None}
                    if _trains_by_default(layer):
                        kwargs.pop("training", None)
                    self.calls.append(Call(layer, self.unique(layer, model), tuple(args), kwargs, results))
                values.update({(name, n, k): result for k, result in enumerate(results)})
            if len(waiting) == len(pending):
                raise CompressionError(
                    f"A model's graph must lead from its inputs to its outputs. Received: {model.name!r}, where "
                    f"{sorted({name for name, _, _ in waiting})} wait for tensors that nothing makes."
                )
            pending = waiting
        return _keyed(config["input_layers"], values), _keyed(config["output_layers"], values)


def _functional(model):
    """The same tensors and layer objects as a plain functional model.

    A Sequential hides its graph, and a class of models may have a `get_config` of its own (those of kimm do).
    """
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    if not getattr(model, "inputs", None):
        return model
    plain = keras.Model(model.input, model.output, name=model.name)
    # What has a `call` of its own may do other things than its graph.
    return plain if type(model).call is type(plain).call else model


def _functional_config(model) -> dict[str, Any]:
    if isinstance(model, keras.Sequential) and not model.built:
        raise CompressionError(f"A Sequential model must be built first. Received: {model.name!r}, not built.")
    with _copying(model, getattr(model, "name", "")):
        config = _functional(model).get_config() if isinstance(model, keras.Model) else {}
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        raise CompressionError(
            "Only functional and sequential Keras 3 models have a graph that can be read. "
            f"Received: {getattr(model, 'name', model)!r} of class {type(model).__name__}."
        )
    # Keras counts the calls of a nested functional model from 1 where they are outputs, as if its own graph were the
    # first call, and from 0 everywhere else.
    nested = {
        operation.name
        for operation in _functional(model).operations
        if any(base.__name__ == "Functional" for base in type(operation).__mro__)
    }
    return {**config, "output_layers": _counted_from_0(config["output_layers"], nested)}


def _counted_from_0(structure, nested: set[str]):
    if _is_key(structure):
        name, node, index = structure
        return [name, node - (name in nested), index]
    if isinstance(structure, dict):
        return {key: _counted_from_0(part, nested) for key, part in structure.items()}
    return [_counted_from_0(part, nested) for part in structure]


def _trains_by_default(layer) -> bool:
    """Whether a layer is called with `training=True` where nobody said so, as Keras' random layers for images are.

    Keras writes the default down with the call, but goes by how the model is called.
    """
    training = inspect.signature(layer.call).parameters.get("training")
    return training is not None and training.default is True


def _is_key(value) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str)


def _keys(structure) -> list[tuple]:
    """The [name, node, index] entries of a config's `input_layers` or `output_layers`, flattened in Keras' order."""
    if _is_key(structure):
        return [tuple(structure)]
    parts = [structure[k] for k in sorted(structure)] if isinstance(structure, dict) else structure
    return [key for part in parts for key in _keys(part)]


def _keyed(structure, values):
    if _is_key(structure):
        return values[tuple(structure)]
    if isinstance(structure, dict):
        return {key: _keyed(part, values) for key, part in structure.items()}
    return [_keyed(part, values) for part in structure]


def _is_reference(value) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _references(value) -> list[tuple]:
    """Every tensor key anywhere in a serialized structure."""
    if _is_reference(value):
        return [tuple(value["config"]["keras_history"])]
    if isinstance(value, dict):
        return [key for part in value.values() for key in _references(part)]
    if isinstance(value, list | tuple):
        return [key for part in value for key in _references(part)]
    return []


def _fill(value, values):
    if _is_reference(value):
        return values[tuple(value["config"]["keras_history"])]
    if isinstance(value, dict) and {"class_name", "config"} <= set(value):
        return keras.saving.deserialize_keras_object(value)  # a slice, an ellipsis, an array, a dtype ...
    if isinstance(value, dict):
        return {key: _fill(part, values) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_fill(part, values) for part in value)
    return value
