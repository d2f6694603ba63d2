"""The shapes of a .tflite file's tensors for other numbers of channels, from the shapes that it has.

Only sides that change are computed: each operator's rule says which sides of its outputs and constants follow which
sides of its inputs, and by how much. What doesn't change keeps the converter's own shape.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keraslight.errors import InvalidArgumentError

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """What is known of a tensor.

    Attributes:
        shape: Its sides.
        dtype: Its dtype in TFLite's schema, such as `"FLOAT32"`.
        constant: Whether the file holds its values.
        values: Values of an integer constant that says what an operator does, such as axes; None for weights.
        scale, zero: Quantization; `scale` is None without one, and the mean if each channel has its own.
        axis: Axis of the channels that have scales of their own.
    """

    shape: Shape
    dtype: str
    constant: bool = False
    values: tuple[int, ...] | None = None
    scale: float | None = None
    zero: int = 0
    axis: int | None = None

    @property
    def text(self) -> str:
        """Dtype, shape and values; a star stands for weights."""
        text = f"{self.dtype.lower()}[{','.join(map(str, self.shape))}]"
        if self.values is not None:
            return f"{text}={','.join(map(str, self.values))}"
        return ("*" if self.constant else "") + text


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        kind: Name in TFLite's schema, such as `"CONV_2D"`.
        inputs, outputs: Tensors; -1 stands for a missing one.
        options: What it computes, by name.
        layers: Names of the layers that it was made of; empty if they are unknown.
        version: Version of the operator in the file.
        raw: The schema's own object.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]
    layers: tuple[str, ...]
    version: int
    raw: Any = dataclasses.field(compare=False, repr=False)


def rewidened(
    forms: Sequence[Form],
    operators: Sequence[Operator],
    inputs: Sequence[int],
    widths: Mapping[str, int],
    fused: Collection[str] = (),
) -> tuple[tuple[Form, ...], tuple[Operator, ...]]:
    """Forms and operators of the same network with other numbers of channels; see `OperatorGraph.with_widths`."""
    _check(operators, widths, fused)
    pass_ = _Pass(forms, {layer: int(width) for layer, width in widths.items()})
    for operator in operators:
        rule = _RULES.get(operator.kind)
        if rule is not None:
            rule(pass_, operator)
        elif any(pass_.changed(index) for index in operator.inputs):
            raise InvalidArgumentError(
                "Widths can't change before an operator whose shapes don't follow from its inputs'. "
                f"Received: {operator.kind} in {_where(operator)}."
            )
    return tuple(pass_.forms), tuple(operators)


def _check(operators: Sequence[Operator], widths: Mapping[str, int], fused: Collection[str]) -> None:
    known = {layer for operator in operators if operator.kind in _PRODUCERS for layer in operator.layers} | set(fused)
    if unknown := [layer for layer in widths if layer not in known]:
        raise InvalidArgumentError(
            "`widths` must name layers that make the channels of a convolution or a dense layer in the file. "
            f"Received: {', '.join(map(repr, unknown))}."
        )
    for layer, width in widths.items():
        if isinstance(width, bool) or not isinstance(width, numbers.Integral) or width < 1:
            raise InvalidArgumentError(f"A width must be an integer of at least 1. Received: {layer}={width!r}.")


def _where(operator: Operator) -> str:
    return ", ".join(map(repr, operator.layers)) or "a layer without a name"


class _Pass:
    """One pass over the operators: the forms so far, next to those of the file."""

    def __init__(self, forms: Sequence[Form], widths: Mapping[str, int]) -> None:
        self.old, self.forms, self.widths = forms, list(forms), widths

    def changed(self, index: int) -> bool:
        return index >= 0 and self.old[index].shape != self.forms[index].shape

    def shapes(self, index: int) -> tuple[Shape, Shape]:
        """The file's shape and the new one."""
        return self.old[index].shape, self.forms[index].shape

    def set(self, index: int, shape: Shape, values: Sequence[int] | None = None) -> None:
        form = self.forms[index]
        if shape != form.shape or values is not None:
            kept = form.values if values is None else tuple(values)
            self.forms[index] = dataclasses.replace(form, shape=shape, values=kept)

    def width(self, operator: Operator, old: int) -> int:
        """The output channels of a layer with a kernel.

        The file's tensors are named after all layers that an operator was made of, of which one has the kernel.
        """
        given = {self.widths[layer] for layer in operator.layers if layer in self.widths}
        if len(given) > 1:
            raise InvalidArgumentError(
                "Layers that became one operator must have the same width. "
                f"Received: {sorted(given)} for {_where(operator)}."
            )
        return given.pop() if given else old


def _last(shape: Shape, side: int) -> Shape:
    return (*shape[:-1], side)


def _scaled(operator: Operator, side: int, old: int, new: int) -> int:
    """A side that is a multiple or a part of one that changes."""
    if side * new % old:
        raise InvalidArgumentError(
            f"Channels that are divided must remain divisible: {side} of {old}. "
            f"Received: {new} channels at {operator.kind} in {_where(operator)}."
        )
    return side * new // old


def _convolution(p: _Pass, operator: Operator) -> None:
    source, kernel, *bias = operator.inputs
    (old, new), (out, *window, channels) = p.shapes(source), p.old[kernel].shape
    width = p.width(operator, out)
    groups = old[-1] // channels
    if new[-1] % groups or width % groups:
        raise InvalidArgumentError(
            f"Channels must be divisible by the {groups} groups of the convolution. "
            f"Received: {new[-1]} input and {width} output channels in {_where(operator)}."
        )
    p.set(kernel, (width, *window, new[-1] // groups))
    _bias(p, bias, width)
    p.set(operator.outputs[0], _last(p.old[operator.outputs[0]].shape, width))


def _depthwise(p: _Pass, operator: Operator) -> None:
    source, kernel, *bias = operator.inputs
    old, new = p.shapes(source)
    width = p.old[kernel].shape[-1] // old[-1] * new[-1]
    p.set(kernel, _last(p.old[kernel].shape, width))
    _bias(p, bias, width)
    p.set(operator.outputs[0], _last(p.old[operator.outputs[0]].shape, width))


def _transposed(p: _Pass, operator: Operator) -> None:
    shape, kernel, source, *bias = operator.inputs
    (out, *window, _), new = p.old[kernel].shape, p.forms[source].shape
    width = p.width(operator, out)
    p.set(kernel, (width, *window, new[-1]))
    _bias(p, bias, width)
    made = _last(p.old[operator.outputs[0]].shape, width)
    p.set(shape, p.old[shape].shape, made)
    p.set(operator.outputs[0], made)


def _dense(p: _Pass, operator: Operator) -> None:
    source, kernel, *bias = operator.inputs
    (old, new), (out, channels) = p.shapes(source), p.old[kernel].shape
    if not p.old[kernel].constant:
        _unsupported(p, operator)
        return
    width = p.width(operator, out)
    p.set(kernel, (width, _scaled(operator, channels, math.prod(old), math.prod(new))))
    _bias(p, bias, width)
    p.set(operator.outputs[0], _last(p.old[operator.outputs[0]].shape, width))


def _bias(p: _Pass, bias: Sequence[int], width: int) -> None:
    for index in bias:
        if index >= 0:
            p.set(index, (width,))


def _unsupported(p: _Pass, operator: Operator) -> None:
    if any(p.changed(index) for index in operator.inputs):
        raise InvalidArgumentError(
            "Widths can't change before an operator whose shapes don't follow from its inputs'. "
            f"Received: {operator.kind} in {_where(operator)}."
        )


def _elementwise(p: _Pass, operator: Operator) -> None:
    """Operators of one or several tensors, whose sides are equal, 1 or missing in front."""
    output = operator.outputs[0]
    shapes: dict[int, set[int]] = {}
    for index in operator.inputs:
        if index >= 0 and not p.old[index].constant:
            old, new = p.shapes(index)
            for axis in range(-len(old), 0):
                if old[axis] == p.old[output].shape[axis] and old[axis] != 1:
                    shapes.setdefault(axis, set()).add(new[axis])
    if uneven := [sides for sides in shapes.values() if len(sides) > 1]:
        raise InvalidArgumentError(
            "Tensors that are added or multiplied must have the same width. "
            f"Received: {sorted(uneven[0])} channels at {operator.kind} in {_where(operator)}."
        )
    sides = {axis: found.pop() for axis, found in shapes.items()}
    for index in (*operator.inputs, output):
        if index >= 0 and (index == output or p.old[index].constant):
            old = p.old[index].shape
            follows = {
                axis: side
                for axis, side in sides.items()
                if -len(old) <= axis and old[axis] == p.old[output].shape[axis] and old[axis] != 1
            }
            shape = tuple(follows.get(axis, old[axis]) for axis in range(-len(old), 0))
            p.set(index, shape)


def _follow(p: _Pass, operator: Operator) -> None:
    """Operators that keep the number of axes, and change each side by a fixed number."""
    old, new = p.shapes(operator.inputs[0])
    for output in operator.outputs:
        made = p.old[output].shape
        if len(made) != len(old):
            _unsupported(p, operator)
            return
        p.set(output, tuple(side + b - a for side, a, b in zip(made, old, new, strict=True)))


def _reduce(p: _Pass, operator: Operator) -> None:
    old, new = p.shapes(operator.inputs[0])
    axes = {axis % len(old) for axis in p.old[operator.inputs[1]].values or ()}
    (output,) = operator.outputs
    if len(p.old[output].shape) == len(old):
        p.set(output, tuple(1 if axis in axes else side for axis, side in enumerate(new)))
    else:
        p.set(output, tuple(side for axis, side in enumerate(new) if axis not in axes))


def _concatenate(p: _Pass, operator: Operator) -> None:
    (output,) = operator.outputs
    made = p.old[output].shape
    axis = dict(operator.options)["axis"] % len(made)
    sides = []
    for place in range(len(made)):
        news = [p.forms[index].shape[place] for index in operator.inputs]
        if place == axis:
            sides.append(sum(news))
        elif len(set(news)) == 1:
            sides.append(news[0])
        else:
            raise InvalidArgumentError(
                "Tensors that are concatenated must have the same sides along the other axes. "
                f"Received: {sorted(set(news))} at {_where(operator)}."
            )
    p.set(output, tuple(sides))


def _pack(p: _Pass, operator: Operator) -> None:
    (output,) = operator.outputs
    axis = dict(operator.options)["axis"] % len(p.old[output].shape)
    shapes = {p.forms[index].shape for index in operator.inputs}
    if len(shapes) > 1:
        raise InvalidArgumentError(
            f"Tensors that are stacked must have the same shape. Received: {sorted(shapes)} in {_where(operator)}."
        )
    (shape,) = shapes
    p.set(output, (*shape[:axis], len(operator.inputs), *shape[axis:]))


def _split(p: _Pass, operator: Operator) -> None:
    """SPLIT, whose parts are equal, and SPLIT_V, whose parts keep their shares."""
    source = operator.inputs[1 if operator.kind == "SPLIT" else 0]
    old, new = p.shapes(source)
    for output in operator.outputs:
        p.set(output, _shared(operator, p.old[output].shape, old, new))
    if operator.kind == "SPLIT_V":
        sizes = operator.inputs[1]
        (axis,) = p.old[operator.inputs[2]].values or (0,)
        p.set(sizes, p.old[sizes].shape, [p.forms[output].shape[axis] for output in operator.outputs])


def _shared(operator: Operator, made: Shape, old: Shape, new: Shape) -> Shape:
    """The shape of a part of a tensor, which keeps its share of every side that changes."""
    return tuple(side if a == b else _scaled(operator, side, a, b) for side, a, b in zip(made, old, new, strict=True))


def _slice(p: _Pass, operator: Operator) -> None:
    """SLICE and STRIDED_SLICE without dropped axes: bounds move with the side."""
    source, *bounds = operator.inputs
    old, new = p.shapes(source)
    made = p.old[operator.outputs[0]].shape
    if not p.changed(source):
        return
    if len(made) != len(old) or any(p.old[index].values is None for index in bounds):
        _unsupported(p, operator)
    shape = _shared(operator, made, old, new)
    for index in bounds[:2]:
        values = p.old[index].values or ()
        moved = [
            value if a == b or value <= 0 else _scaled(operator, value, a, b)
            for value, a, b in zip(values, old, new, strict=True)
        ]
        p.set(index, p.old[index].shape, moved)
    p.set(operator.outputs[0], shape)


def _gather(p: _Pass, operator: Operator) -> None:
    source, indices = operator.inputs
    old, new = p.shapes(source)
    if not p.changed(source):
        return
    options, values = dict(operator.options), p.old[indices].values
    axis = options["axis"] % len(old)
    if values is None or len(p.old[indices].shape) != 1 or options.get("batchDims"):
        _unsupported(p, operator)
        return
    sides = list(new)
    sides[axis] = len(values)
    if old[axis] != new[axis]:
        sides[axis] = _scaled(operator, len(values), old[axis], new[axis])
        # In another order than the true ones, where the file permutes channels: the time is the same.
        repeated = [values[place * len(values) // sides[axis]] % new[axis] for place in range(sides[axis])]
        p.set(indices, (sides[axis],), repeated)
    p.set(operator.outputs[0], tuple(sides))


def _transpose(p: _Pass, operator: Operator) -> None:
    source, order = operator.inputs
    axes = p.old[order].values
    if axes is None:
        _unsupported(p, operator)
        return
    p.set(operator.outputs[0], tuple(p.forms[source].shape[axis] for axis in axes))


def _reshape(p: _Pass, operator: Operator) -> None:
    """Sides are compared in runs that hold the same number of values, of which one changes.

    That is the side that the file leaves open; or the last one that can, such as that of a vector that pixels and
    channels become, and of channels that are split in groups.
    """
    source, *target = operator.inputs
    if not p.changed(source):
        return
    old, new = p.shapes(source)
    made = list(p.old[operator.outputs[0]].shape)
    given = [p.old[index].values or () for index in target]
    left_open = [values.index(-1) for values in given if -1 in values]
    for run, places in _runs(old, made):
        before, after = (math.prod(shape[axis] for axis in run) for shape in (old, new))
        if before == after:
            continue
        order = [*(place for place in left_open if place in places), *reversed(places)]
        place = next((place for place in order if made[place] * after % before == 0), None)
        if place is None:
            raise InvalidArgumentError(
                "Channels that are divided must remain divisible. "
                f"Received: {list(old)} becoming {made}, now {list(new)}, in {_where(operator)}."
            )
        made[place] = made[place] * after // before
    p.set(operator.outputs[0], tuple(made))
    for index, values in zip(target, given, strict=True):
        kept = [-1 if place in left_open and -1 in values else side for place, side in enumerate(made)]
        p.set(index, p.old[index].shape, kept)


def _runs(old: Sequence[int], made: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of two shapes that hold equally many values."""
    runs, first, second = [], 0, 0
    while first < len(old) or second < len(made):
        run, places = list[int](), list[int]()
        left = right = 1
        while not run or not places or left != right:
            if first < len(old) and ((left <= right and not (run and left == right)) or second >= len(made)):
                run.append(first)
                left *= old[first]
                first += 1
            elif second < len(made):
                places.append(second)
                right *= made[second]
                second += 1
            else:
                break
        runs.append((run, places))
    return runs


def _squeeze(p: _Pass, operator: Operator) -> None:
    """SQUEEZE and EXPAND_DIMS, which only change sides of 1."""
    old, new = p.shapes(operator.inputs[0])
    sides = [b for a, b in zip(old, new, strict=True) if a != 1]
    made = iter(sides)
    p.set(operator.outputs[0], tuple(1 if side == 1 else next(made) for side in p.old[operator.outputs[0]].shape))


def _product(p: _Pass, operator: Operator) -> None:
    """BATCH_MATMUL of tensors."""
    first, second = (p.forms[index].shape for index in operator.inputs)
    options = dict(operator.options)
    rows, inner = (first[-1], first[-2]) if options.get("adjX") else (first[-2], first[-1])
    deep, columns = (second[-1], second[-2]) if options.get("adjY") else (second[-2], second[-1])
    if p.old[operator.inputs[1]].constant and inner != deep:
        deep = inner
        p.set(operator.inputs[1], (*second[:-2], *((columns, deep) if options.get("adjY") else (deep, columns))))
    if inner != deep:
        raise InvalidArgumentError(
            "Matrices that are multiplied must have the same inner side. "
            f"Received: {inner} and {deep} in {_where(operator)}."
        )
    p.set(operator.outputs[0], (*p.old[operator.outputs[0]].shape[:-2], rows, columns))


_PRODUCERS = ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_RULES: dict[str, Callable[[_Pass, Operator], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "CONCATENATION": _concatenate,
    "PACK": _pack,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _slice,
    "GATHER": _gather,
    "TRANSPOSE": _transpose,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _squeeze,
    "BATCH_MATMUL": _product,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduce),
    **dict.fromkeys(
        (
            *("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW", "FLOOR_DIV", "PRELU"),
            *("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL", "SELECT", "SELECT_V2"),
            *("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "ELU", "GELU", "HARD_SWISH", "LOGISTIC", "TANH"),
            *("SOFTMAX", "LOG_SOFTMAX", "QUANTIZE", "DEQUANTIZE", "CAST", "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT"),
            *("SQUARE", "SIN", "COS", "FLOOR", "CEIL", "ROUND", "SIGN", "L2_NORMALIZATION", "LOGICAL_AND"),
            *("LOGICAL_OR", "LOGICAL_NOT", "LOCAL_RESPONSE_NORMALIZATION"),
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        (
            *("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D", "PAD", "PADV2", "MIRROR_PAD", "RESIZE_BILINEAR"),
            "RESIZE_NEAREST_NEIGHBOR",
        ),
        _follow,
    ),
}
