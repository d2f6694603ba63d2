"""Float16 weights in a .tflite file, except for the few that the outputs depend on most.

A float16 number has 11 significant bits, so every weight is off by up to 2^-12 of its value, and a logit by the sum of
all layers' contributions. A layer's contribution hardly depends on its number of weights: where a thousand are summed
up, their errors cancel. So most of the error comes from constants that take hardly any space: biases, the first
convolutions, depthwise ones. The smallest constants, up to 8% of all bytes, stay in float32, which makes the file 8%
larger. For eight small nets trained on digits, the largest error of a probability over 397 images was 0.0010 to 0.0047
in the converter's own float16 file, which halves everything; docs/litert.md has the figures for this one. With 3% the
largest was 0.0023, with 6% 0.0021.

Tried there without gain: error diffusion, which passes each weight's rounding error on to the next weight of its
channel, so that the errors of a window cancel. Compensating with the covariance of real inputs (GPTQ, Frantar et al.,
https://arxiv.org/abs/2210.17323) halves the error of a logit, but needs images.
"""

import copy
from collections import defaultdict
from typing import Any

import numpy as np

from keraslight.export.litert._flatbuffer import attach, kind_of, read_model, schema, write_model

FLOAT32_SHARE = 0.08
"""Largest share of the constants' bytes, before halving, that stays in float32."""

_DEQUANTIZE_VERSION = 3  # the first that reads float16
_PRECISION = 2.0**-11  # relative to a constant's norm; it is worse beyond 65,504 and below 6e-5


def halve_weights(content: bytes) -> bytes:
    """Converts the large constants of a float32 .tflite file to float16.

    The interpreter converts them back to float32 when it starts, by DEQUANTIZE operators, as for the converter's own
    float16 files. Constants with values beyond float16's 65,504, or with nearly all of them below its 6e-5, stay
    float32. Sparse constants stay sparse.
    """
    classes = schema()
    model = read_model(content)
    chosen = _to_halve(model, classes)
    for index in chosen:
        values = _floats(model.buffers[index]).astype(np.float16)
        model.buffers[index].data = np.frombuffer(values.tobytes(), np.uint8)
    code = classes.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = classes.BuiltinOperator.DEQUANTIZE
    code.version = _DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    for graph in model.subgraphs:
        _dequantize(graph, model, chosen, classes)
    # As the converter writes it for float16: an ARM CPU or a GPU with float16 arithmetic may compute in it, too.
    attach(model, "reduced_precision_support", b"fp16accfp32")
    return write_model(model, len(content) // 2)


def _floats(buffer: Any) -> np.ndarray:
    return np.frombuffer(buffer.data.tobytes(), np.float32)


def _to_halve(model: Any, classes: Any) -> set[int]:
    """The buffers to halve: all float32 constants except for the smallest."""
    dtypes, fixed = defaultdict(set), {0}  # buffer 0 is the empty one
    for graph in model.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            dtypes[tensor.buffer].add(tensor.type)
            if index in (*graph.inputs, *graph.outputs):
                fixed.add(tensor.buffer)

    sizes = {
        index: len(model.buffers[index].data)
        for index, found in dtypes.items()
        if found == {classes.TensorType.FLOAT32} and model.buffers[index].data is not None
    }
    kept, allowed = 0, FLOAT32_SHARE * sum(sizes.values())
    chosen = set()
    for index in sorted(sizes, key=lambda index: sizes[index]):
        kept += sizes[index]
        if kept > allowed and index not in fixed and _fits(_floats(model.buffers[index])):
            chosen.add(index)
    return chosen


def _fits(values: np.ndarray) -> bool:
    """Whether constants lose no more than float16's own precision."""
    with np.errstate(over="ignore"):  # to infinity: then they don't fit
        lost = values - values.astype(np.float16).astype(np.float64)
    return bool(np.linalg.norm(lost) <= _PRECISION * np.linalg.norm(values.astype(np.float64)))


def _dequantize(graph: Any, model: Any, chosen: set[int], classes: Any) -> None:
    """Adds operators in front of all others that convert the halved constants to float32 for their readers."""
    constants = {index for index, tensor in enumerate(graph.tensors) if tensor.buffer in chosen}
    unpacking = [op for op in graph.operators if kind_of(model, op) == classes.BuiltinOperator.DENSIFY]
    # A sparse constant is only read by DENSIFY, which keeps the dtype: its output is the float16 constant then.
    unpacked = {operator.inputs[0]: operator.outputs[0] for operator in unpacking}
    places, operators = {}, []
    for index in sorted(constants):
        source = unpacked.get(index, index)
        restored = copy.copy(graph.tensors[source])
        restored.type, restored.buffer = classes.TensorType.FLOAT32, 0
        restored.name += b"/float32"
        graph.tensors[index].type = graph.tensors[source].type = classes.TensorType.FLOAT16
        graph.tensors.append(restored)
        places[source] = len(graph.tensors) - 1
        operator = classes.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs = np.asarray([source], np.int32)
        operator.outputs = np.asarray([places[source]], np.int32)
        operators.append(operator)
    rest = [operator for operator in graph.operators if operator not in unpacking]
    for operator in rest:
        if operator.inputs is not None:
            operator.inputs = np.asarray([places.get(index, index) for index in operator.inputs], np.int32)
    graph.operators = [*unpacking, *operators, *rest]
