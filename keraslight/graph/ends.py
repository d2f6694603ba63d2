"""Inspects a model's input preprocessing and output activation.

Nested models are inspected, too: users put augmentation or a normalization in front of a model. Classes are compared by
name, because the names are the same in Keras 3 and in tf_keras, where quantization-aware models live.
"""

import dataclasses
from typing import Any

import keras

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import LAYER_NAME, Preprocessing


@dataclasses.dataclass(frozen=True)
class Ends:
    """What a model takes and returns.

    Attributes:
        preprocessing: Preprocessing of a model that takes raw pixels, if it says so; see `own_preprocessing`.
        takes_pixels: Whether the model normalizes raw pixels itself, if only by a layer's name.
        activation: Name of the final activation; see `final_activation`.
        quantization_aware: Whether it carries tensorflow_model_optimization's quantizers.
    """

    preprocessing: Preprocessing | None
    takes_pixels: bool
    activation: str | None
    quantization_aware: bool

    @property
    def gives_probabilities(self) -> bool:
        """Whether the final activation is a softmax or a sigmoid."""
        return self.activation in ("softmax", "sigmoid")


def read_ends(model: Any) -> Ends:
    """Inspects a functional or sequential model, or a quantization-aware one of tf_keras."""
    own = own_preprocessing(model)
    return Ends(
        own,
        own is not None or any(layer.name == LAYER_NAME for layer in model.layers),
        final_activation(model) if getattr(model, "outputs", None) else None,
        is_quantization_aware(model),
    )


def own_preprocessing(model: keras.Model) -> Preprocessing | None:
    """What a model that takes raw pixels says of their preprocessing; None for one that takes normalized images."""
    for layer in model.layers:
        if isinstance(layer, ImageNormalization):
            return layer.preprocessing
        if isinstance(layer, keras.Model) and (found := own_preprocessing(layer)) is not None:
            return found
    return getattr(model, "preprocessing", None)  # a quantization-aware twin, whose normalization is a convolution


def final_activation(model: Any) -> str | None:
    """The name of the activation that makes the output of a functional or sequential model, such as `"softmax"`.

    None for a last layer without one. What only gives values another shape or dtype is passed over; an average of
    outputs has the activation that they agree on.
    """
    return _activation_of(model.outputs[0], ())


def is_quantization_aware(model: Any) -> bool:
    """Whether a model carries tensorflow_model_optimization's quantizers."""
    # By name: the classes can't be imported where tensorflow-model-optimization is not installed.
    classes = {base.__name__ for layer in getattr(model, "layers", ()) for base in type(layer).__mro__}
    return not classes.isdisjoint(("QuantizeWrapper", "QuantizeLayer"))


def maker(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer or operation that makes a symbolic tensor, and what it reads for that."""
    history = tensor._keras_history  # as `keras.Model(inputs, outputs)` reads it: public in all but name
    if hasattr(history, "operation"):
        node = history.operation._inbound_nodes[history.node_index]
        return history.operation, node.input_tensors
    return history.layer, keras.tree.flatten(history.layer.get_input_at(history.node_index))  # of tf_keras


def keeps_values(operation: Any) -> bool:
    """Whether a layer or operation only gives its input another shape or, in mixed precision, another dtype."""
    if _is(operation, "Activation"):
        return getattr(operation.activation, "__name__", None) == "linear"
    return _is(operation, "Flatten", "Reshape", "Squeeze", "Identity", "Cast")


def lone_activation(operation: Any) -> str | None:
    """The name of the activation that a layer or an operation of `keras.ops` is, if it is nothing else."""
    if _is(operation, "Activation"):
        return _name(operation.activation)
    return next((name.lower() for name in ("Softmax", "Sigmoid") if _is(operation, name)), None)


def _activation_of(tensor: Any, around: tuple[list[Any], ...]) -> str | None:
    """`around`: for each nested model that the tensor lies in, outermost first, what it was called with."""
    operation, read = maker(tensor)
    if _is(operation, "Model") and getattr(operation, "outputs", None):
        return _activation_of(operation.outputs[tensor._keras_history.tensor_index], (*around, read))
    if _is(operation, "InputLayer"):
        return _activation_of(around[-1][0], around[:-1]) if around else None
    if keeps_values(operation):
        return _activation_of(read[0], around)
    if _is(operation, "Average"):
        names = {_activation_of(part, around) for part in read}
        return names.pop() if len(names) == 1 else None
    return lone_activation(operation) or _name(getattr(operation, "activation", None))


def _name(activation: Any) -> str | None:
    name = getattr(activation, "__name__", None if activation is None else type(activation).__name__)
    return None if name == "linear" else name


def _is(operation: Any, *names: str) -> bool:
    operation = getattr(operation, "operation", operation)  # tf_keras' twin of a bare operation holds it
    return any(kind.__name__ in names for kind in type(operation).__mro__)
