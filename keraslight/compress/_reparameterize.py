"""Fuses parallel convolutions whose results are added into one convolution."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keraslight.compress import _graph
from keraslight.compress._affine import scale_and_shift
from keraslight.errors import CompressionError


class _Branch(NamedTuple):
    """A linear way from the block's input to an addition.

    Args:
        conv: The convolution; None for the input itself.
        norm: The batch norm after it; None for none.
        before: Zeros that it sees above and left of its input, (rows, columns).
        source: The tensor that the branch starts from.
    """

    conv: layers.Conv2D | None
    norm: layers.BatchNormalization | None
    before: tuple[int, int]
    source: _graph.Tensor

    @property
    def kernel_size(self) -> tuple[int, int]:
        return (1, 1) if self.conv is None else self.conv.kernel_size


class _Block(NamedTuple):
    """Branches that one convolution can replace, of which `main` has the kernel that holds all others."""

    main: _Branch
    branches: list[_Branch]
    additions: list[_graph.Call]


def reparameterize(model: keras.Model) -> keras.Model:
    """Fuses every block of parallel branches, as RepVGG trains them, into one convolution with bias.

    A block is a sum of two or more branches of the same tensor: convolutions, each with or without a batch norm, and
    the tensor itself, with or without one. At inference all of them are linear, so their kernels, each scaled by
    its batch norm (see `fuse`), can be added where they meet: a 1x1 kernel lies in the centre of a 3x3 one if that is
    padded by one pixel on both sides, the tensor itself is a 1x1 kernel with ones on the diagonal of every group. The
    place follows from the padding of both, so it is also right for TensorFlow's "same" at stride 2 (top left on even
    sides). Additions whose branches can't be fused so stay as they are.

    Source: Ding et al., "RepVGG", https://arxiv.org/abs/2101.03697, section 3.3.

    Args:
        model: A functional or sequential model in its training form. It is not changed.

    Returns:
        A new functional model for inference with the same inputs and outputs. The convolution that replaces a block has
        the name of the block's largest one.

    Raises:
        CompressionError: the model is subclassed, has no such block, or a layer's configuration does not make it
            again.
    """
    graph = _graph.read(model)
    blocks = _blocks(graph)
    if not blocks:
        raise CompressionError(
            "`model` must have a block of parallel convolutions that are added, as RepVGG's training form. "
            f"Received: {model.name!r}, which has none."
        )
    fused = {id(block.main.conv): block for block in blocks}
    block_of = {id(call.layer): block for block in blocks for call in block.additions}
    dropped = {
        id(layer) for block in blocks for branch in block.branches for layer in (branch.conv, branch.norm) if layer
    }
    results: dict[int, object] = {}
    copies: dict[str, keras.Layer] = {}

    def call_layer(call, args, kwargs):
        if id(call.layer) in block_of:
            return results[id(block_of[id(call.layer)].main.conv)]
        if id(call.layer) in dropped and id(call.layer) not in fused:
            return args[0]  # read by the block's other calls only
        if call.name not in copies:
            config = {**call.layer.get_config(), "name": call.name}
            if id(call.layer) in fused:
                config["use_bias"] = True
            copies[call.name] = type(call.layer).from_config(config)
        result = copies[call.name](*args, **kwargs)
        if id(call.layer) in fused:
            results[id(call.layer)] = result
        return result

    deployed = graph.model(model.name, call_layer)
    for name, layer in graph.layers().items():
        if id(layer) in fused:
            copies[name].set_weights(_fused_weights(fused[id(layer)]))
        elif name in copies and getattr(layer, "weights", ()):  # a bare operation has none
            _graph.fill_weights(copies[name], name, layer.get_weights())
    return deployed


def has_blocks(model: keras.Model) -> bool:
    """Whether `reparameterize` would find a block of parallel convolutions.

    Raises:
        CompressionError: the model is subclassed.
    """
    return bool(_blocks(_graph.read(model)))


def _blocks(graph: _graph.Graph) -> list[_Block]:
    """Every sum of branches that one convolution can replace."""
    consumers = graph.consumers()
    makers = {tensor: call for call in graph.calls for tensor in call.outputs}
    uses: dict[int, int] = {}
    for call in graph.calls:
        uses[id(call.layer)] = uses.get(id(call.layer), 0) + 1

    def sole(tensor, kind):
        """The call that made `tensor`, if it is of this kind, not shared, and only one other call reads it."""
        call = makers.get(tensor)
        found = call is not None and isinstance(call.layer, kind) and uses[id(call.layer)] == 1
        return call if found and len(consumers[tensor]) == 1 else None

    def addends(call):
        """The tensors that a tree of additions sums up, and the additions."""
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

    def branch(tensor):
        call = sole(tensor, layers.BatchNormalization)
        norm = call.layer if call and call.layer.axis in (-1, call.layer.output.ndim - 1) else None
        if norm is not None:
            tensor = call.inputs[0]
        call = sole(tensor, layers.Conv2D)
        if call is None or not _is_plain(call.layer):
            return _Branch(None, norm, (0, 0), tensor)
        tensor, padding = call.inputs[0], None
        pad = makers.get(tensor)
        if pad is not None and isinstance(pad.layer, layers.ZeroPadding2D) and call.layer.padding == "valid":
            tensor, padding = pad.inputs[0], pad.layer
        return _Branch(call.layer, norm, _zeros_before(call.layer, padding), tensor)

    blocks, taken = [], set()
    for call in reversed(graph.calls):  # from the outside of nested additions, which may make one block, inwards
        if not isinstance(call.layer, layers.Add) or uses[id(call.layer)] > 1 or call.name in taken:
            continue
        tensors, additions = addends(call)
        branches = [branch(tensor) for tensor in tensors]
        main = max(branches, key=lambda b: 0 if b.conv is None else np.prod(b.conv.kernel_size))
        if main.conv is not None and all(_fits(b, main) for b in branches):
            blocks.append(_Block(main, branches, additions))
            taken |= {addition.name for addition in additions}
    return blocks


def _is_plain(layer: layers.Conv2D) -> bool:
    return (
        layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and layer.dilation_rate == (1, 1)
        and (layer.padding == "valid" or layer.strides == (1, 1) or None not in layer.input.shape[1:3])
    )


def _zeros_before(layer: layers.Conv2D, padding: layers.ZeroPadding2D | None) -> tuple[int, int]:
    """The zeros above and left of a convolution's input."""
    if padding is not None:
        return padding.padding[0][0], padding.padding[1][0]
    if layer.padding == "valid":
        return 0, 0
    if layer.strides == (1, 1):
        return tuple((kernel - 1) // 2 for kernel in layer.kernel_size)
    sides = zip(layer.input.shape[1:3], layer.kernel_size, layer.strides, strict=True)
    return tuple(max((-(-side // stride) - 1) * stride + kernel - side, 0) // 2 for side, kernel, stride in sides)


def _fits(branch: _Branch, main: _Branch) -> bool:
    """Whether the branch's kernel is a part of a kernel of `main`'s size that is read at the same places."""
    if branch.source != main.source:
        return False
    if branch.conv is None:
        fits = main.conv.strides == (1, 1) and main.conv.filters == main.conv.input.shape[-1]
    else:
        fits = (branch.conv.strides, branch.conv.groups) == (main.conv.strides, main.conv.groups)
    return fits and all(
        0 <= start <= outer - inner
        for start, outer, inner in zip(_start(branch, main), main.kernel_size, branch.kernel_size, strict=True)
    )


def _start(branch: _Branch, main: _Branch) -> tuple[int, int]:
    """The row and column of `main`'s kernel where the branch's begins."""
    return main.before[0] - branch.before[0], main.before[1] - branch.before[1]


def _fused_weights(block: _Block) -> list[np.ndarray]:
    shape = block.main.conv.kernel.shape
    kernel, bias = np.zeros(shape, np.float64), np.zeros(shape[-1], np.float64)
    for branch in block.branches:
        own, shift = _identity(shape), 0.0
        if branch.conv is not None:
            own = np.asarray(branch.conv.kernel, np.float64)
            shift = np.asarray(branch.conv.bias, np.float64) if branch.conv.use_bias else 0.0
        if branch.norm is not None:
            scale, offset = scale_and_shift(branch.norm)
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
