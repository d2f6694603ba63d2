"""Graphs in half precision, and back."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import Call, Graph, Node, build, check_ends, flat_layers, read
from keraslight.graph.kinds import base_kind

HALVES = ("float16", "bfloat16")
_MIXED = tuple(f"mixed_{dtype}" for dtype in HALVES)


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


def in_float32(model: keras.Model) -> keras.Model:
    """The float32 twin of a model that computes in 16 bits, such as one trained under `mixed_float16`.

    Returns:
        The model itself if it computes in float32; else a new functional model with the same weights and names.

    Raises:
        UnreadableModelError: The model does not know its inputs and outputs, or computes in 16 bits and has no graph.
        CompressionError: A layer's configuration does not make it again.
    """
    check_ends(model)
    parts = list(flat_layers(model))
    bare = (operation for part in parts for operation in getattr(part, "operations", ()))
    if all(part.compute_dtype not in HALVES for part in parts) and all(isinstance(one, keras.Layer) for one in bare):
        return model  # without reading it; bare operations don't say what they compute in
    graph = read(model)
    if not any(map(_computes_in_half, (*graph.input_calls, *graph.calls))):
        return model
    copy = graph.copy()
    for call in copy.input_calls:
        layer = keras.layers.InputLayer(batch_shape=call.outputs[0].shape, dtype="float32", name=call.name)
        call.node = Node(layer, call.name) if call.outputs[0].dtype in HALVES else call.node
    for node in copy.uses():
        node.change(config=_in_float32(node.config))
    with _float32_policy():  # layers make the layers inside them by it
        return build(copy)


def _computes_in_half(call: Call) -> bool:
    layers = flat_layers(call.layer) if isinstance(call.layer, keras.Layer) else ()
    return any(layer.compute_dtype in HALVES for layer in layers) or any(t.dtype in HALVES for t in call.outputs)


def _in_float32(config: Any) -> Any:
    """A configuration with float32 in place of the dtypes and policies of 16 bits, also of the layers inside."""
    if isinstance(config, dict):
        return {key: _policy(value) if key == "dtype" else _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(map(_in_float32, config))
    return config


def _policy(dtype: Any) -> Any:
    name = dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype
    return "float32" if name in (*HALVES, *_MIXED) else dtype


@contextlib.contextmanager
def _float32_policy() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
