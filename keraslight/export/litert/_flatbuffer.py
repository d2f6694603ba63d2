"""Reads .tflite files into objects that can be changed, and writes them."""

import struct
from typing import Any

import flatbuffers
import numpy as np

from keraslight.errors import ExportError, MissingDependencyError


def schema() -> Any:
    """The classes of TFLite's schema, from ai-edge-litert."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingDependencyError(
            "Reading and changing a .tflite file needs ai-edge-litert: pip install 'keraslight[export]'. "
            f"Received: {error}."
        ) from error
    return schema_py_generated


def read_model(content: bytes, source: object = "bytes without it") -> Any:
    """A file's content as the schema's `ModelT`; ExportError, which names `source`, if it is cut off."""
    classes = schema()
    try:
        return classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    except (struct.error, TypeError, ValueError, IndexError) as error:  # of offsets that lead out of the file
        raise ExportError(f"A LiteRT file must be complete. Received: {source}; reading it: {error}.") from error


def kind_of(model: Any, operator: Any) -> int:
    """An operator's `BuiltinOperator`."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)  # old files only have the second


def attach(model: Any, name: str, data: bytes) -> None:
    """Adds a metadata entry to a `ModelT`, and the buffer that it refers to."""
    buffer, entry = schema().BufferT(), schema().MetadataT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def write_model(model: Any, size: int) -> bytes:
    """The bytes of a `ModelT`'s file, without what may follow it (labels). Weights start at multiples of 16 bytes.

    `size` is an estimate of the size in bytes; the buffer grows as needed.
    """
    builder = _AlignedBuilder(size + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Starts every vector at a multiple of 16 bytes.

    The schema requires it (force_align), and kernels read weights as vectors; the generated Python code aligns to one.
    """

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        return super().StartVector(elemSize, numElems, max(alignment, 16))
