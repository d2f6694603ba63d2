"""What a graph's tensors fill of memory, for one image."""

from __future__ import annotations

import math
import re

import keras

from keraslight.analysis._graph import Graph, behaves_like
from keraslight.analysis._layer_kinds import VIEWS
from keraslight.errors import InvalidArgumentError


def item_bytes(dtype: str) -> int:
    """Bytes of a number of a Keras type: numpy does not know bfloat16 and the float8s."""
    if dtype == "bool":
        return 1
    bits = re.search(r"\d+", dtype)
    if bits is None:
        raise InvalidArgumentError(f"Memory is counted for numbers only. Received: a tensor of type {dtype}.")
    return max(int(bits[0]) // 8, 1)


def tensor_bytes(tensor: keras.KerasTensor) -> int:
    """Memory of one image's tensor."""
    return math.prod(tensor.shape[1:]) * item_bytes(tensor.dtype)


def peak(graph: Graph) -> tuple[int, str]:
    """The most bytes that live at once, and the layer that runs then."""
    owner = {id(tensor): id(tensor) for tensor in graph.inputs}  # the tensor whose memory it is
    sizes = {id(tensor): tensor_bytes(tensor) for tensor in graph.inputs}
    made = dict.fromkeys(sizes, 0)
    read = dict.fromkeys(sizes, 0)
    for step, call in enumerate(graph.calls):
        for tensor in call.inputs:
            read[owner[id(tensor)]] = step
        for tensor in call.outputs:
            if id(tensor) in owner:
                continue  # an input
            if call.inputs and behaves_like(call.layer, VIEWS):
                owner[id(tensor)] = owner[id(call.inputs[0])]
                continue
            key = owner[id(tensor)] = id(tensor)
            sizes[key] = tensor_bytes(tensor)
            made[key] = read[key] = step
    for tensor in graph.outputs:
        read[owner[id(tensor)]] = len(graph.calls) - 1
    change = [0] * (len(graph.calls) + 1)
    for key, size in sizes.items():
        change[made[key]] += size
        change[read[key] + 1] -= size
    best = live = step = 0
    for now, difference in enumerate(change[:-1]):
        live += difference
        if live > best:
            best, step = live, now
    return best, graph.calls[step].name
