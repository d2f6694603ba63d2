"""numpy arrays <-> TensorProto, at the speed of a copy.

A TensorProto holds its elements either as raw bytes (`tensor_content`) or in the list of its dtype (`float_val`,
`int_val` ...). Both are read, and both can be written.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import DTYPES, dtype_name

# Without a limit, ten bytes of request ("one value, repeated to this shape") could allocate all memory.
MAX_BYTES = 2**31 - 1

# Nor should a few bytes be millions of files to decode.
MAX_REPEATED_STRINGS = 2**16

_DTYPES = {
    enum: np.dtype(object if kind.name == "string" else kind.name)
    for enum, kind in DTYPES.items()
    if kind.name != "bfloat16"
}
_ENUMS: dict[np.dtype[Any], Any] = {dtype: enum for enum, dtype in _DTYPES.items()}
_NAMES = ", ".join(map(dtype_name, DTYPES))

# Lists whose wire format is the memory of the array, with their field numbers. Appending to a message goes element by
# element, a hundred times slower than passing it the bytes that it would have written.
_PACKED = {"float_val": 5, "double_val": 6, "bool_val": 11}


class TensorError(ValueError):
    """A TensorProto that describes no array, or an array that no TensorProto can hold."""


def dtype_enum(dtype: DTypeLike) -> pb.DataType:
    """The DataType of a numpy dtype. Fixed-width strings count as DT_STRING."""
    dtype = np.dtype(dtype)
    enum = pb.DT_STRING if dtype.kind in "SU" else pb.DT_BFLOAT16 if dtype.name == "bfloat16" else None
    enum = enum or _ENUMS.get(dtype.newbyteorder("="))
    if enum is None:
        raise TensorError(f"A tensor's dtype must be one of {_NAMES}. Received: {dtype}")
    return enum


def shape_text(shape: tuple[int, ...]) -> str:
    """`[1,8,8,3]`, as TensorFlow prints shapes."""
    return f"[{','.join(map(str, shape))}]"


def to_array(tensor: pb.TensorProto, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Reads a tensor of at most `max_bytes`. The array may be a read-only view of the message's bytes.

    As in TensorFlow, a list shorter than the shape repeats its last value, an empty list means zeros, and surplus
    values are ignored. Strings become an object array of bytes. Where ml_dtypes is not installed, bfloat16 becomes
    float32, which holds the same values.
    """
    if tensor.dtype == pb.DT_BFLOAT16:
        bits = pb.TensorProto()
        bits.CopyFrom(tensor)
        bits.dtype = pb.DT_UINT16
        bits.int_val.extend(tensor.half_val)
        return _bfloat16(to_array(bits, max_bytes=max_bytes))
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError(f"A tensor's dtype must be one of {_NAMES}. Received: {dtype_name(tensor.dtype)}")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise TensorError(f"A tensor's shape must be fully known. Received: {shape_text(shape)}")
    count = math.prod(shape)
    if count * dtype.itemsize > max_bytes:
        raise TensorError(f"A tensor must fit in {max_bytes} bytes. Received: shape {shape_text(shape)}")
    if count == 0:
        return np.empty(shape, dtype)
    if tensor.tensor_content:
        return _from_content(tensor.tensor_content, dtype, count).reshape(shape)
    field = DTYPES[tensor.dtype].field
    values = getattr(tensor, field)
    if dtype.kind == "O" and count - len(values) > MAX_REPEATED_STRINGS:
        raise TensorError(
            f"A string may be repeated {MAX_REPEATED_STRINGS} times. Received: {len(values)} for {shape_text(shape)}"
        )
    if not values:
        return np.full(shape, b"" if dtype.kind == "O" else 0, dtype)
    flat = np.array(values, np.int32 if field in ("int_val", "half_val") else dtype)[:count]
    if field == "half_val":
        flat = flat.astype(np.uint16).view(np.float16)
    flat = flat.astype(dtype, copy=False)
    if len(flat) < count:
        flat = np.concatenate([flat, np.full(count - len(flat), flat[-1], dtype)])
    return flat.reshape(shape)


def to_tensor(array: ArrayLike, *, content: bool = False, into: pb.TensorProto | None = None) -> pb.TensorProto:
    """Writes an array, as the list of its dtype (as TensorFlow Serving does) or as raw bytes.

    Strings are bytes, or str (written as UTF-8). Arrays of bytes that may end in zeros, such as images, must be object
    arrays: numpy's fixed-width `S` type drops trailing zeros. Lists of bytes are safe. Strings are always listed.

    `content`: whether to write raw bytes. `into`: empty message to write to, such as one in a request; saves a copy.
    """
    given, array = array, np.asarray(array)
    if array.dtype.kind == "S" and array is not given:
        array = np.array(given, object)  # numpy has just dropped trailing zeros
    tensor = pb.TensorProto() if into is None else into
    tensor.dtype = dtype_enum(array.dtype)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == pb.DT_STRING:
        tensor.string_val.extend(map(_to_bytes, array.ravel().tolist()))
        return tensor
    if tensor.dtype == pb.DT_BFLOAT16:
        bits = np.ascontiguousarray(array).view(np.uint16)
        if content:
            tensor.tensor_content = bits.astype("<u2", copy=False).tobytes()
        else:
            tensor.half_val.extend(bits.ravel().tolist())
        return tensor
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    field = DTYPES[tensor.dtype].field
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


def _bfloat16(bits: NDArray[np.uint16]) -> NDArray[Any]:
    bits = np.ascontiguousarray(bits, np.uint16)  # in the machine's order
    try:
        import ml_dtypes
    except ImportError:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(ml_dtypes.bfloat16)


def _from_content(content: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if dtype.kind == "O":
        return _strings_from_content(content, count)
    if len(content) != (size := count * dtype.itemsize):
        raise TensorError(f"tensor_content must hold {size} bytes, {count} x {dtype}. Received: {len(content)} bytes")
    return np.frombuffer(content, dtype.newbyteorder("<"))


def _strings_from_content(content: bytes, count: int) -> NDArray[np.object_]:
    """TensorFlow's format: the length of every string as a varint, then all strings end to end."""
    lengths: list[int] = []
    position = length = shift = 0
    while len(lengths) < count:
        if position == len(content) or shift > 63:
            raise TensorError(f"tensor_content must hold {count} strings. Received: {len(content)} bytes that don't")
        byte = content[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            lengths.append(length)
            length = shift = 0
    size, left = sum(lengths), len(content) - position
    if size != left:
        raise TensorError(f"tensor_content must hold {size} bytes of strings. Received: {left} bytes")
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
    """A non-negative integer in protobuf's encoding: seven bits per byte, lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
