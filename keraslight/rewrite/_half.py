"""Graphs in half precision."""

import keras
import numpy as np

from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import Graph
from keraslight.graph.kinds import base_kind

HALVES = ("float16", "bfloat16")


def halved(graph: Graph, dtype: str) -> Graph:
    """Stores weights and computes in 16 bits; see `keraslight.compress.half`.

    Normalizations (see `graph.kinds`) stay in float32, and so do layers that make an output that no layer reads.

    Raises:
        InvalidArgumentError: `dtype` is unknown.
        CompressionError: A weight is too large for `dtype`, or a layer has no configuration.
    """
    if dtype not in HALVES:
        raise InvalidArgumentError(f"`dtype` must be one of {HALVES}. Received: {dtype!r}.")
    limit = 65504.0 if dtype == "float16" else float(np.finfo(np.float32).max)
    copy = graph.copy()
    readers = copy.readers()
    for call in copy.calls:
        for number, values in enumerate(call.node.weights):
            if not np.abs(np.asarray(values, np.float32)).max(initial=0) <= limit:
                raise CompressionError(
                    f"Every weight must be at most {limit:g} to fit {dtype}. "
                    f"Received: layer {call.name!r}, whose {call.layer.weights[number].name!r} is not."
                )
        row = base_kind(call.node.kind)
        output = any(readers[tensor] == [None] for tensor in call.outputs)  # logits are read by the softmax, too
        layer = issubclass(call.node.kind, keras.layers.Layer)  # a bare operation has the dtype that it reads
        if layer and not output and not row.keeps_float32:
            call.node.change(config={"dtype": dtype})
    return copy
