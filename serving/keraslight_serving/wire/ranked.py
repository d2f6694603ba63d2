"""Rankings <-> TensorProto, without numpy: all that classifying files needs.

numpy is three times as large as the rest of the client. `tensors` handles the general case.
"""

import struct
from collections.abc import Iterable
from typing import Any

from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.dtypes import DTYPES, dtype_name

# The dtypes of a ranking, with the `struct` code of a value in `tensor_content`, where strings are not read.
_CODES: dict[int, str] = {pb.DT_STRING: "", pb.DT_FLOAT: "f", pb.DT_INT32: "i", pb.DT_INT64: "q"}


def write_strings(tensor: pb.TensorProto, items: Iterable[bytes]) -> None:
    """Turns an empty tensor into a vector of strings."""
    tensor.dtype = pb.DT_STRING
    tensor.string_val.extend(items)
    tensor.tensor_shape.dim.add(size=len(tensor.string_val))


def rows(tensor: pb.TensorProto) -> list[list[Any]]:
    """The rows of a tensor of shape (images, classes), of dtype string, float32, int32 or int64, or a ValueError."""
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if len(shape) != 2 or min(shape) < 0 or tensor.dtype not in _CODES:
        kind = dtype_name(tensor.dtype)
        raise ValueError(f"A ranking must have the shape (images, classes). Received: {kind} of shape {shape}")
    count, code = shape[0] * shape[1], _CODES[tensor.dtype]
    values = getattr(tensor, DTYPES[tensor.dtype].field)[:]
    if code and tensor.tensor_content:
        if len(tensor.tensor_content) != count * struct.calcsize(f"<{code}"):
            kind, size = dtype_name(tensor.dtype), len(tensor.tensor_content)
            raise ValueError(f"tensor_content must hold {count} values of {kind}. Received: {size} bytes")
        values = list(struct.unpack(f"<{count}{code}", tensor.tensor_content))
    elif code and 0 < len(values) < count:
        values += values[-1:] * (count - len(values))  # as in TensorFlow, a short list repeats its last value
    if len(values) != count:
        kind = dtype_name(tensor.dtype)
        raise ValueError(f"A tensor of shape {shape} must have {count} values. Received: {len(values)} of {kind}")
    return [values[start : start + shape[1]] for start in range(0, count, shape[1])] if shape[1] else [[]] * shape[0]
