"""Rankings on the wire, read and written without numpy: what classifying files needs.

numpy is three times as large as the rest of the client; `tensors` has the general case.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import dtype_name

_FIELDS = {  # where the values stand, and their letter in `tensor_content`, which strings have not
    pb.DT_STRING: ("string_val", ""),
    pb.DT_FLOAT: ("float_val", "f"),
    pb.DT_INT32: ("int_val", "i"),
    pb.DT_INT64: ("int64_val", "q"),
}


def write_strings(tensor: pb.TensorProto, items: Iterable[bytes]) -> None:
    """Makes an empty tensor one of strings, of shape (items,)."""
    tensor.dtype = pb.DT_STRING
    tensor.string_val.extend(items)
    tensor.tensor_shape.dim.add(size=len(tensor.string_val))


def rows(tensor: pb.TensorProto) -> list[list]:
    """The rows of a tensor of shape (images, classes) of strings, float32, int32 or int64.

    Raises:
        ValueError: it has another shape or type, or not as many values as its shape says.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if len(shape) != 2 or min(shape) < 0 or tensor.dtype not in _FIELDS:
        kind = dtype_name(tensor.dtype)
        raise ValueError(f"A ranking must have the shape (images, classes). Received: {kind} of shape {shape}")
    count = shape[0] * shape[1]
    field, letter = _FIELDS[tensor.dtype]
    values = getattr(tensor, field)[:]
    if letter and tensor.tensor_content:
        if len(tensor.tensor_content) != count * struct.calcsize(f"<{letter}"):
            raise ValueError(
                f"tensor_content must hold {count} values of {dtype_name(tensor.dtype)}. "
                f"Received: {len(tensor.tensor_content)} bytes"
            )
        values = list(struct.unpack(f"<{count}{letter}", tensor.tensor_content))
    elif letter and 0 < len(values) < count:
        values += values[-1:] * (count - len(values))  # a shorter list repeats its last value, as in TensorFlow
    if len(values) != count:
        kind = dtype_name(tensor.dtype)
        raise ValueError(f"A tensor of shape {shape} must have {count} values. Received: {len(values)} of {kind}")
    return [values[start : start + shape[1]] for start in range(0, count, shape[1])] if shape[1] else [[]] * shape[0]
