"""Models in half precision."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keraslight.compress import _graph
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.layers import ImageNormalization

_DTYPES = ("float16", "bfloat16")


def half(model: keras.Model, dtype: str = "float16") -> keras.Model:
    """A copy of a model that stores its weights and computes in 16 bits, for inference.

    For accelerators with half-precision units, and for files of half the size. A CPU without such units is slower
    with it; for phones `to_litert(quantization="float16")` halves the file and computes in float32.

    The model takes and gives float32 as before: the normalization of raw pixels and a final softmax stay in float32.

    Args:
        model: A functional or sequential model. It is not changed.
        dtype: `"float16"` (11 bits of precision, up to 65,504) or `"bfloat16"` (8 bits, float32's range).

    Returns:
        A new functional model with the same layer names. Models nested in it are opened up.

    Raises:
        InvalidArgumentError: `dtype` is neither.
        CompressionError: a weight is too large for `dtype`, the model is subclassed, or a layer's configuration does
            not make it again.
    """
    if dtype not in _DTYPES:
        raise InvalidArgumentError(f"`dtype` must be one of {_DTYPES}. Received: {dtype!r}.")
    graph = _graph.read(model)
    outputs = keras.tree.flatten(graph.outputs)
    layers: dict[str, Any] = {}

    def call_layer(call, args, kwargs):
        if call.name not in layers:
            config = {**call.layer.get_config(), "name": call.name}
            last = any(output in outputs for output in call.outputs)
            if isinstance(call.layer, keras.layers.Layer):
                config["dtype"] = "float32" if isinstance(call.layer, ImageNormalization) or last else dtype
            layers[call.name] = type(call.layer).from_config(config)
        return layers[call.name](*args, **kwargs)

    halved = graph.model(model.name, call_layer)
    limit = 65504.0 if dtype == "float16" else float(np.finfo(np.float32).max)
    for name, layer in graph.layers().items():
        if not getattr(layer, "weights", ()):
            continue
        for weight in layer.weights:
            if not np.abs(np.asarray(weight, np.float32)).max(initial=0) <= limit:
                raise CompressionError(
                    f"Every weight must be at most {limit:g} to fit {dtype}. "
                    f"Received: layer {name!r}, whose {weight.name!r} is not."
                )
        _graph.fill_weights(layers[name], name, layer.get_weights())
    return halved
