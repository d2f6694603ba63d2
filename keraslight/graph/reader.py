"""Reads a functional Keras model into a graph: with `ends`, the only code that knows Keras' private attributes.

Keras has no public list of a graph's nodes. Reading the public `model.get_config()` instead was tried: it makes every
layer serialize itself, loses constants of bare operations that don't serialize, and counts the calls of nested models
from 1 in some places and from 0 in others.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph.calls import Call, Graph, Node, Tensor
from keraslight.graph.ends import remembered_task


class UnreadableModelError(CompressionError, InvalidArgumentError):
    """A model, or one nested in it, has no graph that can be read."""


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
    if not isinstance(model, keras.Model):
        raise _unreadable(model)
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
        return Graph(model.name, inputs, outputs, input_calls, self.calls, remembered_task(model))

    def open(self, functional: Any, known: dict[int, Tensor], path: str, training: bool | None = None) -> None:
        """Appends the calls of a model.

        Args:
            functional: The model.
            known: Id of Keras' tensor -> ours, with the inputs in it; it is filled.
            path: In front of the layers' names.
            training: What a nested model is called with: the mode of its calls that don't give their own.
        """
        for node in _nodes(functional):
            if node.is_input:
                continue
            layer = node.operation
            args, kwargs = node.arguments.fill_in(known)
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            nested = _functional(layer) if self.open_nested else None
            if nested is None and isinstance(layer, keras.Model) and not self.opaque:
                raise _unreadable(layer)
            if nested is None:
                made = self.call(functional, node, args, kwargs, path, training)
            else:
                inner = dict(zip(map(id, nested.inputs), _fed(nested, args, kwargs), strict=True))
                self.open(nested, inner, f"{path}{layer.name}/", kwargs.get("training", training))
                made = [inner[id(tensor)] for tensor in nested.outputs]
            known.update((id(own), tensor) for own, tensor in zip(node.output_tensors, made, strict=True))

    def call(
        self,
        functional: Any,
        node: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        path: str,
        training: bool | None,
    ) -> list[Tensor]:
        layer = node.operation
        if "training" in kwargs and isinstance(layer, keras.layers.Layer) and _trains_by_default(layer):
            del kwargs["training"]
        if training is not None and "training" not in kwargs and takes_training(layer):
            kwargs["training"] = training
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

    A class of models whose `call` is its own may do other things than its graph, unless it says `RUNS_ITS_GRAPH`.
    """
    if isinstance(model, keras.Sequential):
        model = model._functional if type(model).call is keras.Sequential.call else None
    base = next((kind for kind in type(model).__mro__ if kind.__name__ == "Functional"), None)
    if base is None or not isinstance(model, keras.Model):  # tf_keras has a class of this name, too
        return None
    own = type(model).call is not base.call  # type: ignore[attr-defined]  # Keras'
    return None if own and not getattr(type(model), "RUNS_ITS_GRAPH", False) else model


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


def takes_training(layer: Any) -> bool:
    """Whether the `call` of a layer has an argument `training`."""
    return isinstance(layer, keras.layers.Layer) and "training" in inspect.signature(layer.call).parameters


def _trains_by_default(layer: Any) -> bool:
    """Whether a layer is called with `training=True` unless told otherwise, like Keras' random layers for images.

    Keras records the default with the call, but goes by how the model is called.
    """
    training = inspect.signature(layer.call).parameters.get("training")
    return training is not None and training.default is True


def check_ends(model: Any, *, foreign: bool = False) -> None:
    """Raises UnreadableModelError for a model that does not know its inputs and outputs.

    Functional and built Sequential models know them, and so do classes derived from them.

    Args:
        model: The model.
        foreign: Whether models of tf_keras are accepted.
    """
    if not (foreign or isinstance(model, keras.Model)):
        raise _unreadable(model)
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise _unreadable(model)


def _unreadable(model: Any) -> UnreadableModelError:
    if any(kind.__module__.partition(".")[0] == "tf_keras" for kind in type(model).__mro__):
        return UnreadableModelError(
            "`model` must be a model of Keras 3, built from `keras.layers`. `tf.keras` is Keras 2 where "
            "TF_USE_LEGACY_KERAS=1 is set or tensorflow_model_optimization was imported before `tf.keras` was used. "
            f"Received: {model.name!r} of class {type(model).__name__} of tf_keras (Keras 2)."
        )
    return UnreadableModelError(
        "`model` must be a functional Keras 3 model or a Sequential one with an Input: only these have a graph that "
        f"can be read. Received: {getattr(model, 'name', model)!r} of class {type(model).__name__}."
    )
