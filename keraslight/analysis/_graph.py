"""A functional model as the list of its layers' calls: nested models opened, sizes filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keraslight.errors import InvalidArgumentError


class Call(NamedTuple):
    """One call of a layer. A shared layer has several.

    Attributes:
        layer: The layer, or the `keras.ops` operation.
        name: Its name; inside a nested model with the model's name before it, `inner/conv`.
        inputs: What it reads. A tensor is the same object wherever it is read.
        outputs: What it makes.
    """

    layer: keras.Operation
    name: str
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


class Graph(NamedTuple):
    """The calls in the order in which Keras makes them, inputs first, and the model's own ends."""

    calls: list[Call]
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def trace(model: keras.Model, input_shape: Sequence | None = None) -> Graph:
    """Lists the calls of a functional or built Sequential model.

    Args:
        model: The model. Models nested in it are opened where they are functional too.
        input_shape: (H, W, C) without the batch, or a list of shapes, one an input; fills in the sides that the model
            leaves open. None keeps the model's.

    Raises:
        InvalidArgumentError: the model has no graph, or `input_shape` does not fit its inputs.
    """
    graph = graph_of(model)
    own = [tuple(tensor.shape) for tensor in graph.inputs]
    shapes = own
    if input_shape is not None:
        several = any(isinstance(side, (tuple, list)) for side in input_shape)
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
        shapes = [(old[0], *new) for old, new in zip(own, given, strict=True)]
    inputs = [keras.KerasTensor(s, dtype=t.dtype) for s, t in zip(shapes, graph.inputs, strict=True)]
    calls: list[Call] = []
    outputs = _open(graph, inputs, "", calls)
    return Graph(calls, inputs, outputs)


def graph_of(model: keras.Model) -> keras.Model:
    """The model that holds the graph: itself, or what a Sequential model keeps.

    Raises:
        InvalidArgumentError: there is none.
    """
    graph = _functional(model)
    if graph is None:
        raise InvalidArgumentError(
            "`model` must be a functional model or a Sequential one with an Input. "
            f"Received: {getattr(model, 'name', model)!r} of type {type(model).__name__}."
        )
    return graph


def _functional(operation: keras.Operation) -> keras.Model | None:
    """The model that holds the graph, if there is one. Keras has no public list of a graph's nodes."""
    if not isinstance(operation, keras.Model):
        return None
    graph = getattr(operation, "_functional", operation)  # a Sequential model keeps its graph there
    return graph if hasattr(graph, "_nodes_by_depth") else None


def _open(graph: keras.Model, inputs: list, path: str, calls: list[Call]) -> list[keras.KerasTensor]:
    """Appends the graph's calls and returns its outputs."""
    known = {id(own): given for own, given in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            layer = node.operation
            if node.is_input:
                if not path:  # a nested model's inputs are its caller's tensors
                    calls.append(Call(layer, layer.name, [], [known[id(t)] for t in node.output_tensors]))
                continue
            args, kwargs = node.arguments.fill_in(known)
            read = [t for t in keras.tree.flatten((args, kwargs)) if isinstance(t, keras.KerasTensor)]
            if (nested := _functional(layer)) is not None:
                given = args[0] if args else kwargs["inputs"]
                if isinstance(given, dict) and not isinstance(nested.input, dict):
                    given = [given[t.name] for t in nested.inputs]  # Keras binds them by name too
                made = _open(nested, keras.tree.flatten(given), f"{path}{layer.name}/", calls)
            else:
                if [t.shape for t in read] == [t.shape for t in node.input_tensors]:
                    specs = node.output_tensors
                else:  # a side was open when the model was built, and is known now
                    specs = keras.tree.flatten(layer.compute_output_spec(*args, **kwargs))
                made = [keras.KerasTensor(t.shape, dtype=t.dtype) for t in specs]
                calls.append(Call(layer, f"{path}{layer.name}", read, made))
            known.update((id(own), new) for own, new in zip(node.output_tensors, made, strict=True))
    return [known[id(t)] for t in graph.outputs]


def operation_name(operation: keras.Operation) -> str:
    """The class's name; of a `keras.ops` operation with `ops.` before it."""
    kind = type(operation)
    return kind.__name__ if isinstance(operation, keras.layers.Layer) else f"ops.{kind.__name__}"


def behaves_like(operation: keras.Operation, kinds: tuple[type, ...]) -> bool:
    """Whether it is of one of the types, or of one derived that leaves `call` as it was.

    A derived layer with a `call` of its own may do anything.
    """
    for kind in type(operation).__mro__:
        if kind in kinds:
            return True
        if "call" in vars(kind):
            return False
    return False


# Operations of a graph that are not layers (`x + 1`, `keras.ops.relu(x)`): each output value depends on the values at
# its own place alone. Their classes are not public, so they go by name.
ELEMENTWISE_OPS = frozenset(
    "ops." + name
    for name in (
        *("Abs", "Absolute", "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "Power", "Square"),
        *("Sqrt", "Rsqrt", "Exp", "Log", "Maximum", "Minimum", "Clip", "Cast", "Sign", "Reciprocal", "Erf", "Tanh"),
        *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu"),
        *("HardTanh", "Softplus", "Softsign", "LogSigmoid", "Celu"),
    )
)
