"""Fuses parallel convolutions whose results are added into one convolution.

At inference all branches are linear, so their kernels, each scaled by its batch norm, can be added where they meet: a
1x1 kernel lies in the centre of a 3x3 one that is padded by one pixel on both sides, the tensor itself is a 1x1 kernel
with ones on the diagonal of every group. The place follows from the padding of both, so it is also right for
TensorFlow's "same" at stride 2 (top left on even sides).

Source: Ding et al., "RepVGG", https://arxiv.org/abs/2101.03697, section 3.3.
"""

import itertools
import math
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keraslight.graph import Call, Graph, Tensor, is_frozen
from keraslight.graph.kinds import scale_and_shift


class _Branch(NamedTuple):
    """A linear way from the block's input to an addition.

    Attributes:
        conv: The convolution's call; None for the input itself.
        norm: The batch norm's call after it; None for none.
        before: Zeros that it sees above and left of its input, (rows, columns).
        source: The tensor that the branch starts from.
    """

    conv: Call | None
    norm: Call | None
    before: tuple[int, int]
    source: Tensor

    @property
    def kernel_size(self) -> tuple[int, int]:
        return (1, 1) if self.conv is None else self.conv.layer.kernel_size


class _Block(NamedTuple):
    """Branches that one convolution can replace, of which `main` has the kernel that holds all others."""

    main: _Branch
    branches: list[_Branch]
    additions: list[Call]


def reparameterized(graph: Graph) -> Graph:
    """Fuses every block of parallel branches; see `keraslight.compress.reparameterize`.

    Returns:
        The graph itself if it has no such block.
    """
    blocks = _blocks(graph)
    if not blocks:
        return graph
    copy = graph.copy()
    copies = dict(zip(map(id, graph.calls), copy.calls, strict=True))
    gone: set[int] = set()
    for block in blocks:
        main = block.main.conv
        assert main is not None  # noqa: S101 - `_blocks` gives none without
        fused = copies[id(main)]
        frozen = any(is_frozen(branch.conv.layer) for branch in block.branches if branch.conv is not None)
        fused.node.change(config={"use_bias": True, "trainable": not frozen}, weights=_fused_weights(block, main.layer))
        fused.outputs = copies[id(block.additions[0])].outputs
        parts = itertools.chain.from_iterable((branch.conv, branch.norm) for branch in block.branches)
        gone |= {id(copies[id(call)]) for call in (*block.additions, *parts) if call is not None and call is not main}
    copy.calls = [call for call in copy.calls if id(call) not in gone]
    copy.drop_unused()  # the padding of the other branches
    return copy


def _blocks(graph: Graph) -> list[_Block]:
    """Every sum of branches that one convolution can replace."""
    makers, readers, uses = graph.makers(), graph.readers(), graph.uses()

    def sole(tensor: Tensor, kind: type) -> Call | None:
        """The call that made `tensor`, if it is of this kind, not shared, and only one other call reads it."""
        call = makers.get(tensor)
        if call is None or not isinstance(call.layer, kind) or uses[call.node] > 1 or len(readers[tensor]) > 1:
            return None
        return call

    def addends(call: Call) -> tuple[list[Tensor], list[Call]]:
        """The tensors that a tree of additions sums up, and the additions, the last one first."""
        tensors, additions = [], [call]
        for tensor in call.inputs:
            inner = sole(tensor, layers.Add)
            if inner is None:
                tensors.append(tensor)
            else:
                more, calls = addends(inner)
                tensors += more
                additions += calls
        return tensors, additions

    def branch(tensor: Tensor) -> _Branch:
        norm = sole(tensor, layers.BatchNormalization)
        if norm is not None and norm.layer.axis not in (-1, len(tensor.shape) - 1):
            norm = None
        if norm is not None:
            tensor = norm.inputs[0]
        call = sole(tensor, layers.Conv2D)
        if call is None or not _is_plain(call):
            return _Branch(None, norm, (0, 0), tensor)
        tensor, padding = call.inputs[0], None
        pad = makers.get(tensor)
        if pad is not None and isinstance(pad.layer, layers.ZeroPadding2D) and call.layer.padding == "valid":
            tensor, padding = pad.inputs[0], pad.layer
        return _Branch(call, norm, _zeros_before(call, padding), tensor)

    blocks: list[_Block] = []
    taken: set[str] = set()
    for call in reversed(graph.calls):  # from the outside of nested additions, which may make one block, inwards
        if not isinstance(call.layer, layers.Add) or uses[call.node] > 1 or call.name in taken:
            continue
        tensors, additions = addends(call)
        branches = [branch(tensor) for tensor in tensors]
        main = max(branches, key=lambda b: 0 if b.conv is None else np.prod(b.kernel_size))
        if main.conv is not None and all(_fits(b, main) for b in branches):
            blocks.append(_Block(main, branches, additions))
            taken |= {addition.name for addition in additions}
    return blocks


def _is_plain(call: Call) -> bool:
    layer = call.layer
    return (
        layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and (layer.padding == "valid" or layer.strides == (1, 1) or None not in call.inputs[0].shape[1:3])
    )


def _zeros_before(call: Call, padding: layers.ZeroPadding2D | None) -> tuple[int, int]:
    """The zeros above and left of a convolution's input."""
    layer = call.layer
    if padding is not None:
        return padding.padding[0][0], padding.padding[1][0]
    if layer.padding == "valid":
        return 0, 0
    if layer.strides == (1, 1):
        rows, columns = ((kernel - 1) // 2 for kernel in layer.kernel_size)
    else:
        sides = zip(call.inputs[0].shape[1:3], layer.kernel_size, layer.strides, strict=True)
        rows, columns = (
            max((math.ceil((side or 0) / stride) - 1) * stride + kernel - (side or 0), 0) // 2  # `_is_plain`: no None
            for side, kernel, stride in sides
        )
    return rows, columns


def _fits(branch: _Branch, main: _Branch) -> bool:
    """Whether the branch's kernel is a part of a kernel of `main`'s size that is read at the same places."""
    if branch.source != main.source or main.conv is None:
        return False
    layer = main.conv.layer
    if branch.conv is None:
        fits = layer.strides == (1, 1) and layer.filters == main.conv.inputs[0].shape[-1]
    else:
        fits = (branch.conv.layer.strides, branch.conv.layer.groups) == (layer.strides, layer.groups)
    return fits and all(
        0 <= start <= outer - inner
        for start, outer, inner in zip(_start(branch, main), main.kernel_size, branch.kernel_size, strict=True)
    )


def _start(branch: _Branch, main: _Branch) -> tuple[int, int]:
    """The row and column of `main`'s kernel where the branch's begins."""
    return main.before[0] - branch.before[0], main.before[1] - branch.before[1]


def _fused_weights(block: _Block, main: layers.Conv2D) -> list[np.ndarray]:
    shape = main.kernel.shape
    kernel, bias = np.zeros(shape, np.float64), np.zeros(shape[-1], np.float64)
    for branch in block.branches:
        own, shift = _identity(shape), np.zeros(())
        if branch.conv is not None:
            layer = branch.conv.layer
            own = np.asarray(layer.kernel, np.float64)
            shift = np.asarray(layer.bias if layer.use_bias else 0.0, np.float64)
        if branch.norm is not None:
            scale, offset = scale_and_shift(branch.norm.layer)
            own, shift = own * scale, shift * scale + offset
        (top, left), (height, width) = _start(branch, block.main), own.shape[:2]
        kernel[top : top + height, left : left + width] += own
        bias += shift
    return [kernel, bias]


def _identity(shape: tuple[int, ...]) -> np.ndarray:
    """The 1x1 kernel that gives its input back: channel i reads the i-th of its group."""
    inside, channels = shape[2:]
    kernel = np.zeros((1, 1, inside, channels))
    kernel[0, 0, np.arange(channels) % inside, np.arange(channels)] = 1
    return kernel
