"""Answers -> JSON, in TensorFlow Serving's layout.

Its writer indents by four spaces. In the row form and in results, a list is on one line; in the column form, each value
has a line of its own.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from keraslight_serving.server.base.errors import CODES, StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.examples import Classes
from keraslight_serving.server.rest._json import string
from keraslight_serving.server.running.signatures import Arrays, Signature
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name
from keraslight_serving.wire.tensors import TensorError, dtype_enum

_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_UNWRITABLE = (pb.DT_HALF, pb.DT_BFLOAT16, pb.DT_UINT16)


def predictions(outputs: Arrays) -> str:
    """Writes the row form, `{"predictions": [...]}`: one item per row, an object if there are several outputs."""
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
        name: _values(name, array, keep=1, level=2 + named, one_line=True) for name, array in sorted(outputs.items())
    }
    if not rows:
        return '{\n    "predictions": []\n}'
    if not named:
        (items,) = columns.values()
        return f'{{\n    "predictions": [{", ".join(items)}\n    ]\n}}'
    objects = (_object({name: items[row] for name, items in columns.items()}, level=2) for row in range(rows))
    return f'{{\n    "predictions": [{_indent(2)}{("," + _indent(2)).join(objects)}\n    ]\n}}'


def outputs_by_name(outputs: Arrays) -> str:
    """Writes the column form, `{"outputs": ...}`: the value of the only output, or an object with all values."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    level = 1 + (len(outputs) > 1)
    values = {
        name: _values(name, array, keep=0, level=level, one_line=False)[0] for name, array in sorted(outputs.items())
    }
    return _object({"outputs": _object(values, level=1) if level > 1 else next(iter(values.values()))}, level=0)


def classifications(classes: Classes) -> str:
    """Writes `{"results": [[["label", score], ...], ...]}`."""
    rows = []
    for labels, scores in zip(classes.labels.tolist(), classes.scores, strict=True):
        texts = (string(label.decode(errors="replace")) for label in labels)
        pairs = zip(texts, decimals(scores), strict=True)
        rows.append(f"[{', '.join(f'[{label}, {score}]' for label, score in pairs)}]")
    return f'{{\n    "results": [{", ".join(rows)}\n    ]\n}}'


def regressions(values: NDArray[np.float32]) -> str:
    """Writes `{"results": [value, ...]}`."""
    return f'{{\n    "results": [{", ".join(decimals(values))}]\n}}'


def statuses(found: Sequence[pb.ModelVersionStatus]) -> str:
    """Writes what protobuf prints for a GetModelStatusResponse with all fields; version numbers are strings."""
    versions = []
    for item in found:
        code = CODES.get(item.status.error_code, grpc.StatusCode.UNKNOWN).name
        status = {"error_code": code, "error_message": item.status.error_message}
        state = pb.ModelVersionStatus.State.Name(item.state)
        versions.append({"version": str(item.version), "state": state, "status": status})
    return json.dumps({"model_version_status": versions}, indent=1, ensure_ascii=False) + "\n"


def metadata(spec: ModelSpec, signatures: Mapping[str, Signature]) -> str:
    """Writes a model and its signatures."""
    described = {
        name: json_format.MessageToDict(
            signature.definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, signature in signatures.items()
    }
    document = {
        "model_spec": {"name": spec.name, "signature_name": "", "version": str(spec.version)},
        "metadata": {"signature_def": {"signature_def": described}},
    }
    return json.dumps(document, indent=1) + "\n"


def decimals(array: NDArray[Any]) -> list[str]:
    """Writes floats with six digits if those give the number back, else with nine (float64: seventeen).

    A number that would look like an integer ends in `.0`, so that no list has values of two types.
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


def _values(name: str, array: NDArray[Any], *, keep: int, level: int, one_line: bool) -> list[str]:
    """Writes each item along an output's first `keep` dimensions, 0 (one text for the whole array) or 1.

    `level` is the items' indentation level. Strings become base64 if the output's name says that they are bytes.
    """
    texts = _leaves(name, array, level + array.ndim - keep)
    for dimension in reversed(range(keep, array.ndim)):
        size, inside = array.shape[dimension], level + dimension - keep
        count = int(np.prod(array.shape[:dimension]))
        if size == 0:
            texts = ["[]"] * count
            continue
        first, between, last = "", ", ", ""
        if not one_line:
            first, between, last = _indent(inside + 1), "," + _indent(inside + 1), _indent(inside)
        starts = range(0, count * size, size)
        texts = [f"[{first}{between.join(texts[start : start + size])}{last}]" for start in starts]
    return texts


def _leaves(name: str, array: NDArray[Any], level: int) -> list[str]:
    try:
        dtype = dtype_enum(array.dtype)
    except TensorError as error:
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Can't return {name}: {error}") from None
    if dtype in _UNWRITABLE:
        raise invalid(f"Failed to write JSON value for tensor type: {dtype_name(dtype)}")
    values = array.ravel().tolist()
    if dtype == pb.DT_STRING:
        if name.endswith("_bytes"):
            return [_object({"b64": string(base64.b64encode(value).decode())}, level) for value in values]
        # TensorFlow Serving writes any bytes as they are, and then the answer is not JSON.
        return [string(value.decode(errors="replace")) for value in values]
    if dtype == pb.DT_BOOL:
        return ["true" if value else "false" for value in values]
    return decimals(array) if array.dtype.kind == "f" else list(map(str, values))


def _object(values: Mapping[str, str], level: int) -> str:
    """Writes an object of texts, with its closing brace at `level`."""
    items = ("," + _indent(level + 1)).join(f"{string(name)}: {text}" for name, text in values.items())
    return f"{{{_indent(level + 1)}{items}{_indent(level)}}}"


def _indent(level: int) -> str:
    return "\n" + "    " * level
