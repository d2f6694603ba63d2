"""Reads .tflite files into objects that can be changed, and writes them."""

from typing import Any

import flatbuffers

from keraslight.errors import ExportError, MissingDependencyError


def schema() -> Any:
    """The classes of TFLite's schema.

    Raises:
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingDependencyError(
            "Reading and changing a .tflite file needs ai-edge-litert: pip install 'keraslight[export]'. "
            f"Received: {error}."
        ) from error
    return schema_py_generated


def read_model(content: bytes, source: object = "bytes without it") -> Any:
    """A file's content as the schema's `ModelT`.

    Args:
        content: The file's bytes.
        source: Name for error messages, such as the file's path.

    Raises:
        ExportError: The content is not a .tflite file.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    classes = schema()
    if content[4:8] != b"TFL3":
        raise ExportError(f"A LiteRT file must have the identifier TFL3. Received: {source}.")
    return classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))


def write_model(model: Any, size: int) -> bytes:
    """The bytes of a file, without what may follow it (labels). Weights start at multiples of 16 bytes.

    Args:
        model: A `ModelT`.
        size: Estimate of the size in bytes; the buffer grows as needed.
    """
    builder = _AlignedBuilder(size + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Starts every vector at a multiple of 16 bytes.

    The schema requires it (force_align), and kernels read weights as vectors; but the generated Python code aligns a
    buffer of bytes to one byte.
    """

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        return super().StartVector(elemSize, numElems, max(alignment, 16))
