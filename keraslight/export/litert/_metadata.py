"""TFLite Metadata: the description of images and classes in a .tflite file, for MediaPipe Tasks and LiteRT on Android.

Source of the layout: metadata_schema.fbs of TFLite Support and MediaPipe (schema 1.5.0). The metadata is a
separate FlatBuffer in one of the model's buffers; the files that it names, here the labels, follow the model as a zip
archive. The packages that could write it can't be installed next to this one (mediapipe and
tensorflow-model-optimization need different versions of absl-py, tflite-support has no release for current Python), and
it is only a few small tables, so they are written by hand.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import numpy as np

from keraslight import _litert_files
from keraslight._files import write_file
from keraslight._tasks import Head, label_thresholds
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export._frozen import OUTPUT_NAME
from keraslight.export.litert._flatbuffer import attach, read_model, schema, write_model
from keraslight.labels import check_labels, label_lines

BUFFER_NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first version of the schema has all that is written here
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_COLOR_SPACES = {3: 1, 1: 2}  # channels -> ColorSpaceType: RGB, GRAYSCALE
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1  # members of the union ContentProperties
_DATE = (1980, 1, 1, 0, 0, 0)  # of the files in the archive
_TASK = "task: "  # in front of the task in the description of the graph; without one it is a softmax
_DESCRIPTIONS = {
    "softmax": "An image classifier with {} classes",
    "multi-label": "An image classifier with {} independent labels",
    "binary": "A binary image classifier",
    "regression": "A regression of {} numbers from images",
}
_NORMALIZATION_OPTIONS, _CALIBRATION_OPTIONS = 1, 2  # members of the union ProcessUnitOptions
# Thresholds are a calibration that changes no score but sets those below a minimum to 0: `sigmoid(slope * g(score) +
# offset)`, with one line `scale,slope,offset,minimum` per label, and as g what undoes the sigmoid.
THRESHOLDS_FILE = "thresholds.txt"
_TENSOR_AXIS_SCORE_CALIBRATION = 4  # AssociatedFileType
_IDENTITY, _INVERSE_LOGISTIC = 0, 2  # ScoreTransformationType: of logits, of probabilities


_Table = dict[int, Any]
"""A FlatBuffers table to write: slot -> byte, text, floats, table or tables (at least one)."""


class LiteRTMetadata(NamedTuple):
    """The metadata of a file.

    Attributes:
        name, description: Name and description of the model.
        labels: Class names, in the order of the outputs; empty if the file has none.
        mean, std: A float32 input is `(pixel - mean) / std` of pixels 0..255; one value per channel.
        color_space: `"RGB"` or `"GRAYSCALE"`, or `"UNKNOWN"`.
        task: What the outputs are: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`.
        thresholds: Score of each label, 0 to 1, below which an image doesn't have it; None if the file has none.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color_space: str
    task: str = "softmax"
    thresholds: tuple[float, ...] | None = None


def add_metadata(
    content: bytes,
    *,
    name: str,
    numbers: str,
    labels: Sequence[str],
    task: str = "softmax",
    logits: bool = False,
    thresholds: Sequence[float] | None = None,
) -> bytes:
    """Writes metadata into a .tflite file that takes raw pixels 0..255 and returns one score or number per label.

    If a file has several outputs, the probabilities become the first one, where MediaPipe looks for scores; the
    signature does not change. The others are described by their names only.

    The file must not have metadata yet. `numbers` is its number format, and `logits` says that its scores are logits.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    names = {entry.tensorIndex: entry.name.decode() for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.asarray(sorted(graph.outputs, key=lambda index: names.get(index) != OUTPUT_NAME), np.int32)
    others = [names.get(index, "") for index in graph.outputs[1:]]
    labels = check_labels(labels, graph.tensors[graph.outputs[0]].shape[-1])
    channels = int(graph.tensors[graph.inputs[0]].shape[-1])
    description = f"{_DESCRIPTIONS[task].format(len(labels))}, {numbers}, made with keraslight."
    attach(model, BUFFER_NAME, _metadata(name, description, channels, others, task, logits, thresholds is not None))
    file = io.BytesIO(write_model(model, len(content)))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # stored: readers map the file into memory
        # A fixed date, so that the same model always makes the same file.
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _DATE), label_lines(labels))
        if thresholds is not None:
            least = [math.log(limit / (1 - limit)) for limit in thresholds] if logits else thresholds
            lines = "\n".join(f"1,1,0,{limit!r}" for limit in least)  # MediaPipe counts an empty line after the last
            archive.writestr(zipfile.ZipInfo(THRESHOLDS_FILE, _DATE), lines)
    return file.getvalue()


def write_metadata(
    path: str | os.PathLike[str],
    labels: Sequence[str],
    *,
    task: str = "softmax",
    logits: bool = False,
    thresholds: Sequence[float] | None = None,
) -> Path:
    """Writes labels and a description into a .tflite file without them, as `to_litert(labels=...)` does.

    Args:
        path: A file that takes raw pixels 0..255 and returns one score or number per label, such as those of
            `keraslight.compress.calibrate`. It is replaced in one step.
        labels: As in `to_litert`.
        task: What the outputs are: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`.
        logits: Whether the scores are logits.
        thresholds: As in `to_litert`.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: The file doesn't exist or has metadata already, `labels` don't fit its output, the task
            is unknown, or `thresholds` don't fit it.
        ExportError: It isn't a .tflite file.
    """
    path = Path(path)
    if task not in _DESCRIPTIONS:
        raise InvalidArgumentError(f"`task` must be one of {tuple(_DESCRIPTIONS)}. Received: {task!r}.")
    content = _litert_files.content(path)
    if read_metadata(path) is not None:
        raise InvalidArgumentError(f"`path` must be a file without metadata. Received: {str(path)!r}, which has some.")
    int8 = schema().TensorType.INT8
    integers = any(tensor.type == int8 for tensor in read_model(content, path).subgraphs[0].tensors)
    names = labels[1:] if task == "binary" and len(labels) == 2 else labels
    numbers = "int8" if integers else "float32"
    limits = label_thresholds(Head(task, len(names), "sigmoid" if logits else None), thresholds)
    return write_file(
        path,
        add_metadata(
            content, name=path.stem, numbers=numbers, labels=names, task=task, logits=logits, thresholds=limits
        ),
    )


def read_metadata(path: str | os.PathLike[str]) -> LiteRTMetadata | None:
    """Reads the metadata of a .tflite file.

    Returns:
        The metadata of the first input and output, or None if the file has none.

    Raises:
        InvalidArgumentError: `path` is not a file.
        ExportError: The file is not a .tflite file, is cut off, or its metadata can't be read.
    """
    content = _litert_files.content(path)
    model = read_model(content, path)
    buffers = [entry.buffer for entry in model.metadata or [] if entry.name.decode() == BUFFER_NAME]
    if not buffers:
        return None
    root = _Reader.root(bytes(model.buffers[buffers[0]].data))
    graph = root.tables(3)[0]
    image = graph.tables(2)[0]
    units = [unit.table(1) for unit in image.tables(4)]
    properties = image.table(3).table(1)
    files = {file.byte(2): file.text(0) for tensor in graph.tables(3) for file in tensor.tables(6)}
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] | None = None
    if files:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if _TENSOR_AXIS_LABELS in files:
                    # Only at line feeds: names may contain the other characters at which `str.splitlines` splits.
                    text = archive.read(files[_TENSOR_AXIS_LABELS]).decode()
                    labels = tuple(text.removesuffix("\n").split("\n"))
                if files.get(_TENSOR_AXIS_SCORE_CALIBRATION) == THRESHOLDS_FILE:  # others may be calibrations
                    transformation = graph.tables(3)[0].tables(4)[0].table(1).byte(0)
                    thresholds = _thresholds(archive.read(THRESHOLDS_FILE).decode(), transformation)
        except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
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
        graph.text(1).removeprefix(_TASK) if graph.text(1).startswith(_TASK) else "softmax",
        thresholds,
    )


def _thresholds(text: str, transformation: int) -> tuple[float, ...]:
    """Those in the lines of a calibration."""
    limits = (float(line.split(",")[3]) for line in text.splitlines())
    return tuple(1 / (1 + math.exp(-limit)) if transformation == _IDENTITY else limit for limit in limits)


def _metadata(
    name: str, description: str, channels: int, others: Sequence[str], task: str, logits: bool, thresholds: bool
) -> bytes:
    properties = {0: _IMAGE_PROPERTIES, 1: {0: _COLOR_SPACES.get(channels, 0)}}
    pixels = {0: [0.0] * channels, 1: [1.0] * channels}
    image = {
        0: "image",
        1: "Raw pixels 0..255; the model normalizes them itself.",
        3: properties,
        4: [{0: _NORMALIZATION_OPTIONS, 1: pixels}],
        5: {0: [255.0] * channels, 1: [0.0] * channels},
    }
    labels = {0: LABELS_FILE, 1: "One class per line.", 2: _TENSOR_AXIS_LABELS}
    features: _Table = {0: _FEATURE_PROPERTIES, 1: {}}
    stats = {0: [1.0], 1: [0.0]}
    what = "value" if task == "regression" else "logit" if logits else "probability"
    each = "One number per name." if task == "regression" else "One score per class."
    scores: _Table = {0: what, 1: each, 3: features, 5: stats, 6: [labels]}
    if thresholds:
        scores[4] = [{0: _CALIBRATION_OPTIONS, 1: {0: _IDENTITY if logits else _INVERSE_LOGISTIC}}]
        scores[6] = [labels, {0: THRESHOLDS_FILE, 1: "Thresholds.", 2: _TENSOR_AXIS_SCORE_CALIBRATION}]
    graph: _Table = {2: [image], 3: [scores, *({0: other, 3: features} for other in others)]}
    if task != "softmax":
        graph[1] = f"{_TASK}{task}"
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, {0: name, 1: description, 3: [graph], 7: _PARSER_VERSION}), _IDENTIFIER)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Writes a field's value, except for a byte, and all that it refers to; returns its offset."""
    match value:
        case str():
            return builder.CreateString(value)
        case dict():
            # Everything that a table refers to must be finished before the table is started.
            offsets = {slot: _write(builder, field) for slot, field in value.items() if not isinstance(field, int)}
            builder.StartObject(max(value, default=-1) + 1)
            for slot, field in value.items():
                if isinstance(field, int):
                    builder.PrependUint8Slot(slot, field, 0)
                else:
                    builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
            return builder.EndObject()
        case [dict(), *_]:
            tables = [_write(builder, table) for table in value]
            builder.StartVector(4, len(tables), 4)
            for offset in reversed(tables):
                builder.PrependUOffsetTRelative(offset)
            return builder.EndVector()
    return builder.CreateNumpyVector(np.asarray(value, np.float32))


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
        if not (offset := self._table.Offset(4 + 2 * slot)):
            return ()
        return tuple(self._table.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, offset).tolist())

    def table(self, slot: int) -> _Reader:
        return self._at(self._field(slot))

    def tables(self, slot: int) -> list[_Reader]:
        if not (offset := self._table.Offset(4 + 2 * slot)):
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [self._at(start + 4 * index) for index in range(count)]

    def _at(self, reference: int) -> _Reader:
        return _Reader(flatbuffers.table.Table(self._table.Bytes, self._table.Indirect(reference)))
