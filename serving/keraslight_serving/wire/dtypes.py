"""Names of the types of tensors."""

from keraslight_serving.wire import serving_pb2 as pb

_NUMPY = {"float": "float32", "double": "float64", "half": "float16"}


def dtype_name(enum: int) -> str:
    """TensorFlow's name for a DataType: `float`, `int32`, `string` ..., as its error texts have it."""
    if enum not in pb.DataType.values():
        return f"unknown dtype enum {enum}"
    return pb.DataType.Name(enum).removeprefix("DT_").lower()


def numpy_name(enum: int) -> str:
    """numpy's name for a DataType, `float32`, `int32` ...; `string`, and TensorFlow's name where numpy has none."""
    name = dtype_name(enum)
    return _NUMPY.get(name, name)
