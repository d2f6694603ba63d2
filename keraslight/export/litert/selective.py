"""Int8 .tflite files in which some operators stay float."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keraslight import _litert_files
from keraslight._files import write_file
from keraslight.errors import InvalidArgumentError
from keraslight.export._frozen import Network, check_convertible, refusals
from keraslight.export.litert._flatbuffer import read_model
from keraslight.export.litert._report import litert_report
from keraslight.export.litert.convert import DTYPES, calibrated
from keraslight.graph import Graph

# Operators that only move or choose values. Int8 is exact there, but only if their input is int8 anyway: rounding a
# float tensor in order to pad it would cost what leaving its layers in float is meant to save.
MOVES = (
    *("RESHAPE", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "SQUEEZE"),
    *("EXPAND_DIMS", "GATHER", "MAX_POOL_2D", "PACK", "UNPACK"),
)


class CalibratedModel:
    """A converted float model with the range of every tensor, from which any mix of int8 and float can be written.

    Conversion and calibration take seconds and happen once; each mix then takes about 50 milliseconds. These are the
    two halves of what the converter does for `to_litert(..., quantization="int8")`; TensorFlow's own
    `QuantizationDebugger` splits it at the same place.

    Args:
        graph: A graph with one input (B, H, W, C) and one output. It is not changed.
        representative_data, batch_size: As in `to_litert`.
        pixels: Whether the graph takes raw pixels, for one whose normalization has been folded away; None looks for it.

    Attributes:
        operators: The operators in order, all in float.
        always_float: Names of those that stay float in every file.

    Raises:
        ExportError: The graph has several inputs or outputs, or the converter does not support it.
    """

    def __init__(
        self, graph: Graph, representative_data: Any, batch_size: int | None = 1, pixels: bool | None = None
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1, or None. Received: {batch_size}.")
        check_convertible(Network.of_graph(graph))
        self._name = graph.name
        self._calibrated = calibrated(graph, representative_data, batch_size, pixels)
        self.always_float = self._calibrated.floats
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "calibrated.tflite")
            file.write_bytes(self._calibrated.content)
            self.operators = litert_report(file).operators
        self._sources = _sources(self._calibrated.content)

    def write(
        self,
        path: str | os.PathLike[str],
        floats: Iterable[str] = (),
        *,
        input_dtype: str = "float32",
        output_dtype: str = "float32",
    ) -> Path:
        """Writes a file that is int8 except for the operators whose `name` is in `floats`.

        Operators that only move values are float if their input is, or at the file's input if all their readers are.

        Raises:
            InvalidArgumentError: A dtype is unknown, or not available because the operator there stays float.
            ExportError: The converter does not support the mix.
        """
        dtypes = {"input_dtype": input_dtype, "output_dtype": output_dtype}
        for argument, dtype in dtypes.items():
            if dtype not in DTYPES:
                raise InvalidArgumentError(f"`{argument}` must be one of {DTYPES}. Received: {dtype!r}.")
        floats = self._with_moves(set(floats))
        with refusals(self._name):
            content = self._calibrated.quantized(input_dtype, output_dtype, floats)

        def check(file: Path) -> None:
            # If an end is float, the converter leaves it so and only logs a note.
            interpreter = _litert_files.interpreter(file, 1)
            ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
            for (argument, dtype), end in zip(dtypes.items(), ends, strict=True):
                if end["dtype"] is not getattr(np, dtype):
                    raise InvalidArgumentError(
                        f"`{argument}` must be 'float32' where the file's operator there stays float. "
                        f"Received: {argument}={dtype!r}, floats={sorted(floats)}."
                    )

        return write_file(Path(path), content, check)

    def _with_moves(self, floats: set[str]) -> set[str]:
        """The operators, and those that only move their values."""
        at_input: list[str] = []
        readers: dict[str, set[str]] = {name: set() for name in self._sources}
        for operator in self.operators:
            sources = self._sources[operator.name]
            for source in sources:
                if source is not None:
                    readers[source].add(operator.name)
            if operator.kind not in MOVES:
                continue
            if sources <= {None, *at_input}:
                at_input.append(operator.name)
            elif sources & floats:
                floats.add(operator.name)
        for name in reversed(at_input):
            if readers[name] and readers[name] <= floats:
                floats.add(name)
        return floats


def _sources(content: bytes) -> dict[str, set[str | None]]:
    """Operator -> the operators whose outputs it reads, by the names of their first outputs; None is the input."""
    graph = read_model(content).subgraphs[0]
    makers: dict[int, str | None] = dict.fromkeys(graph.inputs)
    found = {}
    for operator in graph.operators:
        name = graph.tensors[operator.outputs[0]].name.decode()
        found[name] = {makers[index] for index in operator.inputs if index in makers}  # the rest are constants
        makers.update(dict.fromkeys(operator.outputs, name))
    return found
