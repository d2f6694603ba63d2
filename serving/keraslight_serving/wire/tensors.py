"""numpy arrays <-> TensorProto, at the speed of a copy.

A TensorProto holds its elements in one of two ways: as raw bytes (`tensor_content`), or in the list that belongs to its
dtype (`float_val`, `int_val` ...). Both are read and both can be written.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name

# Without a limit, ten bytes of request ("one value, repeated to this shape") could ask for all the memory there is.
MAX_BYTES = 2**31 - 1


class TensorError(ValueError):
    """A TensorProto that describes no array, or an array that no TensorProto can hold."""


class _Row(NamedTuple):
    dtype: np.dtype  # of the array
    field: str  # the list of TensorProto that holds the values
    listed: np.dtype  # the type of the values in that list


def _row(dtype: type, field: str, listed: type | None = None) -> _Row:
    return _Row(np.dtype(dtype), field, np.dtype(listed or dtype))


_ROWS = {
    pb.DT_FLOAT: _row(np.float32, "float_val"),
    pb.DT_DOUBLE: _row(np.float64, "double_val"),
    pb.DT_INT8: _row(np.int8, "int_val", np.int32),
    pb.DT_INT16: _row(np.int16, "int_val", np.int32),
    pb.DT_INT32: _row(np.int32, "int_val"),
    pb.DT_INT64: _row(np.int64, "int64_val"),
    pb.DT_UINT8: _row(np.uint8, "int_val", np.int32),
    pb.DT_UINT16: _row(np.uint16, "int_val", np.int32),
    pb.DT_UINT32: _row(np.uint32, "uint32_val"),
    pb.DT_UINT64: _row(np.uint64, "uint64_val"),
    pb.DT_BOOL: _row(np.bool_, "bool_val"),
    pb.DT_HALF: _row(np.float16, "half_val", np.int32),
    pb.DT_STRING: _row(np.object_, "string_val"),
}
_ENUMS = {row.dtype: enum for enum, row in _ROWS.items()}

# Lists whose wire format is the memory of the array. Appending to a message goes element by element, a hundred times
# slower than handing it the bytes that it would have written.
_PACKED = {"float_val": 5, "double_val": 6, "bool_val": 11}


def dtype_enum(dtype: np.dtype | type) -> int:
    """The DataType of a numpy dtype. Fixed-width strings count as DT_STRING.

    Raises:
        TensorError: TensorProto has no such type.
    """
    dtype = np.dtype(dtype)
    if dtype.kind in "SU":
        return pb.DT_STRING
    try:
        return _ENUMS[dtype.newbyteorder("=")]
    except KeyError:
        names = ", ".join(dtype_name(enum) for enum in _ROWS)
        raise TensorError(f"A tensor's dtype must be one of {names}. Received: {dtype}") from None


def shape_text(shape: tuple[int, ...]) -> str:
    """`[1,8,8,3]`, as TensorFlow prints shapes."""
    return f"[{','.join(map(str, shape))}]"


def to_array(tensor: pb.TensorProto) -> np.ndarray:
    """Reads a tensor; may return a read-only view of its bytes.

    As in TensorFlow, a list that is shorter than the shape repeats its last value, an empty one means zeros, and
    surplus values are ignored. Strings come as an object array of bytes.

    Raises:
        TensorError: dtype unknown, a shape with unknown or negative sizes or beyond 2 GiB, or `tensor_content` of
            another length than shape and dtype ask for.
    """
    row = _ROWS.get(tensor.dtype)
    if row is None:
        names = ", ".join(dtype_name(enum) for enum in _ROWS)
        raise TensorError(f"A tensor's dtype must be one of {names}. Received: {dtype_name(tensor.dtype)}")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise TensorError(f"A tensor's shape must be fully known. Received: {shape_text(shape)}")
    count = math.prod(shape)
    if count * row.dtype.itemsize > MAX_BYTES:
        raise TensorError(f"A tensor must fit in {MAX_BYTES} bytes. Received: shape {shape_text(shape)}")
    if count == 0:
        return np.empty(shape, row.dtype)
    if tensor.tensor_content:
        return _from_content(tensor.tensor_content, row.dtype, count).reshape(shape)
    values = getattr(tensor, row.field)
    if not values:
        return np.full(shape, b"" if row.dtype.kind == "O" else 0, row.dtype)
    flat = np.array(values, row.listed)[:count]
    if row.field == "half_val":
        flat = flat.astype(np.uint16).view(np.float16)
    flat = flat.astype(row.dtype, copy=False)
    if len(flat) < count:
        flat = np.concatenate([flat, np.full(count - len(flat), flat[-1], row.dtype)])
    return flat.reshape(shape)


def to_tensor(array: ArrayLike, *, content: bool = False, into: pb.TensorProto | None = None) -> pb.TensorProto:
    """Writes an array, as the list of its dtype (what TensorFlow Serving answers with) or as raw bytes.

    Strings are bytes, or str (written as UTF-8). An array of bytes that may end in zeros, such as images, has to be an
    object array: numpy's fixed-width `S` type has lost them already. Lists of bytes are safe.

    Args:
        array: numbers, booleans or strings, of any shape.
        content: raw bytes in `tensor_content` rather than a list; strings are listed all the same.
        into: an empty message to write to, such as one in a request, which saves a copy. Default: a new one.

    Raises:
        TensorError: TensorProto has no such dtype.
    """
    given, array = array, np.asarray(array)
    if array.dtype.kind == "S" and array is not given:
        array = np.array(given, object)  # numpy has just dropped trailing zeros
    dtype = dtype_enum(array.dtype)
    tensor = pb.TensorProto() if into is None else into
    tensor.dtype = dtype
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == pb.DT_STRING:
        tensor.string_val.extend(map(_to_bytes, array.ravel().tolist()))
        return tensor
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    field = _ROWS[tensor.dtype].field
    if content:
        tensor.tensor_content = little_endian.tobytes()
    elif field in _PACKED:
        values = little_endian.tobytes()
        tensor.MergeFromString(varint(_PACKED[field] << 3 | 2) + varint(len(values)) + values)
    elif field == "half_val":
        tensor.half_val.extend(array.astype(np.float16).view(np.uint16).ravel().tolist())
    else:
        getattr(tensor, field).extend(array.ravel().tolist())
    return tensor


def _from_content(content: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if dtype.kind == "O":
        return _strings_from_content(content, count)
    if len(content) != count * dtype.itemsize:
        raise TensorError(
            f"tensor_content must hold {count * dtype.itemsize} bytes, {count} x {dtype}. "
            f"Received: {len(content)} bytes"
        )
    return np.frombuffer(content, dtype.newbyteorder("<"))


def _strings_from_content(content: bytes, count: int) -> np.ndarray:
    """TensorFlow's form: the length of every string as a varint, then all strings end to end."""
    lengths, position = [], 0
    while len(lengths) < count:
        length = shift = 0
        while True:
            if position == len(content) or shift > 63:
                raise TensorError(
                    f"tensor_content must hold {count} strings. Received: {len(content)} bytes that don't"
                )
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(content) - position:
        raise TensorError(
            f"tensor_content must hold {sum(lengths)} bytes of strings. Received: {len(content) - position} bytes"
        )
    strings = np.empty(count, object)
    for i, length in enumerate(lengths):
        strings[i] = content[position : position + length]
        position += length
    return strings


def _to_bytes(item: object) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    raise TensorError(f"A string tensor must hold bytes or str. Received: {type(item).__name__}")


def varint(number: int) -> bytes:
    """A whole number, not negative, as protobuf writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
