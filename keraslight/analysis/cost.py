"""Parameters and multiply-adds of a functional model, counted as in the reference tables."""

import math
import warnings

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, learned_weights, read
from keraslight.graph.kinds import base_kind, copies, kind, operation_name


def count_parameters(model: keras.Model) -> int:
    """Counts the learned parameters, including frozen ones, without statistics of the data.

    Statistics are batch norms' moving mean and variance and what a `Normalization` adapts. `model.count_params()`
    includes them; PyTorch's tables and papers don't.

    Raises:
        InvalidArgumentError: The model has no weights yet because it was never built.
    """
    if not (isinstance(model, keras.Layer) and model.built):
        raise InvalidArgumentError(
            "Counting needs a model that is built: give a Sequential one an Input, or call it once. "
            f"Received: {getattr(model, 'name', model)!r}, which is not."
        )
    return sum(math.prod(weight.shape) for weight in learned_weights(model))


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-adds of convolutions, dense layers, attention and other matrix products for one image.

    As usual, element-wise operations, pooling and normalization are not counted. Layers of unknown types count as 0,
    with a warning if they have kernels; `profile(model).unknown` lists them.

    Args:
        model: A functional model with a fixed input size.

    Raises:
        InvalidArgumentError: The output size of a layer is unknown because an input side is None, or the model is not
            built.
    """
    graph = read(model, opaque=True)
    calls = graph.calls
    missing = {
        operation_name(call.layer): None
        for call in calls
        if isinstance(call.layer, keras.Layer)
        and base_kind(type(call.layer)).macs is None
        and any(len(weight.shape) > 1 for weight in learned_weights(call.layer))
    }
    if missing:
        warnings.warn(f"Multiply-adds of these layers are unknown and not counted: {', '.join(missing)}", stacklevel=2)
    images = copies(graph)
    return sum(call_macs(call) * images[call.outputs[0]] for call in calls)


def call_macs(call: Call) -> int:
    """Counts the multiply-adds of one call; 0 for a layer or operation of unknown type."""
    layer, inputs = call.layer, [tensor.shape for tensor in call.inputs]
    if isinstance(layer, keras.Layer):
        count = base_kind(type(layer)).macs
    else:
        count = kind(layer).macs
        arguments = keras.tree.flatten((call.args, call.kwargs))
        inputs = [tuple(argument.shape) for argument in arguments if hasattr(argument, "shape")]
    if count is None:
        return 0
    macs = count(layer, inputs, [tensor.shape for tensor in call.outputs])
    if macs is None:
        raise InvalidArgumentError(
            f"Counting needs a fixed input size. Received: layer {layer.name!r} with output {call.outputs[0].shape}."
        )
    return macs
