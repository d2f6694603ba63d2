"""Memory that a graph's tensors use, for one image."""

import itertools
import math
import re

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph import Graph, Tensor
from keraslight.graph.kinds import copies, kind


def variable_bytes(variable: keras.Variable) -> int:
    """Memory of a weight."""
    return math.prod(variable.shape) * item_bytes(variable.dtype)


def tensor_bytes(tensor: Tensor) -> int:
    """Memory of a tensor for one image, whose sides must be known."""
    return math.prod(tensor.shape[1:]) * item_bytes(tensor.dtype)  # type: ignore[arg-type]  # no None in the shape


def item_bytes(dtype: str) -> int:
    """Bytes per number of a Keras dtype. NumPy doesn't know bfloat16 and the float8 types."""
    if dtype == "bool":
        return 1
    bits = re.search(r"\d+", dtype)
    if bits is None:
        raise InvalidArgumentError(f"Memory is counted for numbers only. Received: a tensor of type {dtype}.")
    return max(int(bits[0]) // 8, 1)


def peak(graph: Graph) -> tuple[int, str]:
    """Returns the most bytes that are alive at once, and the path of the layer that runs then.

    Inputs are alive from the start and outputs to the end. A view is alive as its input.
    """
    calls = [*graph.input_calls, *graph.calls]
    end = len(calls) - 1
    owners: dict[Tensor, Tensor] = {}  # a tensor -> the tensor whose memory it is
    births: dict[Tensor, int] = {}
    deaths: dict[Tensor, int] = {}
    for step, call in enumerate(calls):
        deaths.update((owners[tensor], step) for tensor in call.inputs)
        for tensor in call.outputs:
            owner = owners[tensor] = owners[call.inputs[0]] if call.inputs and kind(call.layer).view else tensor
            if owner == tensor:
                births[tensor] = deaths[tensor] = step if call.inputs else 0
    deaths.update((owners[tensor], end) for tensor in keras.tree.flatten(graph.outputs))
    change, images = [0] * (end + 2), copies(graph)
    for tensor, birth in births.items():
        change[birth] += tensor_bytes(tensor) * images[tensor]
        change[deaths[tensor] + 1] -= tensor_bytes(tensor) * images[tensor]
    live = list(itertools.accumulate(change[:-1]))
    return max(live), calls[live.index(max(live))].path
