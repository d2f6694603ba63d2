"""The operators of a .tflite file as shapes and options, without weights: what LiteRT runs, and what it costs.

`cut` splits a file into the parts that the interpreter runs as one: an operator, with the padding before and the
activation after it that XNNPACK merges into it. Each part has a `key`, which holds all that its time depends on, and
is written as a file of its own with random weights. Nothing is converted again for that, nor for other numbers of
channels: `_widths` computes the shapes that they give.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keraslight import _litert_files
from keraslight.export._frozen import convertible
from keraslight.export.litert._flatbuffer import kind_of, read_model, schema, write_model
from keraslight.export.litert._widths import Form, Operator, rewidened
from keraslight.export.litert.convert import convert_graph, to_litert
from keraslight.graph import Graph, UnreadableModelError, read, read_ends
from keraslight.graph.kinds import kind

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_CLAMPS = ("RELU", "RELU6", "RELU_N1_TO_1")
_CLAMPED = (
    *(*_CONVOLUTIONS, "TRANSPOSE_CONV", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV"),
    *("AVERAGE_POOL_2D", "MAX_POOL_2D"),
)
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
_ENUMS = {"fusedActivationFunction": "ActivationFunctionType", "padding": "Padding"}
_UNTIMED = ("potScaleInt16", "quantizedBiasType", "keepNumDims", "newShape")  # the last one is an input, too
_INTEGERS = {"INT32": np.int32, "INT64": np.int64}
_BYTES = {"FLOAT32": 4, "INT32": 4, "FLOAT16": 2, "INT16": 2, "INT64": 8}
_POOL = 1 << 16
_TOKEN = re.compile(r"layer(\d+)x")


@dataclasses.dataclass(frozen=True)
class OperatorGraph:
    """The operators of a .tflite file, or of a part of it.

    Attributes:
        forms: What is known of each tensor.
        operators: The operators in the order in which they run, without those that only prepare constants.
        inputs, outputs: Tensors at the ends.
        fused: Layers with kernels that the file no longer has, because they became a part of others: branches of which
            one convolution was made.
    """

    forms: tuple[Form, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fused: frozenset[str] = frozenset()

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions, dense layers and matrix products."""
        return sum(_macs(operator, self.forms) for operator in self.operators)

    @property
    def parameters(self) -> int:
        """Number of weights: batch norms are part of the kernels and biases around them."""
        read = {index for operator in self.operators for index in operator.inputs if index >= 0}
        forms = (self.forms[index] for index in read)
        return sum(math.prod(form.shape) for form in forms if form.constant and form.values is None)

    @property
    def name(self) -> str:
        """Name of the operators' kinds, such as `"PAD + CONV_2D"`."""
        return " + ".join(operator.kind for operator in self.operators)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that the operators were made of."""
        return tuple(dict.fromkeys(layer for operator in self.operators for layer in operator.layers))

    @functools.cached_property
    def key(self) -> str:
        """All that the operators' time depends on: kinds, shapes, dtypes and options, without names and weights."""
        texts = []
        for operator in self.operators:
            inputs, outputs = (
                ", ".join("none" if index < 0 else self.forms[index].text for index in indices)
                for indices in (operator.inputs, operator.outputs)
            )
            options = ", ".join(f"{name}={value}" for name, value in operator.options)
            texts.append(f"{operator.kind}({inputs}) -> {outputs}" + (f" {{{options}}}" if options else ""))
        return " + ".join(texts)

    def with_widths(self, widths: Mapping[str, int]) -> OperatorGraph:
        """The operators of the same network with other numbers of channels.

        Args:
            widths: Name of a layer with a kernel -> its output channels. Layers that only pass channels on follow.

        Raises:
            InvalidArgumentError: A layer is unknown or has no output channels of its own, two numbers of channels must
                be equal, or an operator is not supported.
        """
        forms, operators = rewidened(self.forms, self.operators, self.inputs, widths, self.fused)
        return dataclasses.replace(self, forms=forms, operators=operators)

    def cut(self) -> list[OperatorGraph]:
        """The parts that run as one, in order."""
        readers: dict[int, int] = {}
        for index in (*(index for operator in self.operators for index in operator.inputs), *self.outputs):
            readers[index] = readers.get(index, 0) + 1
        parts: dict[int, list[Operator]] = {}  # last output -> operators
        for operator in self.operators:
            before = operator.inputs[0] if operator.inputs else -1
            last = parts[before][-1] if before in parts and readers[before] == 1 else None
            joined = parts.pop(before) if last is not None and self._merges(last, operator) else []
            parts[operator.outputs[0]] = [*joined, operator]
        return [self._part(operators) for operators in parts.values()]

    def _merges(self, first: Operator, second: Operator) -> bool:
        """Whether XNNPACK runs two operators, of which only the second reads the first, as one."""
        if second.kind in _CLAMPS:
            return first.kind in _CLAMPED
        if first.kind != "PAD" or second.kind not in _CONVOLUTIONS or ("padding", "VALID") not in second.options:
            return False
        amounts = self.forms[first.inputs[1]].values
        return amounts is not None and len(amounts) == 8 and not any((*amounts[:2], *amounts[6:]))

    def _part(self, operators: Sequence[Operator]) -> OperatorGraph:
        places: dict[int, int] = {-1: -1}
        for operator in operators:
            for index in (*operator.inputs, *operator.outputs):
                places.setdefault(index, len(places) - 1)
        forms = tuple(self.forms[index] for index in places if index >= 0)
        made = {index for operator in operators for index in operator.outputs}
        inputs = tuple(
            place for index, place in places.items() if index >= 0 and index not in made and not forms[place].constant
        )
        moved = tuple(
            dataclasses.replace(
                operator,
                inputs=tuple(places[index] for index in operator.inputs),
                outputs=tuple(places[index] for index in operator.outputs),
            )
            for operator in operators
        )
        return OperatorGraph(forms, moved, inputs, moved[-1].outputs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        read = {index for operator in self.operators for index in operator.inputs if index >= 0}
        return sum(_bytes(self.forms[index]) for index in read if self.forms[index].constant)

    @property
    def output_bytes(self) -> int:
        """Bytes of all tensors that the operators make."""
        return sum(_bytes(self.forms[index]) for operator in self.operators for index in operator.outputs)

    def content(self, copies: int = 1) -> bytes:
        """A .tflite file of the operators with random weights.

        Args:
            copies: How often the file has all operators (at least 1), each time with weights and outputs of its own.
                All copies read the same inputs.
        """
        return _Writer(self).content(copies)


def _bytes(form: Form) -> int:
    return math.prod(form.shape) * _BYTES.get(form.dtype, 1)


def read_operators(path: str | os.PathLike[str]) -> OperatorGraph:
    """Reads the operators of a .tflite file.

    Raises:
        InvalidArgumentError: `path` is not a file.
        ExportError: The file is not a .tflite file, or is cut off.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    return _parse(_litert_files.content(path), path, {})


def model_operators(model: keras.Model, *, int8: bool = False, seed: int = 0) -> OperatorGraph:
    """Converts a model and reads the operators of the file, which know the layers that they were made of.

    Args:
        model: A Keras 3 model with one input of a fixed size, which `to_litert` can convert.
        int8: Whether to convert it to int8, with ranges from random images: they don't change the time.
        seed: Seed of the images.

    Raises:
        InvalidArgumentError, ExportError, MissingDependencyError: As in `to_litert`.
    """
    model = convertible(model)
    arguments: dict[str, Any] = {"sparse": False}  # which XNNPACK unpacks
    if int8:
        (source,) = model.inputs
        pixels, rng = read_ends(model).takes_pixels, np.random.default_rng(seed)
        shape = (8, *source.shape[1:])
        images = rng.uniform(0, 255, shape) if pixels else rng.normal(size=shape)
        arguments = {"quantization": "int8", "representative_data": images.astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.tflite")
        try:
            graph = read(model)
        except UnreadableModelError:  # a nested model that is called as it is
            to_litert(model, file, **arguments)
            return read_operators(file)
        marked, names = _marked(graph)
        convert_graph(marked, file, **arguments)
        found = _parse(_litert_files.content(file), file, names)
    makers = {call.node.name for call in graph.calls if kind(call.layer).kernel not in (None, "depthwise")}
    return dataclasses.replace(found, fused=frozenset(makers.difference(*(o.layers for o in found.operators))))


def tiny_graph() -> OperatorGraph:
    """An operator with hardly any arithmetic: the ReLU of one value. It takes the time of a call."""
    forms = (Form((1, 1), "FLOAT32"), Form((1, 1), "FLOAT32"))
    operator = Operator("RELU", (0,), (1,), (), (), 1, schema().OperatorT())
    return OperatorGraph(forms, (operator,), (0,), (1,))


def pointwise_graph(side: int, channels: int) -> OperatorGraph:
    """A pointwise convolution of a square map with as many output as input channels, in float32."""
    classes, image = schema(), Form((1, side, side, channels), "FLOAT32")
    kernel, bias = (Form(shape, "FLOAT32", constant=True) for shape in ((channels, 1, 1, channels), (channels,)))
    raw = classes.OperatorT()
    raw.builtinOptions, raw.builtinOptionsType = classes.Conv2DOptionsT(), classes.BuiltinOptions.Conv2DOptions
    raw.builtinOptions.strideH = raw.builtinOptions.strideW = 1
    operator = Operator("CONV_2D", (0, 1, 2), (3,), _options(raw, None, classes), (), 1, raw)
    return OperatorGraph((image, kernel, bias, image), (operator,), (0,), (3,))


def _marked(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """A graph whose layers have names that can be found in a file's, and these names -> the layers' own."""
    marked, names = graph.copy(), dict[str, str]()
    for number, node in enumerate(marked.uses()):
        names[str(number)] = node.name
        node.rename(f"layer{number}x")
    return marked, names


def _parse(content: bytes, source: object, names: Mapping[str, str]) -> OperatorGraph:
    """The operators of a file's content. `names` are those of the layers by the numbers in the file."""
    model, classes = read_model(content, source), schema()
    graph = model.subgraphs[0]
    kinds = _names(classes.BuiltinOperator)
    operators, integers = list[Operator](), set[int]()
    constants = {index for index, tensor in enumerate(graph.tensors) if _data(model, tensor) is not None}
    for raw in graph.operators or ():
        kind = kinds[kind_of(model, raw)]
        inputs = tuple(int(index) for index in (() if raw.inputs is None else raw.inputs))
        outputs = tuple(int(index) for index in raw.outputs)
        if inputs and constants.issuperset(index for index in inputs if index >= 0):
            constants.update(outputs)  # unpacked or converted once, when the interpreter starts
            continue
        integers.update(index for place, index in enumerate(inputs) if place != _BIASES.get(kind))
        found = (names[number] for number in _TOKEN.findall(_name(graph.tensors[outputs[0]])) if number in names)
        layers = tuple(dict.fromkeys(found))
        code = model.operatorCodes[raw.opcodeIndex]
        options = _options(raw, code.customCode, classes)
        operators.append(Operator(kind, inputs, outputs, options, layers, code.version, raw))
    forms = tuple(
        _form(model, tensor, index in constants, index in integers) for index, tensor in enumerate(graph.tensors)
    )
    own, operators = _unshared(forms, operators)
    return OperatorGraph(own, tuple(operators), tuple(map(int, graph.inputs)), tuple(map(int, graph.outputs)))


def _unshared(forms: Sequence[Form], operators: Sequence[Operator]) -> tuple[tuple[Form, ...], list[Operator]]:
    """Gives each operator constants of its own, except for kernels.

    The converter stores equal constants once, such as biases of zeros. Their lengths need not stay equal.
    """
    own, taken, made = list(forms), set[int](), list[Operator]()
    for operator in operators:
        inputs = list(operator.inputs)
        for place, index in enumerate(inputs):
            if index < 0 or not own[index].constant or (operator.kind in _BIASES and place == 1):
                continue
            if index in taken:
                own.append(own[index])
                inputs[place] = len(own) - 1
            taken.add(index)
        made.append(dataclasses.replace(operator, inputs=tuple(inputs)))
    return tuple(own), made


def _name(tensor: Any) -> str:
    name: bytes = tensor.name or b""
    return name.decode(errors="replace")


def _names(enum: type) -> dict[int, str]:
    return {code: name for name, code in vars(enum).items() if isinstance(code, int)}


def _data(model: Any, tensor: Any) -> npt.NDArray[np.uint8] | None:
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data, np.uint8)


def _form(model: Any, tensor: Any, constant: bool, integer: bool) -> Form:
    """What is known of a tensor; of an integer constant other than a bias, also its values."""
    dtype = _names(schema().TensorType)[tensor.type]
    shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
    data = _data(model, tensor)
    values = None
    if constant and integer and dtype in _INTEGERS and data is not None:
        values = tuple(int(value) for value in np.frombuffer(data.tobytes(), _INTEGERS[dtype]))
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return Form(shape, dtype, constant, values)
    axis = int(quantization.quantizedDimension) if len(quantization.scale) > 1 else None
    # One scale for all channels: the time doesn't depend on it, but each kernel only takes some.
    scale, zero = float(np.mean(quantization.scale)), int(quantization.zeroPoint[0])
    return Form(shape, dtype, constant, values, scale, zero, axis)


def _options(raw: Any, custom: bytes | None, classes: Any) -> tuple[tuple[str, Any], ...]:
    """An operator's options by name, without those that no kernel's time depends on."""
    found: dict[str, Any] = {}
    for options in (raw.builtinOptions, raw.builtinOptions2):
        for name, value in {} if options is None else vars(options).items():
            if name in _UNTIMED:
                continue
            if name in _ENUMS:
                value = _names(getattr(classes, _ENUMS[name]))[value]
            found[name] = value if isinstance(value, bool | int | float | str) else repr(value)
    if custom:
        found["customCode"] = custom.decode()
    return tuple(sorted(found.items()))


def _macs(operator: Operator, forms: Sequence[Form]) -> int:
    """Multiply-adds of an operator."""
    shapes = [forms[index].shape if index >= 0 else () for index in operator.inputs]
    made = math.prod(forms[operator.outputs[0]].shape)
    match operator.kind:
        case "CONV_2D":
            return made * math.prod(shapes[1][1:])
        case "DEPTHWISE_CONV_2D":
            return made * math.prod(shapes[1][1:3])
        case "FULLY_CONNECTED":
            return made * shapes[1][-1]
        case "TRANSPOSE_CONV":
            return math.prod(shapes[2]) * math.prod(shapes[1][:3])
        case "BATCH_MATMUL":
            return made * shapes[0][-2 if ("adjX", True) in operator.options else -1]
    return 0


class _Writer:
    """Writes a graph as a file."""

    def __init__(self, graph: OperatorGraph) -> None:
        self.graph, self.classes = graph, schema()
        self.dtypes = {name: code for code, name in _names(self.classes.TensorType).items()}
        self.kinds = {name: code for code, name in _names(self.classes.BuiltinOperator).items()}
        self.model, self.subgraph = self.classes.ModelT(), self.classes.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.subgraph]
        self.model.buffers, self.model.operatorCodes = [self.classes.BufferT()], []
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.codes: dict[tuple[str, int, str | None], int] = {}

    def content(self, copies: int) -> bytes:
        graph = self.graph
        inputs = {index: self.add(graph.forms[index]) for index in graph.inputs}
        outputs: list[int] = []
        for _ in range(copies):
            places = {-1: -1, **inputs}
            for operator in graph.operators:
                for index in (*operator.inputs, *operator.outputs):
                    if index not in places:
                        places[index] = self.add(graph.forms[index])
                self.subgraph.operators.append(self.operator(operator, places))
            outputs += [places[index] for index in graph.outputs]
        self.subgraph.inputs = np.array(list(inputs.values()), np.int32)
        self.subgraph.outputs = np.array(outputs, np.int32)
        size = sum(0 if buffer.data is None else len(buffer.data) for buffer in self.model.buffers)
        return write_model(self.model, size)

    def add(self, form: Form) -> int:
        tensor = self.classes.TensorT()
        tensor.name = f"tensor{len(self.subgraph.tensors)}".encode()
        tensor.shape, tensor.type, tensor.hasRank = np.array(form.shape, np.int32), self.dtypes[form.dtype], True
        if form.scale is not None:
            channels = 1 if form.axis is None else form.shape[form.axis]
            tensor.quantization = self.classes.QuantizationParametersT()
            tensor.quantization.scale = np.full(channels, form.scale, np.float32)
            tensor.quantization.zeroPoint = np.full(channels, form.zero, np.int64)
            tensor.quantization.quantizedDimension = form.axis or 0
        if form.constant:
            buffer = self.classes.BufferT()
            buffer.data = np.frombuffer(_values(form).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def operator(self, operator: Operator, places: Mapping[int, int]) -> Any:
        custom = dict(operator.options).get("customCode")
        code = operator.kind, operator.version, custom
        if code not in self.codes:
            self.codes[code] = len(self.codes)
            entry = self.classes.OperatorCodeT()
            entry.builtinCode, entry.version = self.kinds[operator.kind], operator.version
            entry.customCode = custom and custom.encode()
            entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
            self.model.operatorCodes.append(entry)
        made = copy.copy(operator.raw)
        made.opcodeIndex = self.codes[code]
        made.inputs = np.array([places[index] for index in operator.inputs], np.int32)
        made.outputs = np.array([places[index] for index in operator.outputs], np.int32)
        if operator.kind == "RESHAPE" and made.builtinOptions is not None:
            made.builtinOptions = copy.copy(made.builtinOptions)
            made.builtinOptions.newShape = np.array(self.graph.forms[operator.outputs[0]].shape, np.int32)
        return made


@functools.cache
def _pool() -> npt.NDArray[np.float64]:
    """Random weights, none of them so small that arithmetic with it takes longer."""
    values = np.random.default_rng(0).normal(size=_POOL)
    return values + np.copysign(0.1, values)


def _values(form: Form) -> npt.NDArray[Any]:
    """Values of a constant: those that matter, or random ones."""
    if form.values is not None:
        return np.array(form.values, _INTEGERS[form.dtype])
    size = math.prod(form.shape)
    if form.dtype.startswith("FLOAT"):
        return np.resize(0.1 * _pool(), size).astype(form.dtype.lower())
    dtype = np.dtype(form.dtype.lower())
    return np.clip(np.resize(40 * _pool(), size), -127, 127).astype(dtype)
