"""A functional Keras model as a plain list of calls, with nested models opened up.

Everything that walks a model walks this list: analysis reads it, rewrites change it (`keraslight.rewrite`), conversions
run it (`keraslight.graph.run`), and `build` makes a model of it again.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keraslight.graph.weights import copying, is_frozen


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
            with copying(self._source, self.name), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")  # replaced here
                self._config = {**self._source.get_config(), **_functions(self._source), "name": self.name}
            if self._config.get("trainable") and is_frozen(self._source):
                self._config["trainable"] = False
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
            self._layer = self.make()
            self._layer.build(inputs[0].shape)
            self._layer.set_weights(self.weights)
        return self._layer

    def make(self) -> Any:
        """A new layer or operation of `kind` and `config`, without weights.

        Raises:
            CompressionError: The configuration does not make it.
        """
        with copying(self.kind, self.name):
            if self.kind is keras.layers.Lambda:
                return keras.layers.Lambda(**self.config)
            return self.kind.from_config(self.config)  # type: ignore[attr-defined]  # a Keras class

    def rename(self, name: str) -> None:
        """Gives the node another name; the model's own layer keeps its own."""
        self.name = name
        if self._config is not None:
            self._config = {**self._config, "name": name}

    def copy(self) -> Node:
        """A node that can be changed without changing this one."""
        node = Node(self._source, self.name)
        node.kind, node._layer, node._config, node._weights = self.kind, self._layer, self._config, self._weights
        return node


def is_own_function(activation: Any) -> bool:
    """Whether an activation is a function of the user's own."""
    return isinstance(activation, types.FunctionType) and not activation.__module__.startswith("keras.")


def _functions(source: Any) -> dict[str, Any]:
    """The functions of the user's own in a layer's configuration, as they are: Keras reloads only registered ones."""
    if type(source) is keras.layers.Lambda:
        return {
            "function": source.function,
            "output_shape": source._output_shape,
            "mask": source.mask,
            "arguments": source.arguments,
        }
    activation = getattr(source, "activation", None)
    return {"activation": activation} if is_own_function(activation) else {}


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or bare operation.

    Attributes:
        node: What is called.
        path: Name of the layer; inside a nested model with the model's name in front, such as `inner/conv`.
        args, kwargs: Arguments of the call: nested structures with `Tensor` leaves. The `training` of a nested model
            is that of its calls.
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
    def in_inference(self) -> bool:
        """Whether the layer, or a nested model around it, is called with `training=False`: also while training."""
        return self.kwargs.get("training") is False

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
        task: What the model remembers of its outputs; see `keraslight._tasks`.
    """

    name: str
    inputs: Any
    outputs: Any
    input_calls: list[Call]
    calls: list[Call]
    task: str | None = None

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
