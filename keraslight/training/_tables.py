"""Tables of image files and their labels: CSV and Parquet files."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.labels import check_labels
from keraslight.training._extras import require
from keraslight.training._folders import TEST, TRAIN, VALIDATION

FILE_COLUMNS = ("file", "filename", "file_name", "path", "image")
_PART_NAMES = {name: part for part, names in enumerate((TRAIN, VALIDATION, TEST)) for name in names}
_MOST = 5  # examples in an error
_NUMBERS = {"true": 1.0, "false": 0.0}  # as pandas writes them

Columns = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a table that name images.

    Attributes:
        files: Paths.
        labels: Class names, or names of the columns.
        targets: As in `ImageData`.
        of_part: int64, 0 for training and 1 for held-out images; None without a column that says so.
        weights: float32, or None.
        unused: Number of rows of the test part, which isn't needed next to a validation part.
    """

    files: list[str]
    labels: tuple[str, ...]
    targets: NDArray[Any]
    of_part: NDArray[np.int64] | None
    weights: NDArray[np.float32] | None
    unused: int


def read_table(
    path: pathlib.Path, *, file: str | None, label: str | Sequence[str] | None, separators: str, test: bool = False
) -> Table:
    """Reads a CSV or Parquet file; see `load_table`. With `test` its test part alone, next to one for validation."""
    columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"A table must have at least one row below its header. Received: {path}, which is empty.")
    file_column = _column(path, columns, file, FILE_COLUMNS, "file")
    files = _files(path, columns[file_column])
    labels, targets = _labels(path, columns, file_column, label, separators)
    weights = None
    if "weight" in columns:
        cells = columns["weight"]
        weights = np.asarray([_number(path, "weight", index, cell) for index, cell in enumerate(cells)], np.float32)
        if weights.min() < 0:
            index = int(np.argmax(weights < 0))
            raise DataError(
                f"Column 'weight' of a table must hold numbers of at least 0. Received: {cells[index]!r} in row "
                f"{index + 1} of {path}."
            )
    of_part, used = None, np.arange(0 if test else len(files))
    if "split" in columns:
        parts, used = _parts(path, columns["split"])
        used = np.setdiff1d(np.arange(len(files)), used) if test else used
        of_part = parts[used]
    return Table(
        [files[index] for index in used],
        labels,
        targets[used],
        of_part,
        None if weights is None else weights[used],
        len(files) - len(used),
    )


def _csv(path: pathlib.Path) -> Columns:
    # Names of files need not be valid UTF-8; those of labels are checked later.
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"A table must be a file that can be read. Received: {path}: {error.strerror}.") from error
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # the first of those that are equally frequent
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
            elif len(cells) == len(header):
                rows.append(cells)
            else:
                raise DataError(
                    f"Each row of a table must have as many cells as its header, {len(header)}. "
                    f"Received: {len(cells)} in line {reader.line_num} of {path}."
                )
    except csv.Error as error:
        raise DataError(f"A table must be a CSV file. Received: {path}, line {reader.line_num}: {error}.") from error
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"The columns of a table must have different names. Received: {repeated} twice in {path}.")
    return dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}


def _parquet(path: pathlib.Path) -> Columns:
    parquet = require("pyarrow.parquet", "pyarrow", "parquet")
    if not path.is_file():
        raise DataError(f"A table must be a file that can be read. Received: {path}: No such file.")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(f"A table must be a Parquet file. Received: {path}: {error}.") from error
    return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}


def _column(path: pathlib.Path, columns: Columns, given: str | None, known: Sequence[str], argument: str) -> str:
    if given is not None:
        if given not in columns:
            raise InvalidArgumentError(
                f"`{argument}` must be a column of the table. Received: {given!r} for {path}, whose columns are "
                f"{list(columns)}."
            )
        return given
    found = [name for name in known if name in columns]
    if not found:
        raise DataError(
            f"A table must have a column {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, or `{argument}` must "
            f"name another one. Received: {path} with {list(columns)}."
        )
    return found[0]


def _files(path: pathlib.Path, cells: Sequence[Any]) -> list[str]:
    files: list[str] = []
    for index, cell in enumerate(cells):
        if not isinstance(cell, str) or not cell.strip():
            raise DataError(f"Each row of a table must name a file. Received: {cell!r} in row {index + 1} of {path}.")
        files.append(str(path.parent / cell))
    missing = [cell for cell, file in zip(cells, files, strict=True) if not pathlib.Path(file).is_file()]
    if missing:
        raise DataError(
            f"The files of a table must exist; relative paths start from its folder, {path.parent}. "
            f"Received: {len(missing)} of {len(files)} that don't: {some(missing)}."
        )
    seen: dict[str, int] = {}
    for index, file in enumerate(files):
        if (first := seen.setdefault(file, index)) != index:
            raise DataError(
                "Each image must be in one row of a table; several labels of one image go into one row. "
                f"Received: {cells[index]!r} in rows {first + 1} and {index + 1} of {path}."
            )
    return files


def _labels(
    path: pathlib.Path, columns: Columns, file: str, label: str | Sequence[str] | None, separators: str
) -> tuple[tuple[str, ...], NDArray[Any]]:
    if label is not None and not isinstance(label, str):
        names = [_column(path, columns, name, (), "label") for name in label]
        return _numbers(path, columns, names, binary=False)
    others = [name for name in columns if name not in (file, "split", "weight")]
    if label is None:
        label = next((name for name in ("label", "labels") if name in others), None)
    if label is None:
        if not others:
            raise DataError(f"A table must have at least one column of labels. Received: {path} with {list(columns)}.")
        return _numbers(path, columns, others, binary=True)
    cells = columns[_column(path, columns, label, (), "label")]
    if label == "labels" or any(isinstance(cell, list) for cell in cells):
        return _several(path, cells, separators)
    named = [_name(path, label, index, cell) for index, cell in enumerate(cells)]
    labels = sorted(set(named))
    indices = {name: index for index, name in enumerate(labels)}
    return _checked(path, labels), np.asarray([indices[name] for name in named], np.int32)


def _several(path: pathlib.Path, cells: Sequence[Any], separators: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Rows of zeros and ones from cells that have any number of labels."""
    found = []
    for index, cell in enumerate(cells):
        if cell is None or isinstance(cell, str):
            text = cell or ""
            for separator in separators:
                text = text.replace(separator, "\n")
            found.append({part.strip() for part in text.split("\n") if part.strip()})
        else:
            parts = cell if isinstance(cell, list) else [cell]
            found.append({_name(path, "labels", index, part) for part in parts})
    labels = sorted(set().union(*found))
    if not labels:
        raise DataError(f"A table must have at least one label. Received: {path}, whose labels are empty.")
    targets = np.asarray([[name in names for name in labels] for names in found], np.float32)
    return _checked(path, labels), targets


def _numbers(
    path: pathlib.Path, columns: Columns, names: Sequence[str], *, binary: bool
) -> tuple[tuple[str, ...], NDArray[Any]]:
    if not names:
        raise InvalidArgumentError("`label` must name at least one column. Received: none.")
    targets = np.empty((len(columns[names[0]]), len(names)), np.float32)
    for place, name in enumerate(names):
        for index, cell in enumerate(columns[name]):
            targets[index, place] = value = _number(path, name, index, cell)
            if binary and value not in (0, 1):
                raise DataError(
                    "Without a column 'label' or 'labels', the others must be labels with 0 or 1 in each row; `label` "
                    f"names columns of other numbers. Received: {cell!r} in column {name!r}, row {index + 1} of "
                    f"{path}."
                )
    return _checked(path, list(names)), targets


def _number(path: pathlib.Path, column: str, index: int, cell: Any) -> float:
    try:
        text = cell.strip().lower() if isinstance(cell, str) else cell
        value = _NUMBERS.get(text) if isinstance(text, str) else None
        value = float(text) if value is None else value
        if math.isfinite(value):
            return value
    except (TypeError, ValueError):
        pass
    raise DataError(
        f"Column {column!r} of a table must hold finite numbers. Received: {cell!r} in row {index + 1} of {path}."
    )


def _name(path: pathlib.Path, column: str, index: int, cell: Any) -> str:
    """A class's name; numbers are names, too."""
    name = cell if isinstance(cell, str) else str(cell) if isinstance(cell, int) else ""
    if not name.strip():
        raise DataError(
            f"Column {column!r} of a table must hold class names. Received: {cell!r} in row {index + 1} of {path}."
        )
    return name


def _checked(path: pathlib.Path, labels: list[str]) -> tuple[str, ...]:
    try:
        return tuple(check_labels(labels))
    except InvalidArgumentError as error:
        raise DataError(f"The class names of a table are the labels. In {path}, {error}") from error


def _parts(path: pathlib.Path, cells: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The part of each row, 0 or 1, and the indices of the rows to use."""
    parts = np.empty(len(cells), np.int64)
    for index, cell in enumerate(cells):
        part = _PART_NAMES.get(str(cell).strip().lower())
        if part is None:
            raise DataError(
                f"Column 'split' of a table must hold {', '.join(map(repr, _PART_NAMES))}. "
                f"Received: {cell!r} in row {index + 1} of {path}."
            )
        parts[index] = part
    if 1 in parts:
        used = np.flatnonzero(parts < 2)
    else:
        used, parts = np.arange(len(parts)), np.minimum(parts, 1)
    return parts, used


def some(names: Iterable[Any]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    return ", ".join(map(str, listed[:_MOST])) + (f" and {len(listed) - _MOST} more" if len(listed) > _MOST else "")
