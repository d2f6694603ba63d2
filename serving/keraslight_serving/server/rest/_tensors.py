"""JSON -> arrays, with the dtypes of a signature.

Lists of numbers are converted by numpy at once. Where numpy fails or is too lenient, values are read one by one, which
finds TensorFlow Serving's text for what is wrong.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.rest._json import quote, type_name
from keraslight_serving.server.running.signatures import Declared
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import DTYPES, dtype_name
from keraslight_serving.wire.tensors import shape_text

_MAX_RANK = 64  # numpy's; TensorFlow's is 254

_FLOATS: dict[int, type[np.generic]] = {pb.DT_FLOAT: np.float32, pb.DT_DOUBLE: np.float64}
_INTS: dict[int, type[np.integer[Any]]] = {
    enum: np.dtype(DTYPES[enum].name).type
    for enum in (pb.DT_INT8, pb.DT_INT16, pb.DT_INT32, pb.DT_INT64, pb.DT_UINT8, pb.DT_UINT32, pb.DT_UINT64)
}
_LIMITS = {dtype: (int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for dtype, kind in _INTS.items()}
_NUMPY: dict[int, type[np.generic]] = {**_FLOATS, **_INTS, pb.DT_BOOL: np.bool_, pb.DT_STRING: np.object_}


def read_instances(
    instances: Sequence[Any], infos: Mapping[str, Declared], *, has_booleans: bool
) -> dict[str, NDArray[Any]]:
    """Reads inputs in the row form: values of the only input, or objects with a value for each input; at least one.

    Returns arrays of shape (instances, ...) by alias. `has_booleans`: whether `true` or `false` may occur among the
    values.
    """
    names = sorted(infos)
    if not isinstance(instances[0], dict) and len(names) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    columns = _columns(instances, names) if _is_object(instances[0]) else {names[0]: instances}
    fast = {name: _fast(values, infos[name].dtype, has_booleans) for name, values in columns.items()}
    arrays = {name: array for name, array in fast.items() if array is not None}
    return arrays if arrays and len(arrays) == len(fast) else _read_one_by_one(instances, infos)


def read_inputs(value: Any, infos: Mapping[str, Declared], *, has_booleans: bool) -> dict[str, NDArray[Any]]:
    """As `read_instances`, in the column form: the value of the only input, or an object with a value for each."""
    if _is_object(value):
        for name in sorted(infos):
            if name not in value:
                raise invalid(f"Missing named input: {name} in 'inputs' object.")
        return {name: _read(value[name], infos[name].dtype, has_booleans) for name in sorted(infos)}
    if len(infos) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    ((name, info),) = infos.items()
    return {name: _read(value, info.dtype, has_booleans)}


def decode_base64(value: Mapping[str, Any]) -> bytes:
    """Returns the bytes of `{"b64": "..."}`. Padding may be missing, white space is ignored."""
    if not is_base64(value):
        raise invalid(f"JSON Value: {quote(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        text = "".join(text.split())
        if not text.endswith("="):
            text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    """Whether a value is an object with a string `b64` and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _columns(instances: Sequence[Any], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Returns the values of each input; nothing if an instance doesn't have exactly these inputs."""
    wanted = set(names)
    if not all(_is_object(item) and item.keys() == wanted for item in instances):
        return {}
    return {name: [item[name] for item in instances] for name in names}


def _fast(value: Any, dtype: int, has_booleans: bool) -> NDArray[Any] | None:
    """Returns the array of nested lists of numbers; None if they must be read one by one."""
    if has_booleans or (dtype not in _FLOATS and dtype not in _INTS):  # numpy takes `true` among numbers for a 1
        return None
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError):
        return None
    target = np.dtype(_NUMPY[dtype])
    if array.size == 0:
        return array.astype(target) if array.dtype.kind == "f" else None
    if dtype in _FLOATS and array.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # beyond the largest float32 is infinity
            return array.astype(target)
    if dtype in _INTS and array.dtype.kind in "iu":
        lowest, highest = _LIMITS[dtype]
        if lowest <= int(array.min()) and int(array.max()) <= highest:
            return array.astype(target)
    return None


def _read(value: Any, dtype: int, has_booleans: bool) -> NDArray[Any]:
    if (array := _fast(value, dtype, has_booleans)) is not None:
        return array
    shape = _shape(value)
    values: list[Any] = []
    _fill(value, shape, 0, dtype, values)
    return _array(values, shape, dtype)


def _read_one_by_one(instances: Sequence[Any], infos: Mapping[str, Declared]) -> dict[str, NDArray[Any]]:
    values: dict[str, list[Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def add(item: Any, name: str) -> None:
        if name not in infos:
            raise invalid(f"JSON object: does not have named input: {name}")
        shape, list_ = _shape(item), values.setdefault(name, [])
        before = len(list_)
        _fill(item, shape, 0, infos[name].dtype, list_)
        expected = shapes.setdefault(name, shape)
        size, expected_size = len(list_) - before, int(np.prod(expected, dtype=object))
        if size != expected_size:
            raise invalid(f"Expecting tensor size: {expected_size} but got: {size}")
        if shape != expected:
            raise invalid(f"Expecting shape {shape_text(expected)} but got: {shape_text(shape)}")

    objects = _is_object(instances[0])
    first_name = min(infos)
    for place, item in enumerate(instances):
        if objects != _is_object(item):
            expected, got = ("object", "list") if objects else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {place} of input list")
        for name, value in item.items() if objects else [(first_name, item)]:
            try:
                add(value, name)
            except StatusError as error:
                key = f" key: {name}" if objects else ""
                raise invalid(
                    f"Failed to process element: {place}{key} of 'instances' list. "
                    f"Error: {error.code.name}: {error.text}"
                ) from None
        if objects and item.keys() != infos.keys():
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {quote(item)} "
                f"keys must be equal to: {','.join(sorted(infos))}"
            )
    return {name: _array(values[name], (len(instances), *shapes[name]), infos[name].dtype) for name in values}


def _shape(value: Any) -> tuple[int, ...]:
    """Returns the shape of a dense tensor by the first item of each list."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) >= _MAX_RANK:
            raise invalid(f"A tensor must have less than {_MAX_RANK} dimensions. Received: more")
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _fill(value: Any, shape: tuple[int, ...], level: int, dtype: int, values: list[Any]) -> None:
    """Appends the values in order. Raises INVALID_ARGUMENT if they don't have the shape."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {quote(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        values.append(_scalar(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _fill(item, shape, level + 1, dtype, values)


def _scalar(value: Any, dtype: int) -> Any:
    """Returns a value of a dtype.

    Integers that don't fit their type are rejected. TensorFlow Serving keeps their lowest bits, which turns a pixel of
    256 black.
    """
    if dtype == pb.DT_STRING:
        if isinstance(value, dict):
            return decode_base64(value)
        if isinstance(value, str):
            return value.encode()
    elif dtype not in _NUMPY:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {quote(value)} to type: {dtype_name(dtype)}"
        )
    elif dtype == pb.DT_BOOL:
        if isinstance(value, bool):
            return value
    elif dtype in _FLOATS:
        if isinstance(value, float) or type(value) is int:
            try:
                return float(value)
            except OverflowError:
                raise invalid("JSON Parse error: Number too big to be stored in double.") from None
    elif type(value) is int:
        lowest, highest = _LIMITS[dtype]
        if lowest <= value <= highest:
            return value
    raise invalid(f"JSON Value: {quote(value)} Type: {type_name(value)} is not of expected type: {dtype_name(dtype)}")


def _array(values: list[Any], shape: tuple[int, ...], dtype: int) -> NDArray[Any]:
    array = np.empty(len(values), _NUMPY.get(dtype, np.object_))
    with np.errstate(over="ignore"):
        array[:] = values
    return array.reshape(shape)
