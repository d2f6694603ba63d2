"""Rankings on the wire, read and written without numpy: what classifying files needs.

numpy is three times as large as the rest of the client; `tensors` has the general case.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

from keraslight_serving.wire import serving_pb2 as pb

_LISTS = {pb.DT_FLOAT: ("float_val", "f"), pb.DT_INT32: ("int_val", "i"), pb.DT_INT64: ("int64_val", "q")}


def strings(items: Iterable[bytes]) -> pb.TensorProto:
    """A tensor of shape (items,)."""
    tensor = pb.TensorProto(dtype=pb.DT_STRING, string_val=items)
    tensor.tensor_shape.dim.add(size=len(tensor.string_val))
    return tensor


def rows(tensor: pb.TensorProto) -> list[list]:
    """The rows of a tensor of shape (images, classes) of strings, float32, int32 or int64.

    Raises:
        ValueError: it has another shape or type, or not as many values as its shape says.
    """
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    name = pb.DataType.Name(tensor.dtype) if tensor.dtype in pb.DataType.values() else tensor.dtype
    if len(shape) != 2 or min(shape) < 0 or (tensor.dtype not in _LISTS and tensor.dtype != pb.DT_STRING):
        raise ValueError(f"A ranking must have the shape (images, classes). Received: {name} of shape {shape}")
    count = math.prod(shape)
    if tensor.dtype == pb.DT_STRING:
        values = list(tensor.string_val)
    else:
        field, letter = _LISTS[tensor.dtype]
        values = list(getattr(tensor, field))
        if tensor.tensor_content:
            if len(tensor.tensor_content) != count * struct.calcsize(f"<{letter}"):
                raise ValueError(
                    f"tensor_content must hold {count} values of {name}. Received: {len(tensor.tensor_content)} bytes"
                )
            values = list(struct.unpack(f"<{count}{letter}", tensor.tensor_content))
        elif 0 < len(values) < count:
            values += values[-1:] * (count - len(values))  # a shorter list repeats its last value, as in TensorFlow
    if len(values) != count:
        raise ValueError(f"A tensor of shape {shape} must have {count} values. Received: {len(values)} of {name}")
    return [values[start : start + shape[1]] for start in range(0, count, shape[1])] if shape[1] else [[]] * shape[0]
