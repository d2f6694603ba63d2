"""Operators of a .tflite file, those that an accelerator does not support, memory, and latency on this machine."""

import dataclasses
import math
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keraslight import _litert_files
from keraslight._notebook import Report
from keraslight._timing import interleaved
from keraslight.errors import InvalidArgumentError
from keraslight.export.litert._arena import plan_arena
from keraslight.export.litert._delegates import gpu_problem, nnapi_problem
from keraslight.export.litert._flatbuffer import kind_of, read_model, schema
from keraslight.export.litert._metadata import LiteRTMetadata, read_metadata
from keraslight.export.litert._sparse import SparseInference, sparse_inference

DELEGATES = {"GPU": gpu_problem, "NNAPI": nnapi_problem}


@dataclasses.dataclass(frozen=True)
class LiteRTOperator:
    """One operator of a file.

    Attributes:
        kind: Name of the operator, such as `"CONV_2D"`.
        inputs, outputs: Dtypes of its tensors in order, such as `("INT8", "INT8", "INT32")`.
        name: Name of its first output tensor.
        rank: Largest number of axes of its tensors.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    rank: int

    def problem(self, delegate: str) -> str:
        """Why a delegate, `"GPU"` or `"NNAPI"`, does not support it; "" if it does."""
        return DELEGATES[delegate](self.kind, (*self.inputs, *self.outputs), self.rank)


@dataclasses.dataclass(frozen=True)
class LiteRTReport(Report):
    """Contents of a .tflite file; `str()` is a table.

    Attributes:
        path: The file.
        size: Size of the file, in bytes.
        signatures: Signature name -> (input names, output names).
        operators: All operators of the main graph, in order.
        arena: Bytes that TFLite's planner needs for the tensors between the operators, for the file's batch size (an
            open one counts as 1). Kernels and delegates need additional scratch memory.
        metadata: Description of images and labels, or None.
        sparse: Whether ARM processors run the file by sparse kernels.
    """

    path: Path
    size: int
    signatures: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    operators: tuple[LiteRTOperator, ...]
    arena: int
    metadata: LiteRTMetadata | None
    sparse: SparseInference

    @property
    def float_operators(self) -> tuple[LiteRTOperator, ...]:
        """The operators that read or write floats, without those that only convert at the file's ends."""
        return tuple(
            operator
            for operator in self.operators
            if operator.kind not in ("QUANTIZE", "DEQUANTIZE")
            and any(dtype.startswith("FLOAT") for dtype in (*operator.inputs, *operator.outputs))
        )

    def left_to_cpu(self, delegate: str) -> tuple[LiteRTOperator, ...]:
        """The operators that a delegate, `"GPU"` or `"NNAPI"`, does not support.

        Raises:
            InvalidArgumentError: `delegate` is unknown.
        """
        if delegate not in DELEGATES:
            raise InvalidArgumentError(f"`delegate` must be one of {tuple(DELEGATES)}. Received: {delegate!r}.")
        return tuple(operator for operator in self.operators if operator.problem(delegate))

    def __str__(self) -> str:
        floats = Counter(operator.kind for operator in self.float_operators)
        lines = [f"{self.path} ({self.size:,} bytes, tensor arena {self.arena:,} bytes)"]
        lines += [f"  {name}: {', '.join(ins)} -> {', '.join(outs)}" for name, (ins, outs) in self.signatures.items()]
        for kind, count in sorted(Counter(operator.kind for operator in self.operators).items()):
            lines.append(f"  {count:>4}  {kind}" + (f"  ({floats[kind]} in float)" if floats[kind] else ""))
        for delegate in DELEGATES:
            kinds = Counter(operator.kind for operator in self.left_to_cpu(delegate))
            left = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            lines.append(f"  {delegate} delegate leaves to the CPU: {left or 'nothing'}")
        return "\n".join([*lines, f"  {self.sparse}"])


def litert_report(path: str | os.PathLike[str]) -> LiteRTReport:
    """Reads the operators of a .tflite file, their dtypes, and the memory that they need.

    The file itself is read rather than an interpreter, whose delegates replace operators by their own.

    Raises:
        InvalidArgumentError: `path` is not a file.
        ExportError: The file is not a .tflite file, or is cut off.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    path = Path(path)
    content = _litert_files.content(path)
    model, classes = read_model(content, path), schema()
    kinds = {code: name for name, code in vars(classes.BuiltinOperator).items() if isinstance(code, int)}
    dtypes = {code: name for name, code in vars(classes.TensorType).items() if isinstance(code, int)}
    graph = model.subgraphs[0]

    def dtypes_of(indices: Iterable[int]) -> tuple[str, ...]:
        return tuple(dtypes[graph.tensors[index].type] for index in indices if index >= 0)  # -1: missing (no bias)

    operators = []
    for operator in graph.operators:
        inputs, outputs = (dtypes_of(indices) for indices in (operator.inputs, operator.outputs))
        name = graph.tensors[operator.outputs[0]].name.decode()
        tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
        rank = max(len(_shape(tensor)) for tensor in tensors)
        operators.append(LiteRTOperator(kinds[kind_of(model, operator)], inputs, outputs, name, rank))

    def names(entries: Iterable[Any]) -> tuple[str, ...]:
        return tuple(entry.name.decode() for entry in entries)

    signatures = {
        signature.signatureKey.decode(): (names(signature.inputs), names(signature.outputs))
        for signature in model.signatureDefs or ()
    }
    arena, sparse = _arena(model, dtypes), sparse_inference(model)
    return LiteRTReport(path, len(content), signatures, tuple(operators), arena, read_metadata(path), sparse)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


_BYTES = {"FLOAT32": 4, "INT32": 4, "UINT32": 4, "FLOAT16": 2, "INT16": 2, "INT64": 8, "FLOAT64": 8}


def _arena(model: Any, dtypes: dict[int, str]) -> int:
    """Bytes of the main graph's tensors that are neither weights nor constants."""
    graph = model.subgraphs[0]
    first = dict.fromkeys(graph.inputs, 0)
    # An app may read its input again, so the planner keeps it.
    last = dict.fromkeys((*graph.inputs, *graph.outputs), len(graph.operators))
    for position, operator in enumerate(graph.operators):
        first.update(dict.fromkeys(operator.outputs, position))
        for index in (*operator.inputs, *operator.outputs):
            last[index] = max(last.get(index, 0), position)

    def size(tensor: Any) -> int:
        return math.prod(_shape(tensor)) * _BYTES.get(dtypes[tensor.type], 1)

    return plan_arena([(size(graph.tensors[index]), begins, last[index]) for index, begins in first.items()]).size


def litert_latency(
    path: str | os.PathLike[str], threads: Sequence[int] = (1,), *, repeats: int = 50, seed: int = 0
) -> dict[int, float]:
    """Measures the latency of a .tflite file on this machine, for its fixed batch size.

    Args:
        path: The file.
        threads: Numbers of threads to try, each at least 1. They run in turn, so that a disturbance affects all.
        repeats: Timed runs per number of threads, at least 1, after one that is not timed.
        seed: Seed of the random input and of the order.

    Returns:
        Number of threads -> median milliseconds per run.

    Raises:
        InvalidArgumentError: A number is below 1, `threads` is empty, or `path` is not a file.
        ExportError: The file is not a .tflite file, or LiteRT can't run it.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    if not threads or min(threads) < 1:
        raise InvalidArgumentError(f"`threads` must be numbers of at least 1. Received: {tuple(threads)}.")
    if repeats < 1:
        raise InvalidArgumentError(f"`repeats` must be at least 1. Received: {repeats}.")
    rng = np.random.default_rng(seed)
    runs: dict[int, Callable[[], Any]] = {}
    for count in threads:
        interpreter = _litert_files.interpreter(path, count)
        for entry in interpreter.get_input_details():
            pixels = rng.integers(0, 128, entry["shape"])  # in the range of every dtype
            interpreter.set_tensor(entry["index"], pixels.astype(entry["dtype"]))
        runs[count] = interpreter.invoke
    return {count: statistics.median(times) for count, times in interleaved(runs, repeats, rng).items()}
