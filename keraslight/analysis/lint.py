"""Where a network breaks ShuffleNet V2's guidelines for speed, and what that costs in moved memory.

Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
from keras import layers

from keraslight.analysis._graph import ELEMENTWISE_OPS, Call, Graph, behaves_like, operation_name, trace
from keraslight.analysis._memory import item_bytes, tensor_bytes
from keraslight.analysis.cost import _macs
from keraslight.analysis.profile import profile
from keraslight.errors import InvalidArgumentError
from keraslight.layers import (
    GRN,
    BatchNorm,
    C4GroupConv2D,
    C4LiftingConv2D,
    ConditionalConv2D,
    DeformableConv2D,
    GroupedConv2D,
    ImageNormalization,
    LayerNorm,
    LayerScale,
    LocalResponseNorm,
    MaxPoolWithIndices2D,
)

GUIDELINES = {
    "G1": "Equal channel widths move the least memory: a 1x1 convolution from C1 to C2 channels at P places reads and "
    "writes P (C1 + C2) + C1 C2 values, for its multiply-adds at least 2 P sqrt(C1 C2) + C1 C2.",
    "G2": "Groups move more memory: of two convolutions with equal input and multiply-adds, the one in g groups "
    "writes g times as many values.",
    "G3": "Fragments leave processors idle: many small convolutions and poolings in a block, one after the other or "
    "side by side, cost a start and a wait each, however few multiply-adds they have.",
    "G4": "Element-wise operations are not free: additions, gates and activations hardly multiply, and move as much "
    "memory as a convolution does.",
}
"""What each guideline says."""

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
    GroupedConv2D,
    C4LiftingConv2D,
    C4GroupConv2D,
    ConditionalConv2D,
    DeformableConv2D,
)
_POOLINGS = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveMaxPooling2D,
    MaxPoolWithIndices2D,
)
_BATCH_NORMS = (layers.BatchNormalization, BatchNorm)
_ELEMENTWISE = (
    *_BATCH_NORMS,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.Softmax,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
    layers.Normalization,
    layers.Rescaling,
    GRN,
    ImageNormalization,
    LayerNorm,
    LayerScale,
    LocalResponseNorm,
)


class Finding(NamedTuple):
    """A place where a model breaks a guideline.

    Attributes:
        guideline: "G1" to "G4", see `GUIDELINES`.
        where: The layer, or the first and the last one of a block.
        detail: What was found, such as "16 -> 96 channels".
        macs: Multiply-adds there, for one image.
        access_bytes: Memory access cost there, as `LayerCost.access_bytes`, without biases.
        least_bytes: What the guideline allows for the same multiply-adds: G1, the bound of equal widths; G2, a
            convolution without groups; G4, 0. A fragmented block (G3) costs starts and waits, not memory, so here it
            is `access_bytes`.
        operations: Convolutions and poolings of a fragmented block; 1 elsewhere.
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
        """Bytes that are moved beyond `least_bytes`."""
        return self.access_bytes - self.least_bytes

    def milliseconds(self, bandwidth: float, overhead: float = 0.0) -> float:
        """What the excess takes where all of it goes through memory, and the starts of a block beyond its first one.

        An estimate: what stays in a cache is faster, several threads move more; and where many processors wait for
        each other, as on a graphics card, fragments cost more than their starts.

        Args:
            bandwidth: Bytes a second, such as of `memory_bandwidth()`; above 0.
            overhead: Milliseconds to start an operation, such as of `operation_overhead()`.
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
    """Looks for breaches of ShuffleNet V2's four guidelines in a model as it runs in inference.

    - G1: 1x1 convolutions of stride 1, and dense layers over maps, whose memory access is above `ratio` times the
      bound (equation 1; equal at C1 = C2).
    - G2: convolutions in groups, other than depthwise ones, whose memory access is above `ratio` times that of one
      without groups of the same input and multiply-adds (equation 2).
    - G3: blocks with more than `fragments` convolutions and poolings (table 3). A block is what lies between two places
      where all paths through the graph meet in one tensor, so it needs no names; what a long skip spans is one block.
    - G4: element-wise layers that make up at least `share` of the model's memory access. Batch normalization, ReLU and
      ReLU6 right behind a convolution, which every engine folds into it, don't count; nor do concatenation and channel
      shuffles, which only move values.

    Args:
        model: A functional or built Sequential model.
        input_shape: (H, W, C) without the batch where the model leaves sides open.
        select: The guidelines to look at.
        ratio: At least 1.
        fragments: At least 1. ResNet's bottleneck with a projection has 4, ShuffleNet V2's downsampling unit 5,
            squeeze-and-excitation adds 3 to a block.
        share: In [0, 1].

    Returns:
        The findings, guideline by guideline, those that move the most first.

    Raises:
        InvalidArgumentError: an argument is out of its range, a size stays open, or the model has no graph.
    """
    if isinstance(select, str) or any(code not in GUIDELINES for code in select):
        raise InvalidArgumentError(f"`select` must be some of {tuple(GUIDELINES)}. Received: {select!r}.")
    if ratio < 1 or fragments < 1 or not 0 <= share <= 1:
        raise InvalidArgumentError(
            "`ratio` and `fragments` must be at least 1 and `share` in [0, 1]. "
            f"Received: ratio={ratio}, fragments={fragments}, share={share}."
        )
    total = profile(model, input_shape).access_bytes  # which also refuses open sizes
    graph = trace(model, input_shape)
    found = [
        *(finding for call in graph.calls if (finding := _widths(call)) and finding.ratio > ratio),
        *(finding for call in graph.calls if (finding := _groups(call)) and finding.ratio > ratio),
        *(finding for block in _blocks(graph) if (finding := _fragmented(block, fragments))),
        *(finding for finding in _elementwise(graph) if finding.access_bytes >= share * total),
    ]
    return sorted((f for f in found if f.guideline in select), key=lambda f: (f.guideline, -f.excess_bytes, -f.macs))


def _shape_and_macs(call: Call) -> tuple[tuple, int]:
    shape = tuple(call.inputs[0].shape)
    return shape, _macs(call.layer, [tuple(t.shape) for t in call.inputs], [tuple(t.shape) for t in call.outputs])


def _access(call: Call) -> int:
    weights = [call.layer.kernel] if hasattr(call.layer, "kernel") else getattr(call.layer, "weights", [])
    moved = sum(map(tensor_bytes, (*call.inputs, *call.outputs)))
    return moved + sum(math.prod(w.shape) * item_bytes(w.dtype) for w in weights)


def _widths(call: Call) -> Finding | None:
    """Guideline 1 at one call: None where it does not apply."""
    layer = call.layer
    pointwise = behaves_like(layer, (layers.Conv2D, GroupedConv2D)) and (
        layer.kernel_size == (1, 1) and layer.strides == (1, 1) and layer.groups == 1
    )
    if not pointwise and not behaves_like(layer, (layers.Dense,)):
        return None
    shape, macs = _shape_and_macs(call)
    before, after = shape[-1], call.outputs[0].shape[-1]
    places = macs // (before * after)
    itemsize = item_bytes(call.outputs[0].dtype)
    least = math.ceil((2 * places * math.sqrt(before * after) + before * after) * itemsize)
    access = (places * (before + after) + before * after) * itemsize
    return Finding("G1", call.name, f"{before} -> {after} channels", macs, access, least)


def _groups(call: Call) -> Finding | None:
    """Guideline 2 at one call: None where it does not apply."""
    layer = call.layer
    if not behaves_like(layer, (layers.Conv2D, GroupedConv2D)) or layer.groups == 1:
        return None
    shape, macs = _shape_and_macs(call)
    if layer.groups == shape[-1]:
        return None  # depthwise
    access, written = _access(call), tensor_bytes(call.outputs[0])
    detail = f"{layer.groups} groups, {shape[-1]} -> {layer.filters} channels"
    return Finding("G2", call.name, detail, macs, access, access - written + written // layer.groups)


def _blocks(graph: Graph) -> Iterator[list[Call]]:
    """The graph's calls, cut wherever one tensor alone is still to be read."""
    last = {id(tensor): step for step, call in enumerate(graph.calls) for tensor in call.inputs}
    live: set[int] = set()
    block: list[Call] = []
    for step, call in enumerate(graph.calls):
        block.append(call)
        live.update(map(id, call.outputs))
        live = {key for key in live if last.get(key, -1) > step}
        if len(live) <= 1:
            yield block
            block = []
    if block:
        yield block


def _fragmented(block: list[Call], most: int) -> Finding | None:
    """Guideline 3 at one block: None where it keeps it."""
    pieces = [call for call in block if behaves_like(call.layer, (*_CONVOLUTIONS, *_POOLINGS))]
    if len(pieces) <= most:
        return None
    made = {id(tensor) for call in block for tensor in call.outputs}
    branches = sum(any(id(tensor) not in made for tensor in call.inputs) for call in block)
    macs = sum(_shape_and_macs(call)[1] for call in block if call.inputs)
    access = sum(map(_access, block))
    detail = f"{len(pieces)} convolutions and poolings, {branches} branches"
    return Finding("G3", f"{block[0].name} to {block[-1].name}", detail, macs, access, access, len(pieces))


def _elementwise(graph: Graph) -> Iterator[Finding]:
    """Guideline 4: every element-wise call that no engine folds into a convolution."""
    readers: dict[int, int] = {}
    for call in graph.calls:
        for tensor in call.inputs:
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    folding: set[int] = set()  # outputs that what follows can be folded into
    for call in graph.calls:
        alone = all(readers.get(id(tensor)) == 1 for tensor in call.outputs)
        if behaves_like(call.layer, _CONVOLUTIONS) and alone:
            folding.update(map(id, call.outputs))
        elif behaves_like(call.layer, _ELEMENTWISE) or operation_name(call.layer) in ELEMENTWISE_OPS:
            behind = id(call.inputs[0]) in folding
            if behind and behaves_like(call.layer, _BATCH_NORMS):
                folding.update(id(tensor) for tensor in call.outputs if alone)
            elif not (behind and _is_relu(call.layer)):
                activation = getattr(call.layer, "activation", None)
                kind = getattr(activation, "__name__", None) or operation_name(call.layer)
                detail = f"{kind} of {'x'.join(map(str, call.outputs[0].shape[1:]))}"
                yield Finding("G4", call.name, detail, 0, _access(call), 0)


def _is_relu(layer: keras.Operation) -> bool:
    """Whether it is ReLU or ReLU6."""
    if behaves_like(layer, (layers.ReLU,)):
        return layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold
    return behaves_like(layer, (layers.Activation,)) and layer.activation in (
        keras.activations.relu,
        keras.activations.relu6,
    )
