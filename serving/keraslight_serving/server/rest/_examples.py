"""JSON -> tf.Example, for classify and regress.

The messages are written by hand, in protobuf's wire format: they are three, and their module is TensorFlow's.
(tensorflow/core/example: Example.features = 1, Features.feature = 1, a map; Feature.bytes_list = 1, float_list = 2,
int64_list = 3; in each list value = 1.)
"""

import struct
from collections.abc import Mapping
from typing import Any

from keraslight_serving.server._errors import invalid
from keraslight_serving.server.rest._json import quote, type_name
from keraslight_serving.server.rest._tensors import decode_base64, is_base64
from keraslight_serving.wire import serving_pb2 as pb
from keraslight_serving.wire.tensors import varint

_BYTES, _FLOAT, _INT64 = 1, 2, 3  # the fields of Feature
_KINDS = {_BYTES: "bytes", _FLOAT: "float", _INT64: "int64"}


def read_examples(document: Mapping[str, Any]) -> pb.Input:
    """The input of a classify or regress request: its `examples`, and `context` if there is one.

    Whole numbers and booleans become int64, other numbers float, strings and `{"b64": ...}` bytes.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    context = _example(document["context"]) if "context" in document else None
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {quote(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {quote(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {quote(document)} 'examples' value is an empty array")
    serialized = [_example(example) for example in examples]
    if context is None:
        return pb.Input(example_list=pb.ExampleList(examples=serialized))
    return pb.Input(example_list_with_context=pb.ExampleListWithContext(examples=serialized, context=context))


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    features = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(name, content))) for name, content in value.items()
    )
    return _field(1, features)


def _feature(name: str, content: Any) -> bytes:
    kind, values = None, []
    for value in content if isinstance(content, list) else [content]:
        this, written = _value(name, value)
        if kind not in (None, this):
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[kind]}")
        kind = this
        values.append(written)
    if kind is None:
        return b""
    joined = b"".join(values)
    return _field(kind, joined if kind == _BYTES else _field(1, joined))


def _value(name: str, value: Any) -> tuple[int, bytes]:
    """The kind of a value, and its part of the list: packed numbers, or a whole field for bytes."""
    if isinstance(value, str):
        return _BYTES, _field(1, value.encode())
    if is_base64(value):
        return _BYTES, _field(1, decode_base64(value))
    if isinstance(value, int):  # or bool
        if -(2**63) <= value < 2**63:
            return _INT64, varint(value % 2**64)
        if 0 < value < 2**64:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(value, int | float):
        try:
            return _FLOAT, struct.pack("<f", value)
        except OverflowError:  # beyond the largest float32 is infinity
            return _FLOAT, struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content
