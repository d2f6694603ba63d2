"""Int8 by calibration: a converted float model with the range of every tensor, from which int8 files are written.

TFLite's converter does this in one go. Here its two halves are apart (TensorFlow's own `QuantizationDebugger` splits it
at the same place), because what lies between them has to be put right first:

- The input of a model that takes raw pixels has the range 0..255, whatever the samples were.
- A tensor that is zero on all samples has a range that the interpreter refuses (XNNPACK prepares no operator whose
  output is too fine for its inputs); it gets one that its inputs give.
- Padding below all values, which maximum pooling never chooses, would take all steps for itself. It becomes the lowest
  value of the range.
- Operators with `FLOAT_SCOPE` in their names stay float.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from keraslight_serving.startup import quiet

from keraslight.errors import ExportError
from keraslight.export.litert._flatbuffer import kind_of, read_model, schema, write_model
from keraslight.rewrite.xnnpack import FLOAT_SCOPE

_BEYOND = 1e37  # the converter writes infinity as the largest float
_ROWS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
_PRODUCTS = {"MUL", "BATCH_MATMUL"}
_SUMS = {"ADD", "SUB"}
# Never finer than what they read, because they multiply by no more than 1.
_TAME = {
    *("LEAKY_RELU", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "RESIZE_BILINEAR", "MAXIMUM", "MINIMUM"),
    *("ABS", "NEG", "QUANTIZE"),
}
_SAME = {
    *("RESHAPE", "TRANSPOSE", "PAD", "MIRROR_PAD", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "SQUEEZE"),
    *("EXPAND_DIMS", "GATHER", "PACK", "UNPACK", "CONCATENATION", "PADV2", "RESIZE_NEAREST_NEIGHBOR"),
}
_CHOICES = {"MAXIMUM", "MINIMUM", "SELECT", "SELECT_V2"}
_MAXIMA = {"MAX_POOL_2D", "REDUCE_MAX"}
_RATIO = 64  # of an input's step to the output's; XNNPACK refuses 256
_SUM_RATIO = 512  # of a sum's step to that of a summand; XNNPACK refuses 1024. Less than half a step of the sum is lost


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A converted float model with the range of every tensor.

    Attributes:
        content: The file's bytes.
        floats: Names of the operators, by their first outputs, that stay float in any int8 file.
    """

    content: bytes
    floats: tuple[str, ...]

    def quantized(self, input_dtype: str, output_dtype: str, floats: Iterable[str] = ()) -> bytes:
        """An int8 file in which the operators of these names are float, too."""
        import tensorflow as tf
        from tensorflow.lite.python.convert import deduplicate_readonly_buffers, mlir_quantize
        from tensorflow.lite.python.util import modify_model_io_type

        names = sorted({*self.floats, *floats})
        with quiet():
            content = mlir_quantize(self.content, denylisted_nodes=names or None)
        content = modify_model_io_type(content, tf.as_dtype(input_dtype), tf.as_dtype(output_dtype))
        deduplicated: bytes = deduplicate_readonly_buffers(content)
        return deduplicated


def settled(content: bytes, paths: Mapping[str, str], *, pixels: bool) -> Calibrated:
    """Puts a calibrated model's ranges right.

    Args:
        content: What the converter made of a float model and samples.
        paths: Output -> the path of the operation that makes it, because the file only has the output's own name.
        pixels: Whether the input's range is 0..255.

    Raises:
        ExportError: A layer's outputs on the samples are not finite, or so far apart that int8 keeps nothing of them.
    """
    ranges = _Ranges(read_model(content), paths)
    if pixels:
        for index in ranges.graph.inputs:
            ranges[index] = 0.0, 255.0
    ranges.forget_floats()
    ranges.clip_padding()
    ranges.require_finite()
    ranges.widen()
    changed = write_model(ranges.model, len(content)) if ranges.changed else content
    return Calibrated(changed, tuple(name for name, _ in ranges.floats()))


class _Ranges:
    """The ranges of a calibrated model's tensors, by the tensors' indices."""

    def __init__(self, model: Any, paths: Mapping[str, str]) -> None:
        self.model, self.graph, self.changed = model, model.subgraphs[0], False
        kinds = {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}
        self.operators = [(kinds[kind_of(model, operator)], operator) for operator in self.graph.operators or ()]
        self.readers: dict[int, list[tuple[str, Any]]] = {}
        for kind, operator in self.operators:
            for index in operator.inputs:
                self.readers.setdefault(index, []).append((kind, operator))
        outputs = {output.tensorIndex: output.name.decode() for output in model.signatureDefs[0].outputs}
        self.paths = {index: paths[name] for index, name in outputs.items() if name in paths}
        self.ends = set(outputs)

    def __contains__(self, index: int) -> bool:
        quantization = self.graph.tensors[index].quantization if index >= 0 else None
        return quantization is not None and quantization.min is not None and len(quantization.min) == 1

    def __getitem__(self, index: int) -> tuple[float, float]:
        quantization = self.graph.tensors[index].quantization
        return float(quantization.min[0]), float(quantization.max[0])

    def __setitem__(self, index: int, value: tuple[float, float]) -> None:
        if index not in self or value == self[index]:
            return
        quantization = self.graph.tensors[index].quantization
        quantization.min, quantization.max = (np.array([end], np.float32) for end in value)
        self.changed = True

    def width(self, index: int) -> float:
        """The range with 0 in it, as the file's steps cover it."""
        low, high = self[index]
        return max(high, 0.0) - min(low, 0.0)

    def path(self, index: int) -> str:
        """Path of the operation that makes a tensor, such as `net/conv_1/Relu`."""
        name: str = self.paths.get(index, self.graph.tensors[index].name.decode())
        return name.split(";", 1)[0]

    def floats(self) -> Iterable[tuple[str, Any]]:
        """The operators that stay float, with their names."""
        for _, operator in self.operators:
            if FLOAT_SCOPE in self.path(operator.outputs[0]).split("/"):
                yield self.graph.tensors[operator.outputs[0]].name.decode(), operator

    def forget_floats(self) -> None:
        """Removes the ranges of tensors between float operators: the converter would give some to int8 tensors."""
        floats = [operator for _, operator in self.floats()]
        for operator in floats:
            for index in operator.outputs:
                readers = [reader for _, reader in self.readers.get(index, ())]
                if index in self and readers and all(any(reader is each for each in floats) for reader in readers):
                    self.graph.tensors[index].quantization = None
                    self.changed = True

    def constant(self, index: int) -> np.ndarray | None:
        """Values of a float32 constant."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type != schema().TensorType.FLOAT32:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32)

    def clip_padding(self) -> None:
        """Constants that are joined to values lie in the range of these where only a maximum can look at them."""
        for kind, operator in self.operators:
            if kind not in ("PADV2", "CONCATENATION", "SELECT", "SELECT_V2", "MAXIMUM"):
                continue
            given = [operator.inputs[0], operator.inputs[2]] if kind == "PADV2" else list(operator.inputs)
            constants = {index: values for index in given if (values := self.constant(index)) is not None}
            data = [self[index] for index in given if index not in constants and index in self]
            if not constants or not data:
                continue
            low, high = min(low for low, _ in data), max(high for _, high in data)
            lowest = min(float(values.min()) for values in constants.values())
            highest = max(float(values.max()) for values in constants.values())
            (output,) = operator.outputs
            if lowest < low and highest <= high and (behind := self.only_maxima(output)) is not None:
                for index, values in constants.items():
                    self.replace(index, operator, np.maximum(values, low))
                for index in behind:
                    self[index] = max(self[index][0], low), self[index][1]
            elif max(high, 0.0) - min(low, 0.0) < (max(highest, high, 0.0) - min(lowest, low, 0.0)) / 255:
                raise ExportError(
                    "What an int8 file pads or replaces values with must lie near them: all values share 256 steps. "
                    f"Received: constants from {lowest:g} to {highest:g} at {self.path(output)!r}, for values from "
                    f"{low:g} to {high:g}. Only maximum pooling may follow any lower constant."
                )

    def only_maxima(self, index: int) -> list[int] | None:
        """The tensors from this one to the maxima, without them, if nothing else can see its lowest values."""
        if index in self.ends:
            return None
        found = [index]
        for kind, operator in self.readers.get(index, ()):
            if kind in _MAXIMA:
                continue
            behind = self.only_maxima(operator.outputs[0]) if kind in _SAME and len(operator.outputs) == 1 else None
            if behind is None:
                return None
            found += behind
        return found

    def replace(self, index: int, operator: Any, values: np.ndarray) -> None:
        """Gives an operator a constant of its own."""
        old, buffer = self.graph.tensors[index], schema().BufferT()
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor = copy.copy(old)
        tensor.buffer, tensor.name = len(self.model.buffers) - 1, old.name + b"_clipped"
        self.graph.tensors.append(tensor)
        new = len(self.graph.tensors) - 1
        operator.inputs = np.array([new if i == index else i for i in operator.inputs], np.int32)
        self.changed = True

    def require_finite(self) -> None:
        for _, operator in self.operators:
            for index in operator.outputs:
                if index not in self:
                    continue
                low, high = self[index]
                if not (-_BEYOND < low <= high < _BEYOND):
                    raise ExportError(
                        "Every layer of a model to quantize must give finite values on the samples. Received: "
                        f"infinity or NaN at {self.path(index)!r}."
                    )

    def widen(self) -> None:
        """Widens the ranges of which the interpreter prepares no operator; no value loses a step that it had."""
        for kind, operator in self.operators:
            if kind in _CHOICES:
                self.cover_shared(operator)
            inputs = [index for index in operator.inputs if index in self]
            for index in operator.outputs:
                if index in self:
                    self.at_least(index, self.lowest_width(kind, operator, inputs))
                    if not self.width(index) > 0:  # zero on all samples
                        self.at_least(index, max(map(self.width, inputs), default=0.0) or 1.0)
        for kind, operator in reversed(self.operators):
            if kind in _SUMS and operator.outputs[0] in self:
                for index in operator.inputs:
                    if index in self and self.constant(index) is None:
                        self.at_least(index, self.width(operator.outputs[0]) / _SUM_RATIO)

    def cover_shared(self, operator: Any) -> None:
        """Widens a choice among tensors to all of a tensor that others read, too.

        The converter gives all tensors of such an operator the output's scale, which would cut what the others read.
        """
        for index in operator.inputs:
            shared = index in self.graph.inputs or index in self.ends or len(self.readers[index]) > 1
            if index in self and shared and self.constant(index) is None:
                for output in operator.outputs:
                    if output in self:
                        (low, high), (lowest, highest) = self[output], self[index]
                        self[output] = min(low, lowest), max(high, highest)

    def at_least(self, index: int, width: float) -> None:
        have = self.width(index)
        if have >= width:
            return
        low, high = self[index]
        if have > 0:
            self[index] = min(low, 0.0) * width / have, max(high, 0.0) * width / have
        else:
            self[index] = 0.0, width

    def lowest_width(self, kind: str, operator: Any, inputs: list[int]) -> float:
        if not inputs:
            return 0.0
        if kind in _ROWS:
            data, kernel = operator.inputs[0 if kind != "TRANSPOSE_CONV" else 2], self.constant(operator.inputs[1])
            if kernel is None or data not in self:
                return 0.0
            return self.width(data) * float(np.abs(kernel).max()) / 127 / _RATIO
        widths = [self.width(index) for index in inputs]
        if kind in _PRODUCTS:
            factors = [values for i in operator.inputs if i not in inputs and (values := self.constant(i)) is not None]
            return float(np.prod(widths + [np.abs(values).max() for values in factors])) / 255 / _RATIO
        return max(widths) / _RATIO if kind in _TAME or kind in _SUMS else 0.0
