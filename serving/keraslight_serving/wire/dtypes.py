"""The dtypes of tensors: their names, and where a TensorProto holds their values."""

from typing import NamedTuple

from keraslight_serving.wire import serving_pb2 as pb


class Dtype(NamedTuple):
    """A dtype that arrays and tensors have in common."""

    name: str  # numpy's, or `string`
    field: str  # the list of a TensorProto that holds the values


DTYPES: dict[int, Dtype] = {
    pb.DT_FLOAT: Dtype("float32", "float_val"),
    pb.DT_DOUBLE: Dtype("float64", "double_val"),
    pb.DT_INT8: Dtype("int8", "int_val"),
    pb.DT_INT16: Dtype("int16", "int_val"),
    pb.DT_INT32: Dtype("int32", "int_val"),
    pb.DT_INT64: Dtype("int64", "int64_val"),
    pb.DT_UINT8: Dtype("uint8", "int_val"),
    pb.DT_UINT16: Dtype("uint16", "int_val"),
    pb.DT_UINT32: Dtype("uint32", "uint32_val"),
    pb.DT_UINT64: Dtype("uint64", "uint64_val"),
    pb.DT_BOOL: Dtype("bool", "bool_val"),
    pb.DT_HALF: Dtype("float16", "half_val"),  # as bits in an int32
    pb.DT_BFLOAT16: Dtype("bfloat16", "half_val"),  # likewise; numpy only has it with ml_dtypes
    pb.DT_STRING: Dtype("string", "string_val"),
}


def dtype_name(enum: int) -> str:
    """TensorFlow's name for a DataType, as in its error texts: `float`, `int32`, `string`."""
    if enum not in pb.DataType.values():
        return f"unknown dtype enum {enum}"
    return pb.DataType.Name(enum).removeprefix("DT_").lower()


def numpy_name(enum: int) -> str:
    """numpy's name for a DataType, or `string`; TensorFlow's name for types that numpy lacks."""
    return DTYPES[enum].name if enum in DTYPES else dtype_name(enum)
