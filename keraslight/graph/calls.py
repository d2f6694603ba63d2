"""A functional Keras model as a plain list of calls, with nested models opened up.

Everything that walks a model walks this list: analysis reads it, rewrites change it (`keraslight.rewrite`), conversions
run it (`keraslight.graph.run`), and `build` makes a model of it again. Keras has no public list of a graph's nodes, so
its private attributes are read here and in `ends`, and nowhere else.

Reading the public `model.get_config()` instead was tried: it makes every layer serialize itself, loses constants of
bare operations that don't serialize, and counts the calls of nested models from 1 in some places and from 0 in others.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph.weights import copying


class UnreadableModelError(CompressionError, InvalidArgumentError):
    """A model, or one nested in it, has no graph that can be read."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a graph: a leaf of `Call.args`. Two are equal if they are the same place in the same graph.

    Attributes:
        index: Number of the tensor in its graph.
        shape: Sides; None where they are open.
        dtype: Name of the type, such as `"float32"`.
    """

    index: int
    shape: tuple[int | None, ...] = dataclasses.field(compare=False)
    dtype: str = dataclasses.field(compare=False)


class Node:
    """A layer or bare operation of a graph. All calls of a shared layer have the same node.

    A node starts as the model's own layer, which is never changed. Rewrites give it another class, configuration or
    weights with `change`.

    Attributes:
        name: Name of the layer, unique over nested models.
        kind: Class of the layer.
    """

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self.kind: type = type(source)
        self._layer: Any = source
        self._source = source
        self._config: dict[str, Any] | None = None
        self._weights: list[np.ndarray] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Configuration from which `kind` makes the layer, with the unique name. Read it only; see `change`.

        Raises:
            CompressionError: The layer has no configuration.
        """
        if self._config is None:
            with copying(self._source, self.name):
                self._config = {**self._source.get_config(), "name": self.name}
        return self._config

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights in Keras' order; none for a bare operation. Read them only; see `change`."""
        if self._weights is None:
            self._weights = self._source.get_weights() if getattr(self._source, "weights", ()) else []
        return self._weights

    def change(
        self, *, kind: type | None = None, config: dict[str, Any] | None = None, weights: list[np.ndarray] | None = None
    ) -> None:
        """Replaces the class, entries of the configuration (all of it with a new class) or the weights."""
        self._config, self._weights = (config or {}) if kind else {**self.config, **(config or {})}, self.weights
        if kind is not None:
            self.kind = kind
        if weights is not None:
            self._weights = weights
        self._layer = None

    def layer(self, inputs: Sequence[Tensor]) -> Any:
        """The model's own layer, or where a rewrite changed it a new one with these weights.

        Args:
            inputs: What the layer reads; its first shape builds a new layer.
        """
        if self._layer is None:
            self._layer = self.kind.from_config(self.config)  # type: ignore[attr-defined]  # a Keras class
            self._layer.build(inputs[0].shape)
            self._layer.set_weights(self.weights)
        return self._layer

    def copy(self) -> Node:
        """A node that can be changed without changing this one."""
        node = Node(self._source, self.name)
        node.kind, node._layer, node._config, node._weights = self.kind, self._layer, self._config, self._weights
        return node


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or bare operation.

    Attributes:
        node: What is called.
        path: Name of the layer; inside a nested model with the model's name in front, such as `inner/conv`.
        args, kwargs: Arguments of the call: nested structures with `Tensor` leaves.
        outputs: Tensors that the call makes, flattened.
        form: Function to run in place of the layer, from the same arguments; None runs the layer. See
            `keraslight.rewrite.xnnpack`.
    """

    node: Node
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    form: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """Name of the layer, unique over nested models."""
        return self.node.name

    @property
    def layer(self) -> Any:
        """The layer, or the `keras.ops` operation."""
        return self.node.layer(self.inputs)

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors that the call reads, in order."""
        if len(self.args) == 1 and isinstance(self.args[0], Tensor) and not self.kwargs:
            return [self.args[0]]  # nearly all calls; flattening takes ten times as long
        return [leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def in_training(self) -> bool:
        """Whether the layer is called with `training=True`, whatever the model is called with."""
        return bool(self.kwargs.get("training"))


@dataclasses.dataclass
class Graph:
    """A model's calls in an order in which they can run.

    Attributes:
        name: Name of the model.
        inputs, outputs: Structures with `Tensor` leaves, as the model's own inputs and outputs.
        input_calls: The calls that make the inputs, flattened: their layers are `InputLayer`s.
        calls: All other calls, with nested models opened up.
    """

    name: str
    inputs: Any
    outputs: Any
    input_calls: list[Call]
    calls: list[Call]

    @property
    def input_layers(self) -> list[keras.layers.InputLayer]:
        """The `InputLayer` of every input, flattened."""
        return [call.layer for call in self.input_calls]

    def layers(self) -> dict[str, Any]:
        """Unique name -> layer, in the order of the first calls."""
        return {call.name: call.layer for call in self.calls}

    def makers(self) -> dict[Tensor, Call]:
        """Tensor -> the call that makes it."""
        return {tensor: call for call in self.calls for tensor in call.outputs}

    def readers(self) -> dict[Tensor, list[Call | None]]:
        """Tensor -> the calls that read it; None stands for the model's output."""
        readers: dict[Tensor, list[Call | None]] = defaultdict(list)
        for call in self.calls:
            for tensor in call.inputs:
                readers[tensor].append(call)
        for tensor in keras.tree.flatten(self.outputs):
            readers[tensor].append(None)
        return readers

    def uses(self) -> dict[Node, int]:
        """Node -> number of its calls."""
        uses: dict[Node, int] = defaultdict(int)
        for call in self.calls:
            uses[call.node] += 1
        return uses

    def new_tensor(self, shape: tuple[int | None, ...], dtype: str = "float32") -> Tensor:
        """A tensor that no call makes yet."""
        taken = [tensor.index for call in (*self.input_calls, *self.calls) for tensor in call.outputs]
        return Tensor(max(taken, default=-1) + 1, tuple(shape), dtype)

    def append(self, function: Callable[[Any], Any], tensor: Tensor, name: str | None = None) -> Tensor:
        """Appends a call of a layer, or of one function of `keras.ops`, and returns the tensor that it makes.

        Args:
            function: Layer or function of one tensor.
            tensor: What it reads.
            name: Name of the call, made unique; None takes the layer's.
        """
        spec = keras.KerasTensor(tensor.shape, dtype=tensor.dtype)
        made = function(spec)
        source, index, _ = made._keras_history
        arguments = source._inbound_nodes[index].arguments
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensor if leaf is spec else leaf, (arguments.args, arguments.kwargs)
        )
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        output = self.new_tensor(tuple(made.shape), keras.backend.standardize_dtype(made.dtype))
        name = self.unique_name(name or source.name)
        self.calls.append(Call(Node(source, name), name, args, kwargs, [output]))
        return output

    def unique_name(self, name: str) -> str:
        """The name, or where a layer has it, the name with a number."""
        taken = {call.name for call in (*self.input_calls, *self.calls)}
        names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(1)))
        return next(each for each in names if each not in taken)

    def drop_unused(self) -> None:
        """Drops calls of whose outputs nothing makes use."""
        used = set(keras.tree.flatten(self.outputs))
        kept = []
        for call in reversed(self.calls):
            if not used.isdisjoint(call.outputs):
                used.update(call.inputs)
                kept.append(call)
        self.calls = kept[::-1]

    def copy(self) -> Graph:
        """A graph whose calls and nodes can be changed without changing this one's."""
        nodes = {node: node.copy() for node in self.uses()}
        calls = [
            dataclasses.replace(call, node=nodes[call.node], kwargs=dict(call.kwargs), outputs=list(call.outputs))
            for call in self.calls
        ]
        return dataclasses.replace(self, calls=calls)


def read(
    model: keras.Model, input_shape: Sequence[Any] | None = None, *, opaque: bool = False, open_nested: bool = True
) -> Graph:
    """Reads a functional or built Sequential model, with the models nested in it.

    Args:
        model: The model. It is not changed.
        input_shape: (H, W, C) without the batch, or a list with one shape per input, for sides that the model leaves
            open. None keeps the model's.
        opaque: Whether a nested model without a graph is a call like that of a layer rather than an error.
        open_nested: Whether the calls of nested models replace the call of the model. False makes every nested model
            a call like that of a layer.

    Raises:
        UnreadableModelError: The model, or one nested in it, has no graph.
        InvalidArgumentError: `input_shape` does not fit the model's inputs.
    """
    return _Reader(opaque, open_nested).read(model, input_shape)


class _Reader:
    def __init__(self, opaque: bool, open_nested: bool) -> None:
        self.opaque = opaque or not open_nested
        self.open_nested = open_nested
        self.count = 0
        self.nodes: dict[int, Node] = {}  # id of a layer -> its node
        self.names: set[str] = set()
        self.calls: list[Call] = []

    def tensor(self, spec: Any) -> Tensor:
        self.count += 1
        return Tensor(self.count - 1, tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))

    def node(self, layer: Any, model: Any) -> Node:
        if id(layer) not in self.nodes:
            name, n = layer.name, 1
            while name in self.names:
                name, n = f"{model.name}_{layer.name}" if n == 1 else f"{model.name}_{layer.name}_{n}", n + 1
            self.names.add(name)
            self.nodes[id(layer)] = Node(layer, name)
        return self.nodes[id(layer)]

    def read(self, model: Any, input_shape: Sequence[Any] | None) -> Graph:
        functional = _functional(model)
        if functional is None:
            raise _unreadable(model)
        specs = _specs(functional, input_shape)
        makers = {id(node.output_tensors[0]): node.operation for node in _nodes(functional) if node.is_input}
        input_calls = []
        for own, spec in zip(functional.inputs, specs, strict=True):
            layer = makers[id(own)]
            input_calls.append(Call(self.node(layer, model), layer.name, (), {}, [self.tensor(spec)]))
        feeds = [call.outputs[0] for call in input_calls]
        known = {id(own): given for own, given in zip(functional.inputs, feeds, strict=True)}
        self.open(functional, known, "")
        inputs, outputs = (
            keras.tree.map_structure(lambda tensor: known[id(tensor)], structure)
            for structure in (functional._inputs_struct, functional._outputs_struct)
        )
        return Graph(model.name, inputs, outputs, input_calls, self.calls)

    def open(self, functional: Any, known: dict[int, Tensor], path: str) -> None:
        """Appends the calls of a model. `known`: id of Keras' tensor -> ours, with the inputs in it; it is filled."""
        for node in _nodes(functional):
            if node.is_input:
                continue
            layer = node.operation
            args, kwargs = node.arguments.fill_in(known)
            nested = _functional(layer) if self.open_nested else None
            if nested is None and isinstance(layer, keras.Model) and not self.opaque:
                raise _unreadable(layer)
            if nested is None:
                made = self.call(functional, node, args, kwargs, path)
            else:
                inner = dict(zip(map(id, nested.inputs), _fed(nested, args, kwargs), strict=True))
                self.open(nested, inner, f"{path}{layer.name}/")
                made = [inner[id(tensor)] for tensor in nested.outputs]
            known.update((id(own), tensor) for own, tensor in zip(node.output_tensors, made, strict=True))

    def call(
        self, functional: Any, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
    ) -> list[Tensor]:
        layer = node.operation
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if "training" in kwargs and isinstance(layer, keras.layers.Layer) and _trains_by_default(layer):
            del kwargs["training"]
        call = Call(self.node(layer, functional), f"{path}{layer.name}", args, kwargs, [])
        specs = node.output_tensors
        if [tensor.shape for tensor in call.inputs] != [tuple(tensor.shape) for tensor in node.input_tensors]:
            # A side was open when the model was built, and is known now.
            def spec(leaf: Any) -> Any:
                return keras.KerasTensor(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Tensor) else leaf

            filled, named = keras.tree.map_structure(spec, (args, kwargs))
            specs = keras.tree.flatten(layer.compute_output_spec(*filled, **named))
        call.outputs.extend(map(self.tensor, specs))
        self.calls.append(call)
        return call.outputs


def _functional(model: Any) -> Any:
    """The model that holds the graph: itself, or what a Sequential model keeps; None where there is none.

    A class of models whose `call` is its own may do other things than its graph.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional if type(model).call is keras.Sequential.call else None
    base = next((kind for kind in type(model).__mro__ if kind.__name__ == "Functional"), None)
    return model if base is not None and type(model).call is base.call else None  # type: ignore[attr-defined]  # Keras'


def _nodes(functional: Any) -> Iterator[Any]:
    """A graph's nodes in the order in which Keras runs them."""
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from functional._nodes_by_depth[depth]


def _fed(nested: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that a nested model's inputs stand for."""
    given = args[0] if args else kwargs["inputs"]
    if isinstance(given, dict) and not isinstance(nested.input, dict):
        given = [given[tensor.name] for tensor in nested.inputs]  # Keras binds them by name too
    return keras.tree.flatten(given)


def _specs(functional: Any, input_shape: Sequence[Any] | None) -> list[keras.KerasTensor]:
    """The model's inputs, with the sides of `input_shape` where they are open."""
    if input_shape is None:
        return functional.inputs
    own = [tuple(tensor.shape) for tensor in functional.inputs]
    several = any(isinstance(side, tuple | list) for side in input_shape)
    given = [tuple(shape) for shape in (input_shape if several else [input_shape])]
    fits = len(given) == len(own) and all(
        len(new) == len(old) - 1 and all(b is None or a == b for a, b in zip(new, old[1:], strict=True))
        for new, old in zip(given, own, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(
            "`input_shape` must agree with the model's inputs wherever they are fixed. "
            f"Received: {input_shape} for {[old[1:] for old in own]}."
        )
    return [
        keras.KerasTensor((old[0], *new), dtype=tensor.dtype)
        for old, new, tensor in zip(own, given, functional.inputs, strict=True)
    ]


def _trains_by_default(layer: Any) -> bool:
    """Whether a layer is called with `training=True` unless told otherwise, like Keras' random layers for images.

    Keras records the default with the call, but goes by how the model is called.
    """
    training = inspect.signature(layer.call).parameters.get("training")
    return training is not None and training.default is True


def _unreadable(model: Any) -> UnreadableModelError:
    return UnreadableModelError(
        "`model` must be a functional model or a Sequential one with an Input: only these have a graph that can be "
        f"read. Received: {getattr(model, 'name', model)!r} of class {type(model).__name__}."
    )
