"""TFLite Metadata: the description of images and classes in a .tflite file, for MediaPipe Tasks and LiteRT on Android.

Source of the layout: metadata_schema.fbs of TFLite Support and MediaPipe (schema 1.5.0). The metadata is a
separate FlatBuffer in one of the model's buffers; the files that it names, here the labels, follow the model as a zip
archive. The packages that could write it can't be installed next to this one (mediapipe and
tensorflow-model-optimization need different versions of absl-py, tflite-support has no release for current Python), and
it is only a few small tables, so they are written by hand.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import flatbuffers
import numpy as np

from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export._frozen import OUTPUT_NAME
from keraslight.export.litert._flatbuffer import read_model, schema, write_model

BUFFER_NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first version of the schema has all that is written here
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_COLOR_SPACES = {3: 1, 1: 2}  # channels -> ColorSpaceType: RGB, GRAYSCALE
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1  # members of the union ContentProperties
_NORMALIZATION_OPTIONS = 1  # member of the union ProcessUnitOptions


class LiteRTMetadata(NamedTuple):
    """The metadata of a file.

    Attributes:
        name, description: Name and description of the model.
        labels: Class names, in the order of the outputs; empty if the file has none.
        mean, std: A float32 input is `(pixel - mean) / std` of pixels 0..255; one value per channel.
        color_space: `"RGB"` or `"GRAYSCALE"`, or `"UNKNOWN"`.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color_space: str


def add_metadata(content: bytes, *, name: str, description: str, labels: Sequence[str]) -> bytes:
    """Writes metadata into a .tflite file that takes raw pixels 0..255 and returns one score per class.

    If a file has several outputs, the probabilities become the first one, where MediaPipe looks for scores; the
    signature does not change. The others are described by their names only.

    Args:
        content: The file's bytes, without metadata.
        name, description: Name and description of the model, for users.
        labels: One name per class, without line breaks, in the order of the outputs.

    Returns:
        The bytes of a file with metadata. Its weights start at multiples of 16 bytes, as the converter's do.

    Raises:
        InvalidArgumentError: The labels don't fit the file's output.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    names = {entry.tensorIndex: entry.name.decode() for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.asarray(sorted(graph.outputs, key=lambda index: names.get(index) != OUTPUT_NAME), np.int32)
    others = [names.get(index, "") for index in graph.outputs[1:]]
    classes = graph.tensors[graph.outputs[0]].shape[-1]
    if len(labels) != classes:
        raise InvalidArgumentError(
            f"`labels` must name every class once. Received: {len(labels)} labels for {classes} classes."
        )
    if any("\n" in label for label in labels):
        raise InvalidArgumentError("`labels` are written one per line. Received: a label with a line break.")

    channels = int(graph.tensors[graph.inputs[0]].shape[-1])
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(_metadata(name, description, channels, others), np.uint8)
    model.buffers.append(buffer)
    entry = schema().MetadataT()
    entry.name, entry.buffer = BUFFER_NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    file = io.BytesIO(write_model(model, len(content)))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # stored: readers map the file into memory
        # A fixed date, so that the same model always makes the same file.
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, (1980, 1, 1, 0, 0, 0)), "".join(f"{label}\n" for label in labels))
    return file.getvalue()


def read_metadata(path: str | os.PathLike[str]) -> LiteRTMetadata | None:
    """Reads the metadata of a .tflite file.

    Returns:
        The metadata of the first input and output, or None if the file has none.

    Raises:
        ExportError: The file is not a .tflite file, or its metadata can't be read.
    """
    content = Path(path).read_bytes()
    model = read_model(content, path)
    buffers = [entry.buffer for entry in model.metadata or [] if entry.name.decode() == BUFFER_NAME]
    if not buffers:
        return None
    root = _Reader.root(bytes(model.buffers[buffers[0]].data))
    graph = root.tables(3)[0]
    image = graph.tables(2)[0]
    units = [unit.table(1) for unit in image.tables(4)]
    properties = image.table(3).table(1)
    names = [file.text(0) for tensor in graph.tables(3) for file in tensor.tables(6)]
    labels: tuple[str, ...] = ()
    if names:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                labels = tuple(archive.read(names[0]).decode().splitlines())
        except (zipfile.BadZipFile, KeyError) as error:
            raise ExportError(
                f"The metadata of a LiteRT file must bring its label file. Received: {path}: {error}."
            ) from error
    return LiteRTMetadata(
        root.text(0),
        root.text(1),
        labels,
        units[0].floats(0) if units else (),
        units[0].floats(1) if units else (),
        ("UNKNOWN", "RGB", "GRAYSCALE")[properties.byte(0)],
    )


class _Table(dict[int, "Field"]):
    """A FlatBuffers table to write: slot -> writer of the field's value."""


def _metadata(name: str, description: str, channels: int, others: Sequence[str]) -> bytes:
    pixels = _Table({0: _floats([0.0] * channels), 1: _floats([1.0] * channels)})
    image = _Table(
        {
            0: _text("image"),
            1: _text("Raw pixels 0..255; the model normalizes them itself."),
            3: _table(
                _Table(
                    {
                        0: _byte(_IMAGE_PROPERTIES),
                        1: _table(_Table({0: _byte(_COLOR_SPACES.get(channels, 0))})),
                    }
                )
            ),
            4: _tables([_Table({0: _byte(_NORMALIZATION_OPTIONS), 1: _table(pixels)})]),
            5: _table(_Table({0: _floats([255.0] * channels), 1: _floats([0.0] * channels)})),
        }
    )
    labels = _Table({0: _text(LABELS_FILE), 1: _text("One class per line."), 2: _byte(_TENSOR_AXIS_LABELS)})
    features = _table(_Table({0: _byte(_FEATURE_PROPERTIES), 1: _table(_Table())}))
    scores = _Table(
        {
            0: _text("probability"),
            1: _text("One score per class."),
            3: features,
            5: _table(_Table({0: _floats([1.0]), 1: _floats([0.0])})),
            6: _tables([labels]),
        }
    )
    rest = [_Table({0: _text(other), 3: features}) for other in others]
    root = _Table(
        {
            0: _text(name),
            1: _text(description),
            3: _tables([_Table({2: _tables([image]), 3: _tables([scores, *rest])})]),
            7: _text(_PARSER_VERSION),
        }
    )
    builder = flatbuffers.Builder()
    builder.Finish(_write_table(builder, root), _IDENTIFIER)
    return bytes(builder.Output())


Field = Callable[[flatbuffers.Builder], Callable[[int], None]]
"""Writes what a field refers to, and returns a function that puts the field into its table's slot."""


def _write_table(builder: flatbuffers.Builder, table: _Table) -> int:
    # Everything that a table refers to must be finished before the table is started.
    placed = {slot: field(builder) for slot, field in table.items()}
    builder.StartObject(max(table, default=-1) + 1)
    for slot, place in placed.items():
        place(slot)
    return builder.EndObject()


def _byte(value: int) -> Field:
    return lambda builder: lambda slot: builder.PrependUint8Slot(slot, value, 0)


def _text(value: str) -> Field:
    return lambda builder: _reference(builder, builder.CreateString(value))


def _floats(values: Sequence[float]) -> Field:
    return lambda builder: _reference(builder, builder.CreateNumpyVector(np.asarray(values, np.float32)))


def _table(value: _Table) -> Field:
    return lambda builder: _reference(builder, _write_table(builder, value))


def _tables(values: Sequence[_Table]) -> Field:
    def write(builder: flatbuffers.Builder) -> Callable[[int], None]:
        offsets = [_write_table(builder, value) for value in values]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return _reference(builder, builder.EndVector())

    return write


def _reference(builder: flatbuffers.Builder, offset: int) -> Callable[[int], None]:
    return lambda slot: builder.PrependUOffsetTRelativeSlot(slot, offset, 0)


class _Reader:
    """A FlatBuffers table to read; a missing field is empty or 0."""

    def __init__(self, table: flatbuffers.table.Table) -> None:
        self._table = table

    @classmethod
    def root(cls, content: bytes) -> _Reader:
        position = flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0)
        return cls(flatbuffers.table.Table(bytearray(content), position))

    def _field(self, slot: int) -> int:
        offset = self._table.Offset(4 + 2 * slot)
        return offset and offset + self._table.Pos

    def byte(self, slot: int) -> int:
        field = self._field(slot)
        return field and self._table.Get(flatbuffers.number_types.Uint8Flags, field)

    def text(self, slot: int) -> str:
        field = self._field(slot)
        return self._table.String(field).decode() if field else ""

    def floats(self, slot: int) -> tuple[float, ...]:
        offset = self._table.Offset(4 + 2 * slot)
        if not offset:
            return ()
        return tuple(self._table.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, offset).tolist())

    def table(self, slot: int) -> _Reader:
        return _Reader(flatbuffers.table.Table(self._table.Bytes, self._table.Indirect(self._field(slot))))

    def tables(self, slot: int) -> list[_Reader]:
        offset = self._table.Offset(4 + 2 * slot)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [
            _Reader(flatbuffers.table.Table(self._table.Bytes, self._table.Indirect(start + 4 * index)))
            for index in range(count)
        ]
