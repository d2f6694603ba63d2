"""Finds where a network violates ShuffleNet V2's guidelines for speed, and what that costs in memory access.

Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164, section 2.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras

from keraslight.analysis._memory import item_bytes, tensor_bytes, variable_bytes
from keraslight.analysis.cost import call_macs
from keraslight.analysis.profile import profile_graph
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, Graph, Tensor, read
from keraslight.graph.kinds import activation_of, kind, operation_name

GUIDELINES = {
    "G1": "Equal channel widths move the least memory: a 1x1 convolution from C1 to C2 channels at P pixels reads and "
    "writes P (C1 + C2) + C1 C2 values; with the same multiply-adds the least is 2 P sqrt(C1 C2) + C1 C2.",
    "G2": "Groups move more memory: of two convolutions with equal input and multiply-adds, the one in g groups "
    "writes g times as many values.",
    "G3": "Fragments leave processors idle: each of many small convolutions and poolings in a block, in a row or in "
    "parallel, costs a start and a wait, however few multiply-adds it has.",
    "G4": "Element-wise operations are not free: additions, gates and activations hardly multiply, but move as much "
    "memory as a convolution.",
}
"""The guidelines: code -> statement."""


class Finding(NamedTuple):
    """A violation of a guideline.

    Attributes:
        guideline: `"G1"` to `"G4"`, see `GUIDELINES`.
        where: Name of the layer, or of the first and the last layer of a block.
        detail: Description, such as "16 -> 96 channels".
        macs: Multiply-adds for one image.
        access_bytes: Memory access cost, as `LayerCost.access_bytes`, without biases.
        least_bytes: Memory access cost that the guideline allows for the same multiply-adds. G1: the bound for equal
            widths. G2: a convolution without groups. G3: `access_bytes`, as a fragmented block costs starts and waits,
            not memory. G4: 0.
        operations: Number of convolutions and poolings of a fragmented block; 1 for other guidelines.
    """

    guideline: str
    where: str
    detail: str
    macs: int
    access_bytes: int
    least_bytes: int
    operations: int = 1

    @property
    def ratio(self) -> float:
        """`access_bytes` divided by `least_bytes`; infinite for G4."""
        return self.access_bytes / self.least_bytes if self.least_bytes else math.inf

    @property
    def excess_bytes(self) -> int:
        """Bytes moved in excess of `least_bytes`."""
        return self.access_bytes - self.least_bytes

    def milliseconds(self, bandwidth: float, overhead: float = 0.0) -> float:
        """Estimates the time of the excess if all of it goes through memory, and of a block's starts after the first.

        What stays in a cache is faster, and several threads have more bandwidth. Where many processors wait for each
        other, as on a GPU, fragments cost more than their starts.

        Args:
            bandwidth: Memory bandwidth in bytes per second (above 0), such as `memory_bandwidth()`.
            overhead: Time to start an operation in milliseconds, such as `operation_overhead()`.
        """
        return 1000 * self.excess_bytes / bandwidth + (self.operations - 1) * overhead


def lint_model(
    model: keras.Model,
    input_shape: Sequence[int] | None = None,
    *,
    select: Sequence[str] = tuple(GUIDELINES),
    ratio: float = 1.25,
    fragments: int = 5,
    share: float = 0.01,
) -> list[Finding]:
    """Finds violations of ShuffleNet V2's four guidelines in a model as it runs in inference.

    - G1: 1x1 convolutions of stride 1, and dense layers on maps, whose memory access is more than `ratio` times the
      bound (equation 1; equal at C1 = C2).
    - G2: grouped convolutions, except depthwise ones, whose memory access is more than `ratio` times that of one
      without groups with the same input and multiply-adds (equation 2).
    - G3: blocks with more than `fragments` convolutions and poolings (table 3). A block is what lies between two points
      where all paths through the graph meet in one tensor, so it needs no names; what a long skip spans is one block.
    - G4: element-wise layers that make up at least `share` of the model's memory access. Batch normalization, ReLU and
      ReLU6 directly after a convolution, which every engine folds into it, don't count. Neither do concatenation and
      channel shuffles, which only move values.

    Args:
        model: A functional or built Sequential model.
        input_shape: (H, W, C) without the batch, if the model leaves sides open.
        select: Guidelines to check.
        ratio: Threshold of G1 and G2, at least 1.
        fragments: Threshold of G3, at least 1. ResNet's bottleneck with a projection has 4, ShuffleNet V2's
            downsampling unit 5; squeeze-and-excitation adds 3 to a block.
        share: Threshold of G4, in [0, 1].

    Returns:
        The findings by guideline, those that move the most memory first.

    Raises:
        InvalidArgumentError: An argument is out of range, a size is open, or the model has no graph.
    """
    if isinstance(select, str) or any(code not in GUIDELINES for code in select):
        raise InvalidArgumentError(f"`select` must be some of {tuple(GUIDELINES)}. Received: {select!r}.")
    if ratio < 1 or fragments < 1 or not 0 <= share <= 1:
        raise InvalidArgumentError(
            "`ratio` and `fragments` must be at least 1 and `share` in [0, 1]. "
            f"Received: ratio={ratio}, fragments={fragments}, share={share}."
        )
    graph = read(model, input_shape, opaque=True)
    total = profile_graph(graph).access_bytes  # also rejects open sizes
    found = [
        *(finding for call in graph.calls if (finding := _widths(call)) and finding.ratio > ratio),
        *(finding for call in graph.calls if (finding := _groups(call)) and finding.ratio > ratio),
        *(finding for block in _blocks(graph) if (finding := _fragmented(block, fragments))),
        *(finding for finding in _elementwise(graph) if finding.access_bytes >= share * total),
    ]
    return sorted((f for f in found if f.guideline in select), key=lambda f: (f.guideline, -f.excess_bytes, -f.macs))


def _access(call: Call) -> int:
    layer = call.layer
    weights = [layer.kernel] if hasattr(layer, "kernel") else getattr(layer, "weights", [])
    return sum(map(tensor_bytes, (*call.inputs, *call.outputs))) + sum(map(variable_bytes, weights))


def _widths(call: Call) -> Finding | None:
    """Guideline 1 for one call; None if it does not apply."""
    layer, layout = call.layer, kind(call.layer).kernel
    pointwise = layout == "convolution" and (*layer.kernel_size, *layer.strides, layer.groups) == (1, 1, 1, 1, 1)
    if not pointwise and layout != "dense":
        return None
    macs, before, after = call_macs(call), *_channels(call)
    places = macs // (before * after)
    itemsize = item_bytes(call.outputs[0].dtype)
    least = math.ceil((2 * places * math.sqrt(before * after) + before * after) * itemsize)
    access = (places * (before + after) + before * after) * itemsize
    return Finding("G1", call.path, f"{before} -> {after} channels", macs, access, least)


def _groups(call: Call) -> Finding | None:
    """Guideline 2 for one call; None if it does not apply."""
    layer = call.layer
    if kind(layer).kernel != "convolution" or len(layer.kernel_size) != 2 or layer.groups == 1:
        return None
    before, after = _channels(call)
    if layer.groups == before:  # depthwise
        return None
    access, written = _access(call), tensor_bytes(call.outputs[0])
    detail = f"{layer.groups} groups, {before} -> {after} channels"
    return Finding("G2", call.path, detail, call_macs(call), access, access - written + written // layer.groups)


def _channels(call: Call) -> list[int]:
    """Numbers of input and output channels of a layer with a kernel."""
    return [shape[-1] or 0 for shape in (call.inputs[0].shape, call.outputs[0].shape)]


def _blocks(graph: Graph) -> Iterator[list[Call]]:
    """Yields the graph's calls, cut wherever at most one tensor is still to be read, as after the last call."""
    last = {tensor: step for step, call in enumerate(graph.calls) for tensor in call.inputs}
    live: set[Tensor] = set()
    block: list[Call] = []
    for step, call in enumerate(graph.calls):
        block.append(call)
        live = {tensor for tensor in (*live, *call.inputs, *call.outputs) if last.get(tensor, -1) > step}
        if len(live) <= 1:
            yield block
            block = []


def _fragmented(block: list[Call], most: int) -> Finding | None:
    """Guideline 3 for one block; None if it is kept."""
    rows = [kind(call.layer) for call in block]
    pieces = sum(row.convolution or row.pooling for row in rows)
    if pieces <= most:
        return None
    made = {tensor for call in block for tensor in call.outputs}
    branches = sum(not made.issuperset(call.inputs) for call in block)
    macs, access = sum(map(call_macs, block)), sum(map(_access, block))
    detail = f"{pieces} convolutions and poolings, {branches} branches"
    return Finding("G3", f"{block[0].path} to {block[-1].path}", detail, macs, access, access, pieces)


def _elementwise(graph: Graph) -> Iterator[Finding]:
    """Guideline 4: every element-wise call that no engine folds into a convolution."""
    readers = graph.readers()
    folding: set[Tensor] = set()  # outputs into whose maker the next layer can be folded
    for call in graph.calls:
        layer, row = call.layer, kind(call.layer)
        # An output of the model that one layer reads, too, counts as read once.
        alone = all(sum(reader is not None for reader in readers[tensor]) == 1 for tensor in call.outputs)
        if row.convolution and alone:
            folding.update(call.outputs)
        elif row.elementwise:
            after = call.inputs[0] in folding
            if after and row.batch_norm:
                folding.update(call.outputs if alone else ())
            elif not (after and activation_of(layer) in ("relu", "relu6")):
                name = getattr(getattr(layer, "activation", None), "__name__", None) or operation_name(layer)
                detail = f"{name} of {'x'.join(map(str, call.outputs[0].shape[1:]))}"
                yield Finding("G4", call.path, detail, 0, _access(call), 0)
