"""A model's two ends, as far as its layers tell: which images it takes, and whether it gives probabilities or logits.

Models nested in it are looked into: people put augmentation in front of one, or a normalization. Classes go by their
names, which are the same in Keras 3 and in tf_keras, where quantization-aware models live.
"""

from __future__ import annotations

from typing import Any

import keras

from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing


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
    classes = (base.__name__ for layer in getattr(model, "layers", ()) for base in type(layer).__mro__)
    return "QuantizeWrapper" in classes


def maker(tensor: Any) -> tuple[Any, list]:
    """The layer or operation that makes a symbolic tensor, and what it reads for that."""
    history = tensor._keras_history  # as `keras.Model(inputs, outputs)` reads it: public in all but name
    if hasattr(history, "operation"):
        node = history.operation._inbound_nodes[history.node_index]
        return history.operation, node.input_tensors
    return history.layer, keras.tree.flatten(history.layer.get_input_at(history.node_index))  # of tf_keras


def keeps_values(operation: Any) -> bool:
    """Whether a layer or operation only gives its input another shape or, in mixed precision, another dtype."""
    if _is(operation, "Activation"):
        return operation.activation.__name__ == "linear"
    return _is(operation, "Flatten", "Reshape", "Squeeze", "Identity", "Cast")


def lone_activation(operation: Any) -> str | None:
    """The name of the activation that a layer or an operation of `keras.ops` is, if it is nothing else."""
    if _is(operation, "Activation"):
        return _name(operation.activation)
    return next((name.lower() for name in ("Softmax", "Sigmoid") if _is(operation, name)), None)


def _activation_of(tensor: Any, around: tuple[list, ...]) -> str | None:
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
