"""JSON -> tf.Example, for classify and regress."""

import math
from collections.abc import Mapping
from typing import Any

from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.calls.examples import Examples
from keraslight_serving.server.rest._json import quote, type_name
from keraslight_serving.server.rest._tensors import decode_base64, is_base64
from keraslight_serving.wire import serving_pb2 as pb

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}  # the fields of Feature


def read_examples(document: Mapping[str, Any]) -> Examples:
    """Returns the `examples` of a classify or regress request, and its `context` if any. Raises INVALID_ARGUMENT.

    Integers and booleans become int64, other numbers float, strings and `{"b64": ...}` bytes.
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
    return Examples([_example(example) for example in examples], context)


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_name(value)}")
    example = pb.Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            kind, converted = _value(name, item)
            before = feature.WhichOneof("kind")
            if before not in (None, kind):
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[before]}")
            getattr(feature, kind).value.append(converted)
    return example.SerializeToString()


def _value(name: str, value: Any) -> tuple[str, bytes | int | float]:
    """Returns the field of Feature that a value belongs in, and the value as stored there."""
    if isinstance(value, str):
        return "bytes_list", value.encode()
    if is_base64(value):
        return "bytes_list", decode_base64(value)
    if isinstance(value, int):  # or bool
        if -(2**63) <= value < 2**63:
            return "int64_list", int(value)
        if 0 < value < 2**64:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(value, int | float):
        try:
            return "float_list", float(value)
        except OverflowError:  # an integer beyond the largest double
            return "float_list", math.inf if value > 0 else -math.inf
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")
