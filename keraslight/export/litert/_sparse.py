"""Whether XNNPACK runs a .tflite file by its sparse kernels on ARM, decided from the file alone.

On ARM (not on x86 with AVX) XNNPACK looks for parts of a graph that it can run channel by channel, in NCHW, where a
zero weight of a 1x1 convolution costs nothing. It marks the operators that have NCHW kernels; finds those that may end
a part, such as means over a map; walks from there against the data flow, and gives up a part as soon as it meets an
operator without such a kernel, unless it is a convolution that begins a part. Then it counts: more than two thirds of
the part's 1x1 weights must be zeros. This module does the same walk over the file's operators, and keeps the reason for
which it gives up.

Source: `xnn_check_nchw_compatibility` and `xnn_subgraph_rewrite_for_nchw` in XNNPACK's src/subgraph.c, and LiteRT's
tflite/delegates/xnnpack/xnnpack_delegate.cc for how operators become XNNPACK's, read in November 2026.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keraslight.export.litert._delegates import operator_names
from keraslight.export.litert._flatbuffer import kind_of, read_model, schema, write_model

SPARSE_FROM = 2 / 3
"""Share of zeros among 1x1 weights above which XNNPACK runs a part sparsely."""

_UNARY = operator_names(
    """ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 ROUND
    RSQRT SIGN SIN SQRT SQUARE TANH"""
)
_MEANS = frozenset({"MEAN", "SUM"})
_UNPACKING = frozenset({"DENSIFY", "DEQUANTIZE"})
_DEPTHWISE_PADDING = {3: 1, 5: 2}  # side of the kernel -> zeros on each side


@dataclasses.dataclass(frozen=True)
class SparseInference:
    """Whether ARM processors run a file sparsely; `str()` is one line.

    Attributes:
        accepted: Whether at least one part of the file runs by sparse kernels.
        sparse_convolutions: 1x1 convolutions in such parts.
        convolutions: All 1x1 convolutions of the file on maps of more than one pixel.
        zeros: Share of zeros in the weights of the parts' 1x1 convolutions and dense layers, or of all those of the
            file if no part is accepted, 0 to 1.
        operator: Name of the first output of the operator that stops it; "" if accepted, or if it isn't one operator.
        problem: Why it is not accepted, and what to change; "" if it is.
        wrong: Whether ARM processors give wrong answers or none: XNNPACK takes a part that it can't run. `to_litert`
            writes no such file.
    """

    accepted: bool
    sparse_convolutions: int
    convolutions: int
    zeros: float
    operator: str = ""
    problem: str = ""
    wrong: bool = False

    def __str__(self) -> str:
        if self.accepted:
            count = f"{self.sparse_convolutions} of {self.convolutions}"
            return f"sparse on ARM: yes, {count} 1x1 convolutions, {self.zeros:.0%} zeros"
        return f"sparse on ARM: no, {self.problem}"


def nchw_forms(content: bytes) -> bytes:
    """Gives operators the one form of several equal ones that XNNPACK's sparse parts take.

    - Sums and products with a number have it as the first operand, with four axes; the converter puts it second, with
      none.
    - Strided convolutions with as many zeros on each side are padded by an operator of their own; of that the converter
      makes "same" padding where that is equal, on maps of odd sides. Nor do several convolutions share a padding.
    - Behind the last mean over a map, and the sparse 1x1 convolutions that follow it, a reshape to the same shape ends
      the part: dense layers would join it otherwise, and their zeros count. A part must not end at a convolution, or
      LiteRT fails to start; behind one, the mean over its single pixel ends it.

    Args:
        content: A .tflite file.
    """
    model = read_model(content)
    reader, operators = _Reader(model), []
    ends = _ends(reader)
    for operator in model.subgraphs[0].operators:
        kind = reader.kind(operator)
        if kind in ("ADD", "MUL"):
            _put_number_first(reader, operator)
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            operators.extend(_own_padding(reader, operator) or _own_copy(reader, operator))
        operators.append(operator)
        if int(operator.outputs[0]) in ends:
            operators.extend(_end(reader, operator, mean=ends[int(operator.outputs[0])]))
    read = {int(tensor) for operator in operators for tensor in operator.inputs} | {*map(int, reader.graph.outputs)}
    model.subgraphs[0].operators = [
        operator for operator in operators if reader.kind(operator) != "PAD" or int(operator.outputs[0]) in read
    ]
    return write_model(model, len(content))


def without_parts(content: bytes) -> bytes:
    """Puts a reshape to the same shape behind every convolution that begins a part, so that XNNPACK runs none sparsely.

    For files that it would run wrongly: it takes a part that ends in the middle of a network, behind a gate or before a
    shuffle, and gives what it computes to operators that expect another layout.

    Args:
        content: A .tflite file.
    """
    model = read_model(content)
    reader, operators = _Reader(model), []
    begins = {tensor for node in reader.nodes() if node.begins for tensor in node.outputs}
    for operator in model.subgraphs[0].operators:
        operators.append(operator)
        if int(operator.outputs[0]) in begins:
            operators.extend(_end(reader, operator, mean=False))
    model.subgraphs[0].operators = operators
    return write_model(model, len(content))


def _put_number_first(reader: _Reader, operator: Any) -> None:
    constants = [int(tensor) for tensor in operator.inputs if reader.is_constant(int(tensor))]
    others = [int(tensor) for tensor in operator.inputs if not reader.is_constant(int(tensor))]
    if len(constants) != 1 or len(reader.shape(others[0])) != 4 or constants[0] in reader.makers:
        return
    if math.prod(reader.shape(constants[0])) == 1:
        tensor = copy.copy(reader.graph.tensors[constants[0]])  # others may read it as it is
        tensor.shape = np.asarray((1, 1, 1, 1), np.int32)
        operator.inputs = np.asarray([reader.add(tensor), *others], np.int32)


def _own_padding(reader: _Reader, operator: Any) -> list[Any]:
    """The padding operator that a strided convolution needs in front of it, if it is symmetric."""
    options, source = operator.builtinOptions, int(operator.inputs[0])
    if options.padding != reader.classes.Padding.SAME or max(options.strideH, options.strideW) == 1:
        return []
    sides, kernel = reader.shape(source)[1:3], reader.shape(int(operator.inputs[1]))[1:3]
    strides = (options.strideH, options.strideW)
    totals = [
        (-(-size // stride) - 1) * stride + side - size
        for size, stride, side in zip(sides, strides, kernel, strict=True)
    ]
    if totals != [2 * (side // 2) for side in kernel]:
        return []
    options.padding = reader.classes.Padding.VALID
    zeros = np.asarray([[0, 0], *([side // 2] * 2 for side in kernel), [0, 0]], np.int32)
    padded = copy.copy(reader.graph.tensors[source])
    padded.name += b"/padded"
    batch, *_, channels = reader.shape(source)
    padded.shape = np.asarray([batch, *(a + b for a, b in zip(sides, totals, strict=True)), channels], np.int32)
    padded.shapeSignature = None
    return [_read_padded(reader, operator, [source, reader.constant(zeros)], padded)]


def _ends(reader: _Reader) -> dict[int, bool]:
    """The tensors at which a part shall end -> whether it needs a further mean there."""
    inner: set[int] = set()  # tensors that later layers of a map depend on
    for operator in reversed(reader.graph.operators):
        kind = reader.kind(operator)
        computed = [tensor for tensor in reader.given(operator) if not reader.is_constant(tensor)]
        on_map = kind in _MEANS or kind == "DEPTHWISE_CONV_2D" or (kind in ("ADD", "MUL") and len(computed) > 1)
        if on_map or any(int(tensor) in inner for tensor in operator.outputs):
            inner.update(computed)
    ends: dict[int, bool] = {}
    for operator in reader.graph.operators:
        end = int(operator.outputs[0])
        if reader.kind(operator) not in _MEANS or end in inner:
            continue
        while len(readers := [each for each in reader.graph.operators if end in reader.given(each)]) == 1:
            kind = reader.kind(readers[0])
            if kind not in _UNARY and not (kind == "CONV_2D" and reader.is_sparse(int(readers[0].inputs[1]))):
                break
            end = int(readers[0].outputs[0])
        ends[end] = reader.kind(reader.makers[end]) == "CONV_2D"
    return ends


def _end(reader: _Reader, operator: Any, *, mean: bool) -> list[Any]:
    """What ends a part at an operator: a reshape to the same shape, which its readers read; with `mean`, of a mean."""
    output = int(operator.outputs[0])
    shape = reader.shape(output)
    made = [operator]

    def follow(kind: str, options: Any, argument: Sequence[int]) -> None:
        """Lets an operator of this kind make what the last one made."""
        before = copy.copy(reader.graph.tensors[output])
        before.name += b"/before_" + kind.lower().encode()
        made[-1].outputs = np.asarray([reader.add(before)], np.int32)
        follower = reader.classes.OperatorT()
        follower.opcodeIndex, follower.builtinOptions = reader.code(kind), options
        follower.builtinOptionsType = getattr(reader.classes.BuiltinOptions, type(options).__name__.removesuffix("T"))
        follower.inputs = np.asarray([made[-1].outputs[0], reader.constant(np.asarray(argument))], np.int32)
        follower.outputs = np.asarray([output], np.int32)
        made.append(follower)

    if mean:
        keeping = reader.classes.ReducerOptionsT()
        keeping.keepDims = True
        follow("MEAN", keeping, (1, 2))
    reshaping, target = reader.classes.ReshapeOptionsT(), (-1, *shape[1:])
    reshaping.newShape = np.asarray(target, np.int32)
    follow("RESHAPE", reshaping, target)
    return made[1:]


def _own_copy(reader: _Reader, operator: Any) -> list[Any]:
    """A copy of the padding in front of a convolution, if others read the same one: XNNPACK takes in what one reads."""
    source = int(operator.inputs[0])
    maker = reader.makers.get(source)
    if maker is None or reader.kind(maker) != "PAD" or reader.readers[source] == 1:
        return []
    return [_read_padded(reader, operator, list(maker.inputs), copy.copy(reader.graph.tensors[source]))]


def _read_padded(reader: _Reader, operator: Any, inputs: list[int], padded: Any) -> Any:
    """Makes an operator read the new tensor `padded`, and returns the new operator that pads."""
    made = reader.classes.OperatorT()
    made.opcodeIndex = reader.code("PAD")
    made.inputs = np.asarray(inputs, np.int32)
    made.outputs = np.asarray([reader.add(padded)], np.int32)
    operator.inputs = np.asarray([made.outputs[0], *operator.inputs[1:]], np.int32)
    return made


@dataclasses.dataclass
class _Node:
    """An operator as XNNPACK sees it.

    `nchw`, `begins` and `ends` say whether it has a kernel that stays in NCHW, one that enters it, and one that leaves
    it; `leaves` says the same as `ends` of operators inside a part as well. `why` is the reason if it has none.
    Of a part's highest node, `broken` says why the part is given up, and `wrong` at which operator it ends wrongly.
    `has_form` says that `to_litert` has an accepted form for it, in networks of which all have one. `inputs` are
    tensors that are computed, not constants.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nchw: bool = False
    begins: bool = False
    ends: bool = False
    leaves: bool = False
    why: str = ""
    weights: int = 0
    zeros: int = 0
    pointwise: bool = False
    convolution: bool = False
    has_form: bool = False
    part: int = -1
    broken: str = ""
    wrong: str = ""


def sparse_inference(model: Any) -> SparseInference:
    """Decides it for a file's `ModelT`."""
    nodes = _Reader(model).nodes()
    pointwise = [node for node in nodes if node.pointwise]
    kernels = [node for node in nodes if node.weights]
    zeros = sum(node.zeros for node in kernels) / max(sum(node.weights for node in kernels), 1)
    refused = SparseInference(False, 0, len(pointwise), zeros)
    classes = schema()
    densify = classes.BuiltinOperator.DENSIFY
    if not any(kind_of(model, operator) == densify for operator in model.subgraphs[0].operators):
        problem = "no kernel is stored sparsely; convert with `sparse=True`"
        return dataclasses.replace(refused, problem=problem)
    _walk(nodes, {int(tensor) for tensor in model.subgraphs[0].outputs})
    parts: dict[int, list[_Node]] = {}
    for node in nodes:
        parts.setdefault(node.part, []).append(node)
    whole = [part for leader, part in parts.items() if not nodes[leader].broken and any(node.nchw for node in part)]
    accepted = [part for part in whole if _sum(part, "zeros") > SPARSE_FROM * _sum(part, "weights")]
    for part in accepted:
        if name := nodes[part[0].part].wrong:
            return dataclasses.replace(refused, operator=name, problem=f"{name}: {_WRONG}", wrong=True)
    if accepted:
        running = [node for part in accepted for node in part]
        share = _sum(running, "zeros") / _sum(running, "weights")
        return SparseInference(True, sum(node.pointwise for node in running), len(pointwise), share)
    name, problem = _obstacle(nodes)
    return dataclasses.replace(refused, operator=name, problem=problem)


def _sum(part: Sequence[_Node], name: str) -> int:
    return sum(getattr(node, name) for node in part)


def _walk(nodes: list[_Node], results: set[int]) -> None:
    """Puts nodes into parts, and says at the leader of each, its highest node, whether and why it is broken."""
    makers = {tensor: place for place, node in enumerate(nodes) for tensor in node.outputs}
    readers = {tensor: 0 for node in nodes for tensor in (*node.inputs, *node.outputs)}
    for node in nodes:
        for tensor in set(node.inputs):
            readers[tensor] += 1
    for tensor in results & readers.keys():
        readers[tensor] += 1
    for place, node in enumerate(nodes):
        node.part = place

    def join(place: int) -> bool:
        """Joins a node to those that make its inputs."""
        node, changed = nodes[place], False
        for tensor in node.inputs:
            maker = nodes[makers[tensor]] if tensor in makers else None
            if maker is None:
                node.broken = node.broken or f"{node.name} reads an input of the file directly"
            elif not (maker.begins or maker.nchw) or maker.broken:
                node.broken = node.broken or maker.broken or f"{maker.name}: {maker.why}"
            else:
                maker.ends = False
                if maker.part != node.part:
                    maker.part = node.part = max(maker.part, node.part)
                    changed = True
        return changed

    changed = False
    for place, node in enumerate(nodes):
        if node.ends:
            changed |= join(place)
    if not changed:
        for node in nodes:
            node.broken = node.broken or _END
        return
    while changed:
        changed = False
        for place, node in enumerate(nodes):
            if (node.nchw or node.ends) and not node.broken:
                changed |= join(place)
    for node in nodes:
        nodes[node.part].broken = nodes[node.part].broken or node.broken
    inside: dict[int, int] = {}
    running = [node for node in nodes if (node.nchw or node.ends) and not nodes[node.part].broken]
    for node in running:
        for tensor in node.inputs:
            inside[tensor] = inside.get(tensor, 0) + 1
    for node in running:
        for tensor in node.inputs:
            if inside[tensor] != readers[tensor]:
                other = next(
                    (o for o in nodes if tensor in o.inputs and (o not in running or nodes[o.part].broken)), None
                )
                why = f"{other.name}: {other.why}" if other is not None and other.why else "it is an output of the file"
                nodes[node.part].broken = f"{why}, and reads what the part {node.name} belongs to computes"
        if not node.leaves and not any(tensor in inside for tensor in node.outputs):
            nodes[node.part].wrong = node.name


def _obstacle(nodes: Sequence[_Node]) -> tuple[str, str]:
    """Name of the operator that stops it, or "", and why.

    First what has no accepted form, and last what has one, which `to_litert` writes if nothing else stops it.
    """
    places = [place for place, node in enumerate(nodes) if node.convolution]
    stopping = [node for node in nodes[min(places) : max(places) + 1] if node.why] if places else []
    for node in stopping:
        if not node.has_form:
            return node.name, f"{node.name}: {node.why}"
    if not any(node.leaves and not node.weights for node in nodes):
        return "", _END
    pointwise = [node for node in nodes if node.convolution and node.weights]
    share = _sum(pointwise, "zeros") / max(_sum(pointwise, "weights"), 1)
    if share <= SPARSE_FROM:
        return "", (
            f"{share:.0%} of the weights of its 1x1 convolutions are zeros, where more than two thirds must be; prune "
            "with `policy='xnnpack'`, and further"
        )
    if stopping:
        return stopping[0].name, f"{stopping[0].name}: {stopping[0].why}"
    broken = next((node.broken for node in nodes if node.broken), "dense layers with few zeros are a part of it")
    return broken.split(": ")[0] if ": " in broken else "", broken


_WRONG = (
    "a sparse part ends at it instead of at a mean over the map, so ARM processors give wrong answers or none; convert "
    "with `sparse=False`"
)
_END = "no mean over a map, at which a sparse part ends, follows its convolutions"
_BEGIN = "a sparse part begins with a 3x3 convolution of stride 2 on 3 channels with one zero on each side"


class _Reader:
    """Reads a file's main graph into XNNPACK's nodes."""

    def __init__(self, model: Any):
        self.model, self.graph, self.classes = model, model.subgraphs[0], schema()
        self.kinds = {code: name for name, code in vars(self.classes.BuiltinOperator).items() if isinstance(code, int)}
        self.makers = {int(tensor): operator for operator in self.graph.operators for tensor in operator.outputs}
        self.readers: dict[int, int] = {}
        for operator in self.graph.operators:
            for tensor in self.given(operator):
                self.readers[tensor] = self.readers.get(tensor, 0) + 1

    def nodes(self) -> list[_Node]:
        nodes = []
        for operator in self.graph.operators:
            kind = self.kind(operator)
            if kind in _UNPACKING and self.is_constant(int(operator.inputs[0])):
                continue
            if kind == "PAD" and self._is_taken_in(operator):
                continue  # XNNPACK makes it a part of the convolution
            computed = tuple(
                self._before_padding(tensor) for tensor in self.given(operator) if not self.is_constant(tensor)
            )
            outputs = tuple(int(tensor) for tensor in operator.outputs)
            node = _Node(self.name(operator), computed, outputs)
            self._judge(node, operator, kind)
            nodes.append(node)
        return nodes

    def given(self, operator: Any) -> list[int]:
        return [int(tensor) for tensor in operator.inputs if tensor >= 0]  # -1: missing (no bias)

    def kind(self, operator: Any) -> str:
        return str(self.kinds[kind_of(self.model, operator)])

    def name(self, operator: Any) -> str:
        name = self.graph.tensors[int(operator.outputs[0])].name.decode()
        return str(name.split(";")[0])  # the others are of what the converter took into the operator

    def shape(self, tensor: int) -> tuple[int, ...]:
        shape = self.graph.tensors[tensor].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor is stored in the file, or unpacked from such a one."""
        maker = self.makers.get(tensor)
        if maker is not None:
            return self.kind(maker) in _UNPACKING and self.is_constant(int(maker.inputs[0]))
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        # The data of a sparse kernel are its other weights: there may be none.
        return self.graph.tensors[tensor].sparsity is not None or (data is not None and len(data) > 0)

    def values(self, tensor: int) -> np.ndarray:
        """The stored values of a constant, of a sparse one those that are stored."""
        maker = self.makers.get(tensor)
        if maker is not None:
            return self.values(int(maker.inputs[0]))
        found = self.graph.tensors[tensor]
        types = self.classes.TensorType
        dtype = {types.FLOAT32: np.float32, types.FLOAT16: np.float16, types.INT32: np.int32, types.INT64: np.int64}
        data = self.model.buffers[found.buffer].data
        return np.frombuffer(b"" if data is None else data.tobytes(), dtype.get(found.type, np.int8))

    def add(self, tensor: Any) -> int:
        """Adds a tensor and returns its index."""
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        """Adds a constant of int32 and returns its index."""
        buffer, tensor = self.classes.BufferT(), self.classes.TensorT()
        buffer.data = np.frombuffer(values.astype(np.int32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.shape, tensor.type = np.asarray(values.shape, np.int32), self.classes.TensorType.INT32
        tensor.buffer, tensor.name = len(self.model.buffers) - 1, b"zeros"
        return self.add(tensor)

    def code(self, kind: str) -> int:
        """Index of an operator's code, which is added if it isn't there."""
        builtin = getattr(self.classes.BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return index
        code = self.classes.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def _is_float(self, operator: Any) -> bool:
        float32 = self.classes.TensorType.FLOAT32
        tensors = [*self.given(operator), *(int(tensor) for tensor in operator.outputs)]
        dtypes = [self.graph.tensors[tensor].type for tensor in tensors if not self._is_argument(operator, tensor)]
        return all(dtype == float32 for dtype in dtypes)

    def _is_argument(self, operator: Any, tensor: int) -> bool:
        """Whether it is an argument, for example the axes of a mean, and no value for XNNPACK."""
        return self.graph.tensors[tensor].type == self.classes.TensorType.INT32 and self.is_constant(tensor)

    def _is_taken_in(self, operator: Any) -> bool:
        """Whether a padding becomes a part of the one convolution that reads it."""
        padded = int(operator.outputs[0])
        reader = next((other for other in self.graph.operators if padded in self.given(other)), None)
        if reader is None or self.readers[padded] != 1 or padded in self.graph.outputs:
            return False
        if self.kind(reader) not in ("CONV_2D", "DEPTHWISE_CONV_2D") or padded != int(reader.inputs[0]):
            return False
        (batch, *_, channels) = self._paddings(operator)
        valid = reader.builtinOptions.padding == self.classes.Padding.VALID
        return valid and not any((*batch, *channels))

    def _paddings(self, operator: Any) -> list[tuple[int, int]]:
        return [(int(a), int(b)) for a, b in self.values(int(operator.inputs[1])).reshape(-1, 2)]

    def _before_padding(self, tensor: int) -> int:
        maker = self.makers.get(tensor)
        if maker is not None and self.kind(maker) == "PAD" and self._is_taken_in(maker):
            return int(maker.inputs[0])
        return tensor

    def _zeros_around(self, operator: Any, kernel: Sequence[int]) -> tuple[int, ...] | None:
        """Zeros above, below, left and right of a convolution's input; None if XNNPACK computes them by itself."""
        options, source = operator.builtinOptions, int(operator.inputs[0])
        maker = self.makers.get(source)
        if maker is not None and self.kind(maker) == "PAD" and self._is_taken_in(maker):
            _, rows, columns, _ = self._paddings(maker)
            return (*rows, *columns)
        if options.padding == self.classes.Padding.VALID:
            return (0, 0, 0, 0)
        if max(options.strideH, options.strideW) > 1:
            return None
        sides = [
            ((side - 1) * dilation // 2, (side - 1) * dilation - (side - 1) * dilation // 2)
            for side, dilation in zip(kernel, (options.dilationHFactor, options.dilationWFactor), strict=True)
        ]
        return (*sides[0], *sides[1])

    def _judge(self, node: _Node, operator: Any, kind: str) -> None:
        """Sets what a node can do in NCHW."""
        if not self._is_float(operator):
            node.why = "only floats have sparse kernels"
        elif kind == "CONV_2D":
            node.convolution = True
            self._judge_convolution(node, operator)
        elif kind == "DEPTHWISE_CONV_2D":
            node.convolution = True
            node.why = self._depthwise_problem(operator)
            node.nchw, node.has_form = not node.why, "'same'" in node.why
        elif kind == "FULLY_CONNECTED":
            node.nchw = node.leaves = True
            self._count(node, int(operator.inputs[1]))
        elif kind in ("ADD", "MUL"):
            node.why = self._product_problem(operator)
            node.nchw, node.has_form = not node.why, self._has_number(operator)
        elif kind in _UNARY or kind in _MEANS or kind == "RESIZE_BILINEAR":
            shape = self.shape(int(operator.inputs[0]))
            node.nchw = len(shape) == 4
            node.why = "" if node.nchw else f"{kind} of a tensor with {len(shape)} axes instead of 4"
            if kind == "RESIZE_BILINEAR" and node.nchw and min(shape[1:3]) < 2:
                node.nchw, node.why = False, "RESIZE_BILINEAR of a map of one pixel"
            node.ends = kind in _MEANS and node.nchw
            node.leaves = node.ends or (node.nchw and max(shape[1:3]) == 1)
        elif kind == "DEPTH_TO_SPACE":
            node.ends = node.leaves = True
        else:
            node.why = f"{kind} has no kernel for sparse parts"
            node.has_form = kind in ("CONCATENATION", "PAD", "RESHAPE")

    def _judge_convolution(self, node: _Node, operator: Any) -> None:
        options = operator.builtinOptions
        _, *sides, channels = self.shape(int(operator.inputs[1]))
        strides = (options.strideH, options.strideW)
        what = f"{sides[0]}x{sides[1]} convolution"
        groups = self.shape(int(operator.inputs[0]))[-1] // channels
        if groups != 1:
            node.why = f"convolution of {groups} groups"
        elif (options.dilationHFactor, options.dilationWFactor) != (1, 1):
            node.why = f"dilated {what}"
        elif sides == [1, 1]:
            rows = self.shape(int(operator.outputs[0]))[1:3]
            node.pointwise = len(rows) < 2 or math.prod(rows) != 1
            self._count(node, int(operator.inputs[1]))
            zeros = self._zeros_around(operator, sides)
            if strides != (1, 1):
                node.why = f"{what} of stride {max(strides)}"
            elif zeros is None or any(zeros):
                node.why = f"{what} with padding"
            node.nchw = not node.why
        elif sides == [3, 3] and strides == (2, 2) and channels == 3:
            zeros = self._zeros_around(operator, sides)
            node.begins = zeros == (1, 1, 1, 1)
            if not node.begins:
                node.has_form = True
                node.why = f"{what} of stride 2 with {_around(zeros)}; it must be 1 zero on each side"
        else:
            node.why = f"{what} of stride {max(strides)} on {channels} channels; {_BEGIN}"

    def _depthwise_problem(self, operator: Any) -> str:
        options = operator.builtinOptions
        _, *sides, channels = self.shape(int(operator.inputs[1]))
        strides = (options.strideH, options.strideW)
        what = f"depthwise {sides[0]}x{sides[1]} convolution"
        if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
            return f"dilated {what}"
        if channels != self.shape(int(operator.inputs[0]))[-1]:
            return f"{what} with a multiplier"
        if strides not in ((1, 1), (2, 2)):
            return f"{what} of strides {strides}"
        if sides[0] != sides[1] or sides[0] not in _DEPTHWISE_PADDING:
            return f"{what}; it must be 3x3 or 5x5"
        zeros, wanted = self._zeros_around(operator, sides), _DEPTHWISE_PADDING[sides[0]]
        if zeros != (wanted,) * 4:
            return f"{what} of stride {strides[0]} with {_around(zeros)}; it must be {wanted} on each side"
        return ""

    def _product_problem(self, operator: Any) -> str:
        kind = self.kind(operator)
        ranks = [len(self.shape(tensor)) for tensor in self.given(operator)]
        if ranks != [4, 4]:
            return f"{kind} of tensors with {ranks[0]} and {ranks[1]} axes instead of 4"
        first, second = (int(tensor) for tensor in operator.inputs)
        # XNNPACK looks at the first operand's sides for both. It also takes a vector as the first operand, but does not
        # transpose it: on an ARM processor LiteRT then fails to start ("failed to reshape runtime").
        constant = self.is_constant(first) or self.is_constant(second)
        if constant and not (self.is_constant(first) and math.prod(self.shape(first)) == 1):
            return f"{kind} with a constant; it must be one number with 4 axes, and the first operand"
        return ""

    def _has_number(self, operator: Any) -> bool:
        return any(self.is_constant(tensor) and math.prod(self.shape(tensor)) == 1 for tensor in self.given(operator))

    def is_sparse(self, kernel: int) -> bool:
        """Whether more of a kernel's weights are zeros than a part needs."""
        return self._zeros(kernel) > SPARSE_FROM * math.prod(self.shape(kernel))

    def _zeros(self, kernel: int) -> int:
        return math.prod(self.shape(kernel)) - int(np.count_nonzero(self.values(kernel)))

    def _count(self, node: _Node, kernel: int) -> None:
        node.weights, node.zeros = math.prod(self.shape(kernel)), self._zeros(kernel)


def _around(zeros: tuple[int, ...] | None) -> str:
    if zeros is None:
        return "'same' padding"
    return "{} zeros above, {} below, {} left, {} right".format(*zeros)
