"""Forms in which XNNPACK runs a network with many zero weights by sparse kernels, which it does on ARM processors.

Its sparse kernels accept few operators (`keraslight.export.litert` checks a file against the rules); what a network is
made of often is none of them, but can be computed by them:

- **"same" padding** of a strided convolution on a map of even sides puts one zero more at the end, where the kernels
  want as many on both sides. The network that is mirrored along both axes, with mirrored kernels on mirrored images,
  has it at the beginning, and doesn't read a further one at the end. The mean over the map, at the end, is the
  same.
- **Concatenations** are not computed: a tensor is a tuple of parts, which go through the network side by side. A 1x1
  convolution reads the parts as a sum of one convolution each, and writes as many as those that read it need.
- **Grey images** get two channels of zeros: a sparse part begins with a convolution of three.
- **Means** over the map keep their axes, and lose them behind it: a gate stays in 4-D, and the dense classifier, whose
  zeros would count, isn't part of what runs sparsely.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keraslight.graph import Call, Graph, Tensor, infer
from keraslight.graph.kinds import base_kind, exact_kind, kind

_MAPS = (layers.Add, layers.Multiply)  # of maps with the same channels
_SIDES = (3, 5)  # of depthwise kernels


class SparseForms:
    """Runs a graph's calls in these forms: give it to `keraslight.graph.run` as `call_layer`.

    Attributes:
        mirrored: Whether the images must be mirrored along both axes first.
    """

    def __init__(self, graph: Graph, mirrored: bool) -> None:
        self.mirrored = mirrored
        self._results = set(keras.tree.flatten(graph.outputs))
        self._widths = _widths(graph)
        self._rows = {call.name: kind(call.layer) for call in graph.calls}
        self._per_channel = {call.name for call in graph.calls if _is_per_channel(call.layer)}
        # Read now: symbolic tensors can't be.
        self._affines = {call.name: found for call in graph.calls if (found := _affine(call)) is not None}
        self._unpadded: dict[Tensor, Any] = {}  # what a padding makes -> what it reads

    @classmethod
    def of(cls, graph: Graph) -> SparseForms | None:
        """The forms for a graph, or None if sparse kernels can't run it in any."""
        calls = [call for call in graph.calls if kind(call.layer).convolution or kind(call.layer).pooling]
        spatial = [call for call in calls if type(call.layer) is not layers.GlobalAveragePooling2D]
        if not all(_fits(call) for call in spatial) or sum(_is_stem(call) for call in spatial) != 1:
            return None
        makers = graph.makers()
        for mirrored in (False, True):
            if all(_is_symmetric(call, makers, mirrored) for call in spatial):
                return cls(graph, mirrored)
        return None

    def __call__(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call computes: a tensor, `_Parts` of one, or a `_Mean`."""
        with keras.name_scope(call.name):
            made = self._made(call, call.layer, keras.tree.flatten((args, kwargs)))
        if made is None:
            args, kwargs = keras.tree.map_structure(_joined, (args, kwargs))
            made = infer(call, args, kwargs)
        single = type(made) is _Parts and len(made.parts) == 1
        return _joined(made) if single or self._results.intersection(call.outputs) else made

    def _made(self, call: Call, layer: Any, inputs: Sequence[Any]) -> Any:
        if call.form is not None or len(call.outputs) != 1:
            return None
        widths = self._widths[call.outputs[0]]
        if type(layer) is layers.GlobalAveragePooling2D:
            made = [ops.mean(part, (1, 2), keepdims=True) for part in _parts(inputs[0])]
            return _Parts(made) if layer.keepdims else _Mean(made)
        if type(layer) is layers.Reshape and isinstance(inputs[0], _Mean) and len(call.outputs[0].shape) == 4:
            return _Parts(inputs[0].parts) if call.outputs[0].shape[1:3] == (1, 1) else None
        if type(layer) in (layers.Conv2D, layers.DepthwiseConv2D):
            images = self._unpadded.get(call.inputs[0], inputs[0])
            return self._convolution(layer, _parts(images), widths)
        if type(layer) is layers.ZeroPadding2D:
            self._unpadded[call.outputs[0]] = inputs[0]
        if len(widths) == 1 and not any(isinstance(value, _Mean) for value in inputs):
            return None
        if type(layer) is layers.Concatenate:
            return _Parts([part for value in inputs for part in _parts(value)])
        if type(layer) in _MAPS and not any(isinstance(value, _Mean) for value in inputs):
            combine = operator.add if type(layer) is layers.Add else operator.mul
            rows = zip(*map(_parts, inputs), strict=True)
            return _Parts([functools.reduce(combine, row) for row in rows])
        if len(inputs) == 1 and call.name in self._per_channel:
            made = _parts(inputs[0])
            if call.name in self._affines:
                scales, shifts = (_pieces(values, widths) for values in self._affines[call.name])
                made = [part * scale + shift for part, scale, shift in zip(made, scales, shifts, strict=True)]
            elif not self._rows[call.name].training_only:
                made = [layer(part) for part in made]
            return _Mean(made) if isinstance(inputs[0], _Mean) else _Parts(made)
        return None

    def _convolution(self, layer: Any, parts: Sequence[Any], widths: Sequence[int]) -> _Parts:
        kernel = layer.kernel[::-1, ::-1] if self.mirrored else layer.kernel
        side, strides = kernel.shape[0], layer.strides
        missing = 3 - kernel.shape[2]
        if side > 1 and type(layer) is layers.Conv2D and missing:
            kernel = ops.pad(kernel, [(0, 0), (0, 0), (0, missing), (0, 0)])
            parts = [ops.pad(parts[0], [(0, 0), (0, 0), (0, 0), (0, missing)])]
        padding = "same"
        if max(strides) > 1:
            padding, zeros = "valid", (side // 2, side // 2)
            parts = [ops.pad(part, [(0, 0), zeros, zeros, (0, 0)]) for part in parts]
        starts = list(itertools.accumulate(widths, initial=0))
        made: list[Any] = []
        for start, stop in itertools.pairwise(starts):
            if type(layer) is layers.DepthwiseConv2D:
                terms = [ops.depthwise_conv(parts[len(made)], kernel[:, :, start:stop], strides, padding)]
            else:
                ends = list(itertools.accumulate((part.shape[-1] for part in parts), initial=0))
                pieces = [kernel[:, :, first:last, start:stop] for first, last in itertools.pairwise(ends)]
                terms = [ops.conv(part, piece, strides, padding) for part, piece in zip(parts, pieces, strict=True)]
            if layer.use_bias:
                terms[0] = terms[0] + layer.bias[start:stop]  # a part of that convolution; behind the sum it is not
            made.append(functools.reduce(operator.add, terms))
        activation = layer.activation or keras.activations.linear
        return _Parts([activation(part) for part in made])


class _Parts:
    """A map (B, H, W, C) as tensors of some of its channels each, in order."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)

    def joined(self) -> Any:
        return self.parts[0] if len(self.parts) == 1 else ops.concatenate(self.parts, axis=-1)


class _Mean(_Parts):
    """A mean over a map that has no axes for it, (B, C), as parts that have them, (B, 1, 1, C)."""

    def joined(self) -> Any:
        whole = super().joined()
        return ops.reshape(whole, (-1, whole.shape[-1]))


def _parts(value: Any) -> list[Any]:
    return value.parts if isinstance(value, _Parts) else [value]


def _joined(value: Any) -> Any:
    return value.joined() if isinstance(value, _Parts) else value


def _pieces(values: Any, widths: Sequence[int]) -> list[Any]:
    """The last axis, cut into parts of these widths; what has one value for all, as often."""
    if np.ndim(values) == 0:
        return [values] * len(widths)
    return np.split(values, list(itertools.accumulate(widths))[:-1], axis=-1)


def _affine(call: Call) -> tuple[Any, Any] | None:
    """Scale and shift per channel, float32, of a call that only scales and shifts."""
    affine = exact_kind(call.node.kind).affine
    found = None if affine is None else affine(call.layer)
    return None if found is None else (np.asarray(found[0], np.float32), np.asarray(found[1], np.float32))


def _is_per_channel(layer: Any) -> bool:
    row = kind(layer)
    return row.elementwise or row.batch_norm or row.training_only or type(layer) is layers.ZeroPadding2D


def _is_stem(call: Call) -> bool:
    layer = call.layer
    return type(layer) is layers.Conv2D and layer.kernel_size == (3, 3) and call.inputs[0].shape[-1] in (1, 2, 3)


def _fits(call: Call) -> bool:
    """Whether sparse kernels compute a convolution, apart from its padding."""
    layer = call.layer
    if type(layer) is layers.DepthwiseConv2D:
        side, *others = layer.kernel_size
        fits = others == [side] and side in _SIDES and layer.depth_multiplier == 1 and set(layer.strides) <= {1, 2}
    elif type(layer) is layers.Conv2D:
        pointwise = layer.kernel_size == (1, 1) and set(layer.strides) == {1}
        fits = layer.groups == 1 and (pointwise or (_is_stem(call) and set(layer.strides) == {2}))
    else:
        return False
    return fits and layer.data_format == "channels_last" and set(layer.dilation_rate) == {1}


def _is_symmetric(call: Call, makers: dict[Tensor, Call], mirrored: bool) -> bool:
    """Whether a convolution has `side // 2` zeros on every side, in the mirrored network or in the plain one."""
    layer, source = call.layer, call.inputs[0]
    before = makers.get(source)
    zeros = [(0, 0), (0, 0)]
    if before is not None and type(before.layer) is layers.ZeroPadding2D:
        if layer.padding != "valid":
            return False
        zeros, source = list(before.layer.padding), before.inputs[0]
    for axis, (side, stride) in enumerate(zip(layer.kernel_size, layer.strides, strict=True)):
        size, count = source.shape[1 + axis], call.outputs[0].shape[1 + axis]
        if size is None or count is None:
            if (layer.padding, stride) != ("same", 1) and zeros[axis] != (side // 2, side // 2):
                return False
            continue
        used = stride * (count - 1) + side - size  # zeros before the map and behind it that are read
        first = max(used, 0) // 2 if layer.padding == "same" else zeros[axis][0]
        first = used - first if mirrored else first
        if first != side // 2 or (size + 2 * (side // 2) - side) // stride + 1 != count:
            return False
    return True


def _widths(graph: Graph) -> dict[Tensor, list[int]]:
    """Tensor -> widths of its parts: as narrow as concatenations, and what their channels go through, make them."""
    cuts: dict[Tensor, set[int]] = {tensor: set() for call in graph.calls for tensor in call.outputs}
    cuts.update({tensor: set() for call in graph.input_calls for tensor in call.outputs})

    def share(tensors: Sequence[Tensor]) -> bool:
        every = set().union(*(cuts[tensor] for tensor in tensors))
        changed = any(cuts[tensor] != every for tensor in tensors)
        for tensor in tensors:
            cuts[tensor] = set(every)
        return changed

    def join(call: Call) -> bool:
        (output,) = call.outputs
        before, start = {tensor: set(cuts[tensor]) for tensor in (*call.inputs, output)}, 0
        for tensor in call.inputs:
            width = tensor.shape[-1] or 0
            inside = {cut - start for cut in cuts[output] if start < cut < start + width} | cuts[tensor]
            cuts[tensor] = inside
            cuts[output] |= {start + cut for cut in inside} | ({start} - {0})
            start += width
        return any(cuts[tensor] != found for tensor, found in before.items())

    changed = True
    while changed:
        changed = False
        for call in graph.calls:
            layer = call.layer
            if type(layer) is layers.Concatenate and layer.axis in (-1, len(call.outputs[0].shape) - 1):
                changed |= join(call)
            elif type(layer) in (*_MAPS, layers.DepthwiseConv2D, layers.GlobalAveragePooling2D) or (
                len(call.inputs) == 1 and len(call.outputs) == 1 and _is_per_channel(layer)
            ):
                tensors = [*call.inputs, *call.outputs]
                changed |= len({tensor.shape[-1] for tensor in tensors}) == 1 and share(tensors)
    return {
        tensor: [b - a for a, b in itertools.pairwise(sorted({0, tensor.shape[-1] or 0, *found}))]
        for tensor, found in cuts.items()
    }


def pointwise_zeros(graph: Graph) -> float:
    """Share of zeros among the weights of a graph's 1x1 convolutions, 0 to 1."""
    kernels = [
        np.asarray(call.layer.kernel)
        for call in graph.calls
        if base_kind(call.node.kind).kernel == "convolution" and tuple(call.layer.kernel_size) == (1, 1)
    ]
    return float(sum((kernel == 0).sum() for kernel in kernels) / max(sum(kernel.size for kernel in kernels), 1))
