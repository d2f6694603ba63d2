"""Which channels of a graph belong together: every channel gets a label, and the calls are run on the labels.

A tensor's channels lie along one of its axes, so that its labels are one row. Calls are of four kinds:

- A kernel over the channels makes new labels, and its weights remember which labels their axes have.
- What adds, multiplies or normalizes unites labels: residual streams, squeeze-and-excitation, depthwise convolutions.
- What moves values (reshaping, shuffling, slicing, concatenating) is called on the labels themselves: few layers need a
  rule. Where it spreads the channels over several axes, such as (C) over (g, C / g), the labels along all but one are
  united, so that each of the g rows loses as many.
- Everything else freezes the labels that it reads, with a reason. So do the model's inputs and outputs.

United labels are removed together or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keraslight.graph import Call, Graph, Node, Tensor
from keraslight.graph.kinds import ELSEWHERE, MIXING, UNKNOWN, Kind, affine, function_name, kind, operation_name

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Channels:
    """The labels of a tensor.

    Attributes:
        shape: Its sides, with 1 for the batch and for open ones.
        axis: The axis along which the channels lie.
        row: The labels along it, int64.
        known: Whether the axis is known. It is a guess for the model's inputs, what unknown layers make and what
            follows from these alone: all their labels are frozen.
    """

    shape: Shape
    axis: int
    row: np.ndarray
    known: bool = True

    @property
    def full(self) -> np.ndarray:
        """The label of every value."""
        return np.broadcast_to(along(self.row, self.axis, len(self.shape)), self.shape)


@dataclasses.dataclass(frozen=True)
class Bound:
    """One axis of a weight whose entries belong to channels.

    Attributes:
        weight: Place of the weight in the layer's.
        axis: Its axis.
        row: The labels along it.
    """

    weight: int
    axis: int
    row: np.ndarray


def along(row: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A row as an array of `rank` dimensions that extends along `axis` alone."""
    return row.reshape([-1 if place == axis else 1 for place in range(rank)])


def sides(tensor: Tensor) -> Shape:
    """The shape of a tensor, with 1 for open sides and the batch."""
    return (1, *(side or 1 for side in tensor.shape[1:])) if tensor.shape else ()


def filled(call: Call, values: dict[Tensor, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with values in place of tensors."""

    def fill(leaf: Any) -> Any:
        return values[leaf] if isinstance(leaf, Tensor) else leaf

    return keras.tree.map_structure(fill, (call.args, call.kwargs))


def moved(call: Call, layer: Any, values: dict[Tensor, np.ndarray]) -> list[np.ndarray]:
    """What a layer that moves values makes of the labels of a call's inputs."""
    args, kwargs = filled(call, values)
    return [np.asarray(each) for each in keras.tree.flatten(layer(*args, **kwargs))]


def positions(layer: Any, rank: int) -> tuple[int, ...]:
    """The axes that a layer's `axis` names, counted from 0: all for None, the last one without such an attribute."""
    axis = getattr(layer, "axis", -1)
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return tuple(place % rank for place in axes)


def describe(call: Call) -> str:
    """A call in the text of a reason."""
    return f"{call.path!r} ({operation_name(call.layer)})"


class Labels:
    """The labels of a graph's tensors and weights.

    Attributes:
        graph: The graph.
        values: Tensor -> its labels.
        made: Layer with a kernel -> the labels of its output channels, and where its kernel has them.
        layers: Node -> its layer.
        roots: Label -> the smallest one of those that it is united with.
        reasons: Root of a frozen label -> why none of its channels can be removed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[Tensor, Channels] = {}
        self.made: dict[Node, Bound] = {}
        self.layers: dict[Node, Any] = {call.node: call.layer for call in graph.calls}
        self._bound: dict[Node, dict[tuple[int | str, int], np.ndarray]] = {}
        self._count = 0
        self._pairs: list[np.ndarray] = []
        self._frozen: list[tuple[np.ndarray, str]] = []
        self._walk()
        self.roots = _components(self._count, self._pairs)
        self.reasons: dict[int, str] = {}
        for row, reason in self._frozen:
            for root in np.unique(self.roots[row]).tolist():
                self.reasons.setdefault(root, reason)

    def bound(self, node: Node) -> list[Bound]:
        """The axes of a layer's weights whose entries belong to channels."""
        return [
            Bound(weight, axis, row)
            for (weight, axis), row in self._bound.get(node, {}).items()
            if isinstance(weight, int)
        ]

    def grouped(self, node: Node) -> np.ndarray | None:
        """The input channels of a layer whose `groups` is their number or divides it, as far as it must follow."""
        return self._bound.get(node, {}).get(("groups", 0))

    def _walk(self) -> None:
        for call in self.graph.input_calls:
            tensor = call.outputs[0]
            self.values[tensor] = self._opaque(tensor, f"they are the model's input {call.name!r}")
        for call in self.graph.calls:
            read = [self.values[tensor] for tensor in call.inputs]
            made = self._call(call, read)
            if not any(x.known for x in read) and call.node not in self.made:
                made = [dataclasses.replace(x, known=False) for x in made]
            self.values.update(zip(call.outputs, made, strict=True))
        ends = keras.tree.flatten(self.graph.outputs)  # first, since it's the reason that says most
        self._frozen[:0] = [(self.values[tensor].row, "they are the model's output") for tensor in ends]

    def _new(self, count: int) -> np.ndarray:
        self._count += count
        return np.arange(self._count - count, self._count)

    def _unite(self, first: np.ndarray, second: np.ndarray) -> None:
        self._pairs.append(np.stack(np.broadcast_arrays(first, second), -1).reshape(-1, 2))

    def _freeze(self, row: np.ndarray, reason: str) -> None:
        self._frozen.append((row.reshape(-1), reason))

    def _bind(self, node: Node, weight: int | str, axis: int, row: np.ndarray) -> None:
        """Gives an axis of a weight its labels. A shared layer's are united; a text stands for a configuration."""
        rows = self._bound.setdefault(node, {})
        if (known := rows.setdefault((weight, axis), row)) is not row:
            if len(known) == len(row):
                self._unite(known, row)
            else:
                for each in (known, row):
                    self._freeze(each, f"{node.name!r} is called on tensors of different shapes")

    def _opaque(self, tensor: Tensor, reason: str) -> Channels:
        """Channels of which nothing is known, and none can be removed."""
        shape = sides(tensor)
        axis = max(len(shape) - 1, 0)
        row = self._new(shape[axis] if shape else 1)
        self._freeze(row, reason)
        return Channels(shape or (1,), axis, row, known=False)

    def _unknown(self, call: Call, inputs: Sequence[Channels], what: str) -> list[Channels]:
        """Freezes all that a call reads, because of what it does."""
        reason = f"{describe(call)} {what}"
        for each in inputs:
            self._freeze(each.row, reason)
        return [self._opaque(tensor, reason) for tensor in call.outputs]

    def _call(self, call: Call, inputs: list[Channels]) -> list[Channels]:
        layer = call.layer
        row = kind(layer) if _is_plain(layer) and call.form is None and inputs else UNKNOWN
        if row.kernel is not None:
            return self._kernel(call, inputs[0], row.kernel)
        if row.flow in ("each", "norm", "along"):
            return self._each(call, inputs[0], row)
        if row.flow == "window":
            return self._window(call, inputs)
        if row.flow == "reduce":
            return self._reduce(call, inputs)
        if row.flow == "merge":
            return self._merge(call, inputs)
        if row.flow == "move":
            return self._move(call, inputs)
        if row.multiplies and not getattr(layer, "weights", ()):
            return self._unknown(call, inputs, "multiplies them with each other, as attention does")
        return self._unknown(call, inputs, "uses them in a way that is not known")

    def _kernel(self, call: Call, x: Channels, layout: str) -> list[Channels]:
        layer, node, rank = call.layer, call.node, len(x.shape)
        (tensor,) = call.outputs
        shape = sides(tensor)
        last = 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1
        kernels = 2 if layout == "separable" else 1
        if len(layer.weights) != kernels + bool(layer.use_bias):
            return self._unknown(call, [x], "has weights that are not its own, such as scales of a quantized kernel")
        if x.axis != last and not x.known:
            x = Channels(x.shape, last, self._new(x.shape[last]))
            self._freeze(x.row, f"they are what {describe(call)} reads")
        if x.axis != last:
            if layout != "dense":
                return self._unknown(call, [x], "mixes them along another axis than its channels'")
            for axis in (0, 1):  # a matrix for every channel: it stays as it is
                whole = self._new(layer.kernel.shape[axis])
                self._freeze(whole, f"{describe(call)} mixes another axis than the channels'")
                self._bind(node, 0, axis, whole)
            return [Channels(shape, x.axis, x.row)]
        row, size = x.row, len(layer.kernel.shape if kernels == 1 else layer.pointwise_kernel.shape)
        if layout in ("depthwise", "separable"):
            self._bind(node, 0, len(layer.weights[0].shape) - 2, row)
            row = np.repeat(row, layer.depth_multiplier)
        if layout == "depthwise":
            made = row
        else:
            made = self.made[node].row if node in self.made else self._new(shape[last])
            inner, outer = (size - 1, size - 2) if layout == "transposed" else (size - 2, size - 1)
            groups = getattr(layer, "groups", 1)
            if groups > 1 and groups == len(row):  # a depthwise convolution
                self._unite(np.repeat(row, len(made) // groups), made)
                self._bind(node, "groups", 0, row)
            elif groups > 1:  # each group loses as many channels
                for each in (row, made):
                    columns = each.reshape(groups, -1)
                    self._unite(columns[:1], columns)
            if groups == 1:
                self._bind(node, kernels - 1, inner, row)
            elif groups != len(row):
                self._bind(node, 0, inner, row[: len(row) // groups])
            self._bind(node, kernels - 1, outer, made)
            self.made[node] = Bound(kernels - 1, outer, made)
        if layer.use_bias:
            self._bind(node, len(layer.weights) - 1, 0, made)
        self._check_activation(call, made, mixed=True)
        return [Channels(shape, last, made)]

    def _check_activation(self, call: Call, row: np.ndarray, *, mixed: bool) -> None:
        """Freezes the channels of an activation that may mix them; those of Keras only do so along the last axis."""
        activation = getattr(call.layer, "activation", None)
        name = "linear" if activation is None else function_name(activation)
        if name is None:
            self._freeze(row, f"{describe(call)} has an activation that is not known")
        elif name in MIXING and (mixed or name == "glu"):
            self._freeze(row, f"{describe(call)} has the activation {name!r}, which mixes channels")

    def _each(self, call: Call, x: Channels, row: Kind) -> list[Channels]:
        layer, node, rank = call.layer, call.node, len(x.shape)
        axes = positions(layer, rank)
        if row.flow == "along" and x.axis in axes:
            return self._unknown(call, [x], "mixes them")
        if row.flow == "norm" and row.field == "image" and x.axis not in axes:
            return self._unknown(call, [x], "takes statistics along another axis than its own")
        known = affine(layer)
        if known is not None and not layer.weights and max(map(np.size, known)) > 1:
            return self._unknown(call, [x], "has constants for each of them")
        self._check_activation(call, x.row, mixed=x.axis == rank - 1)
        if isinstance(layer, keras.layers.GroupNormalization) and 1 < layer.groups < len(x.row):
            columns = x.row.reshape(layer.groups, -1)
            self._unite(columns[:1], columns)
        for place, weight in enumerate(getattr(layer, "weights", ())):
            size = len(weight.shape)
            if size == rank - 1:  # one for each value of an image, as PReLU's
                at = x.axis - 1 if size > 1 or x.axis in axes else None
            elif size == len(axes):
                at = axes.index(x.axis) if x.axis in axes else None
            else:
                return self._unknown(call, [x], f"has a weight {weight.name!r} that is not known")
            if at is not None and weight.shape[at] == len(x.row) > 1:
                self._bind(node, place, at, x.row)
        if isinstance(layer, keras.layers.GroupNormalization):
            self._bind(node, "groups", 0, x.row)
        return [x]

    def _window(self, call: Call, inputs: Sequence[Channels]) -> list[Channels]:
        x, layer = inputs[0], call.layer  # other inputs only give a size
        data_format = (layer.data_format or keras.config.image_data_format()) if hasattr(layer, "data_format") else None
        made = []
        for tensor in call.outputs:
            shape = sides(tensor)
            first = data_format == "channels_first"
            last = x.axis if data_format is None else 1 if first else len(x.shape) - 1
            axis = last if first or len(shape) == len(x.shape) else len(shape) - 1
            if x.axis != last or axis >= len(shape) or shape[axis] != len(x.row):
                return self._unknown(call, inputs, "works along the axis of the channels")
            made.append(Channels(shape, axis, x.row))
        return made

    def _reduce(self, call: Call, inputs: Sequence[Channels]) -> list[Channels]:
        (x,) = inputs
        axes = positions(call.layer, len(x.shape))
        if x.axis in axes or 0 in axes:
            return self._unknown(call, inputs, "mixes them")
        lost = 0 if call.layer.keepdims else sum(axis < x.axis for axis in axes)
        return [Channels(sides(call.outputs[0]), x.axis - lost, x.row)]

    def _merge(self, call: Call, inputs: Sequence[Channels]) -> list[Channels]:
        shape = sides(call.outputs[0])
        rank = len(shape)
        wide = [x for x in inputs if len(x.row) > 1] or list(inputs)
        axes = {x.axis + rank - len(x.shape) for x in wide}
        axis = min(axes)
        if len(axes) > 1 or any(len(x.row) != shape[axis] for x in wide) or axis == 0:
            return self._unknown(call, inputs, "combines tensors whose channels lie along different axes")
        for constant in _constants(call):
            if np.ndim(constant) >= rank - axis and np.shape(constant)[axis - rank] > 1:
                return self._unknown(call, inputs, "has constants for each of them")
        for other in wide[1:]:
            self._unite(wide[0].row, other.row)
        return [Channels(shape, axis, wide[0].row)]

    def _move(self, call: Call, inputs: Sequence[Channels]) -> list[Channels]:
        values = {tensor: x.full for tensor, x in zip(call.inputs, inputs, strict=True)}
        try:
            results = moved(call, call.layer, values)
        except Exception:  # whatever the backend raises for a shape that an open side or a batch of 1 doesn't fit
            return self._unknown(call, inputs, "moves them in a way that can't be followed")
        fits = all(
            each.ndim == len(tensor.shape)
            and each.shape[0] == 1
            and all(side in (None, known) for side, known in zip(tensor.shape[1:], each.shape[1:], strict=True))
            for tensor, each in zip(call.outputs, results, strict=True)
        )
        if not fits:
            return self._unknown(call, inputs, "moves them to another image of the batch")
        for place, x in enumerate(inputs):
            self._bind(call.node, f"input {place}", 0, x.row)
        made = []
        for labels in results:
            axes = [axis for axis in range(labels.ndim) if (labels != labels.take([0], axis)).any()]
            own = {x.axis for x in inputs if x.axis in axes and len(x.shape) == labels.ndim and len(inputs) > 1}
            axis = min(own) if own else max(axes, default=labels.ndim - 1)
            row = np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])[0]
            if len(axes) > 1:
                differing = labels[tuple(slice(None) if axis in axes else slice(1) for axis in range(labels.ndim))]
                self._unite(differing, along(row, axis, labels.ndim))
            made.append(Channels(labels.shape, axis, row))
        if (step := slice_step(call, inputs[0])) != 1:
            row = inputs[0].row
            if step is None or len(row) % step:
                return self._unknown(call, inputs, "takes channels in steps that don't fit their number")
            columns = row.reshape(-1, step)
            self._unite(columns[:, :1], columns)
        return made


def slice_step(call: Call, x: Channels) -> int | None:
    """The step of a slice over all channels, 1 for all other moves; None for any other stepped slice."""
    part = channel_key(call, x)
    if not isinstance(part, slice):
        return 1
    size = len(x.row)
    start, stop, step = part.indices(size)
    return 1 if step == 1 else step if step > 1 and start < step and stop == size else None


def channel_key(call: Call, x: Channels) -> slice | int | None:
    """What a slice takes of the channels; None for another kind of move."""
    layer = call.layer
    take = kind(layer).channels
    if take is not None:
        return take(layer) if x.axis == len(x.shape) - 1 else None
    if type(layer).__name__ != "GetItem" or isinstance(layer, keras.layers.Layer):
        return None
    key, place = getitem_key(call), channel_place(call, x)
    part = None if place is None else key[place]
    return part if part is None or isinstance(part, slice) else int(part)


def channel_place(call: Call, x: Channels) -> int | None:
    """Where in its key a bare slice says what it takes of the channels; None where it takes all."""
    key, axis = getitem_key(call), 0
    rest = len(x.shape) - sum(each is not None and each is not Ellipsis for each in key)
    for place, each in enumerate(key):
        if each is Ellipsis:
            axis += rest
        elif each is not None:
            if axis == x.axis:
                return place
            axis += 1
    return None


def getitem_key(call: Call) -> tuple[Any, ...]:
    """The key of a bare slice."""
    key = call.kwargs["key"] if "key" in call.kwargs else call.args[1]
    return tuple(key) if isinstance(key, tuple | list) else (key,)


def _constants(call: Call) -> list[Any]:
    """The arguments of a call without tensors in them."""
    arguments = (*call.args, *call.kwargs.values())
    found: list[Any] = []
    for argument in arguments:
        leaves = keras.tree.flatten(argument)
        if any(isinstance(leaf, Tensor) for leaf in leaves):
            found.extend(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        else:
            found.append(argument)
    return [each for each in found if each is not None and not isinstance(each, bool | str)]


_PLAIN = frozenset(
    (
        "__init__",
        "__new__",
        "get_config",
        "from_config",
        "compute_output_shape",
        "get_build_config",
        "build_from_config",
    )
)


def _is_plain(layer: Any) -> bool:
    """Whether a layer computes what its row says: a class of a user's own may override more than `call`."""
    for base in type(layer).__mro__:
        if base.__module__.partition(".")[0] in ("keras", "keraslight"):
            return True
        if (base.__module__, base.__name__) in ELSEWHERE:
            return True
        if any(
            callable(value) or isinstance(value, property)
            for name, value in vars(base).items()
            if name not in _PLAIN and not name.startswith("__")
        ):
            return False
    return True


def _components(count: int, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Label -> the smallest label that pairs connect it with."""
    parent = np.arange(count)
    edges = np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.int64)
    while True:
        first, second = parent[edges[:, 0]], parent[edges[:, 1]]
        if np.array_equal(first, second):
            return parent
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
