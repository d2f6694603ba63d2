"""Answers -> JSON, laid out as TensorFlow Serving lays it out.

Its writer indents by four spaces. In the row form, and for results, lists stand on one line; in the column form, each
value has its own.
"""

import base64
import json
from collections.abc import Mapping

import grpc
import numpy as np
from google.protobuf import json_format

from keraslight_serving.server.base.errors import CODES, invalid
from keraslight_serving.server.rest._json import string
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import dtype_enum

_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_UNWRITABLE = (pb.DT_HALF, pb.DT_UINT16)


def predictions(outputs: Mapping[str, np.ndarray]) -> str:
    """The row form: `{"predictions": [...]}`, an item for each row. Several outputs make objects.

    Raises:
        StatusError: INVALID_ARGUMENT: the outputs don't have the same number of rows, or have a type without JSON.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    rows: int | None = None
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows not in (None, len(array)):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)
    named = len(outputs) > 1
    columns = {
        name: _values(array, _as_bytes(name, array), keep=1, level=2 + named, one_line=True)
        for name, array in sorted(outputs.items())
    }
    if not rows:
        return '{\n    "predictions": []\n}'
    if not named:
        (items,) = columns.values()
        return f'{{\n    "predictions": [{", ".join(items)}\n    ]\n}}'
    objects = (_object({name: items[row] for name, items in columns.items()}, level=2) for row in range(rows))
    return f'{{\n    "predictions": [{_indent(2)}{("," + _indent(2)).join(objects)}\n    ]\n}}'


def outputs_by_name(outputs: Mapping[str, np.ndarray]) -> str:
    """The column form: `{"outputs": ...}`, the value of the only output, or an object of all.

    Raises:
        StatusError: INVALID_ARGUMENT: a type without JSON.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    named = len(outputs) > 1
    values = {
        name: _values(array, _as_bytes(name, array), keep=0, level=1 + named, one_line=False)[0]
        for name, array in sorted(outputs.items())
    }
    return _object({"outputs": _object(values, level=1) if named else next(iter(values.values()))}, level=0)


def classifications(result: pb.ClassificationResult) -> str:
    """`{"results": [[["label", score], ...], ...]}`."""
    rows = (
        f"[{', '.join(f'[{string(label)}, {score}]' for label, score in _labels_and_scores(row))}]"
        for row in result.classifications
    )
    return f'{{\n    "results": [{", ".join(rows)}\n    ]\n}}'


def regressions(result: pb.RegressionResult) -> str:
    """`{"results": [value, ...]}`."""
    values = decimals(np.array([regression.value for regression in result.regressions], np.float32))
    return f'{{\n    "results": [{", ".join(values)}]\n}}'


def statuses(response: pb.GetModelStatusResponse) -> str:
    """As protobuf prints a GetModelStatusResponse, with all fields; numbers of versions are strings."""
    versions = [
        {
            "version": str(status.version),
            "state": pb.ModelVersionStatus.State.Name(status.state),
            "status": {
                "error_code": CODES.get(status.status.error_code, grpc.StatusCode.UNKNOWN).name,
                "error_message": status.status.error_message,
            },
        }
        for status in response.model_version_status
    ]
    return json.dumps({"model_version_status": versions}, indent=1, ensure_ascii=False) + "\n"


def metadata(response: pb.GetModelMetadataResponse) -> str:
    """The model and its signatures."""
    signatures = pb.SignatureDefMap.FromString(response.metadata["signature_def"].value)
    spec = {
        "name": response.model_spec.name,
        "signature_name": response.model_spec.signature_name,
        "version": str(response.model_spec.version.value),
    }
    described = json_format.MessageToDict(
        signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": described}}, indent=1) + "\n"


def decimals(array: np.ndarray) -> list[str]:
    """Floats as text: six digits where they give the number back, else nine (seventeen for float64).

    A number that would look like an integer ends in `.0`, so that readers don't mix types in a list.
    """
    values = array.ravel().tolist()
    if not values:
        return []
    texts = ("%g " * len(values) % tuple(values)).split()
    read_back = np.array(texts).astype(np.float64).astype(array.dtype)
    digits = "%.9g" if array.dtype == np.float32 else "%.17g"
    for place in np.flatnonzero(read_back != array.ravel()).tolist():
        texts[place] = digits % values[place]
    return [text if "." in text or "e" in text else _SPECIAL.get(text) or text + ".0" for text in texts]


def _labels_and_scores(row: pb.Classifications) -> zip:
    labels = [item.label for item in row.classes]
    return zip(labels, decimals(np.array([item.score for item in row.classes], np.float32)), strict=True)


def _as_bytes(name: str, array: np.ndarray) -> bool:
    """Strings are base64 where the output's name says that they are bytes."""
    return array.dtype.kind == "O" and name.endswith("_bytes")


def _values(array: np.ndarray, as_bytes: bool, *, keep: int, level: int, one_line: bool) -> list[str]:
    """The texts of an array's items along its first `keep` dimensions, or of all of it in a list of one.

    Args:
        level: how deep the items stand.
    """
    depth = array.ndim - keep
    texts = _leaves(array, as_bytes, level + depth)
    for dimension in reversed(range(keep, array.ndim)):
        size, inside = array.shape[dimension], level + dimension - keep
        count = int(np.prod(array.shape[:dimension]))
        if size == 0:
            texts = ["[]"] * count
        elif one_line:
            texts = [f"[{', '.join(texts[start : start + size])}]" for start in range(0, count * size, size)]
        else:
            first, last = _indent(inside + 1), _indent(inside)
            between = "," + first
            texts = [
                f"[{first}{between.join(texts[start : start + size])}{last}]" for start in range(0, count * size, size)
            ]
    return texts


def _leaves(array: np.ndarray, as_bytes: bool, level: int) -> list[str]:
    dtype = dtype_enum(array.dtype)
    if dtype in _UNWRITABLE:
        raise invalid(f"Failed to write JSON value for tensor type: {dtype_name(dtype)}")
    values = array.ravel().tolist()
    if dtype == pb.DT_STRING:
        if as_bytes:
            return [_object({"b64": string(base64.b64encode(value).decode())}, level) for value in values]
        # TensorFlow Serving writes any bytes as they are, and then the answer is no JSON.
        return [string(value.decode(errors="replace")) for value in values]
    if dtype == pb.DT_BOOL:
        return ["true" if value else "false" for value in values]
    return decimals(array) if array.dtype.kind == "f" else list(map(str, values))


def _object(values: Mapping[str, str], level: int) -> str:
    """An object, whose brace stands at `level`, of texts."""
    items = ("," + _indent(level + 1)).join(f"{string(name)}: {text}" for name, text in values.items())
    return f"{{{_indent(level + 1)}{items}{_indent(level)}}}"


def _indent(level: int) -> str:
    return "\n" + "    " * level
