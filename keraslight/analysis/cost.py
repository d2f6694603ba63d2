"""Parameters and multiply-adds of a functional model, counted as in the reference tables."""

import math

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, learned_weights, read
from keraslight.graph.kinds import base_kind


def count_parameters(model: keras.Model) -> int:
    """Counts the learned parameters, including frozen ones, without batch normalization's moving statistics.

    `model.count_params()` includes the statistics; PyTorch's tables and papers don't.

    Args:
        model: A built Keras 3 model of any kind.

    Raises:
        InvalidArgumentError: The model is not built, so that it has no weights yet.
    """
    if not isinstance(model, keras.Layer) or not model.built:
        raise InvalidArgumentError(
            f"`model` must be a Keras 3 model that is built. Received: {getattr(model, 'name', model)!r} of class "
            f"{type(model).__name__}."
        )
    return sum(math.prod(weight.shape) for weight in learned_weights(model))


def count_macs(model: keras.Model) -> int:
    """Counts the multiply-adds of convolutions, dense layers and matrix products (`Dot`) for one image.

    As usual, element-wise operations, pooling and normalization are not counted. Layers of unknown types count as 0;
    `profile(model).unknown` lists them.

    Args:
        model: A functional model with a fixed input size.

    Raises:
        InvalidArgumentError: The output size of a layer is unknown because an input side is None.
    """
    return sum(map(call_macs, read(model, opaque=True).calls))


def call_macs(call: Call) -> int:
    """Counts the multiply-adds of one call; 0 for a layer of unknown type."""
    count = base_kind(type(call.layer)).macs
    if count is None:
        return 0
    macs = count(call.layer, [tensor.shape for tensor in call.inputs], [tensor.shape for tensor in call.outputs])
    if macs is None:
        raise InvalidArgumentError(
            "Counting needs a fixed input size. "
            f"Received: layer {call.layer.name!r} with output {call.outputs[0].shape}."
        )
    return macs
