"""Parses JSON, and quotes it in errors."""

import json
import re
from collections.abc import Iterator
from typing import Any

from keraslight_serving.server.base.errors import invalid

MAX_CONTAINERS = 2**22  # lists and objects per body: as many as in 83 images of 224x224x3

_QUOTED = 256  # characters of a value in an error's text
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> dict[str, Any]:
    """Returns the object in a request's body, where `NaN`, `Infinity` and `-Infinity` are numbers. Raises
    INVALID_ARGUMENT.

    TensorFlow Serving accepts lists nested 500,000 deep; here the limit is about a thousand levels. It also accepts any
    number of lists. Here they are counted first, because nothing else in the process runs while Python creates them,
    which takes up to half a second per million. A number beyond float64 becomes infinity, where TensorFlow Serving
    rejects the body: finding one would take as long as everything else.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    count = body.count(b"[") + body.count(b"{")
    if count > MAX_CONTAINERS:
        raise invalid(f"A request must have at most {MAX_CONTAINERS} lists and objects. Received: {count}")
    try:
        document = json.loads(body)
        if _SURROGATE.search(body):  # half a pair is a str that nothing can encode
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {quote(document)} Is not object")
    return document


def quote(value: Any) -> str:
    """Returns a value as error texts show it, cut after 256 characters; INVALID_ARGUMENT if it is nested too deeply."""
    text = ""
    try:
        for token in _tokens(value, 0, ""):
            if len(text) >= _QUOTED:
                break
            text += token
    except RecursionError:
        raise invalid("The document is nested too deeply") from None
    return text


def type_name(value: Any) -> str:
    """Returns the JSON type of a value."""
    if value is None or isinstance(value, bool):
        return "Null" if value is None else str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def string(text: str) -> str:
    """Returns a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def error_body(text: str) -> bytes:
    """Returns the body of the answer to a failed request."""
    return f'{{\n    "error": {string(text)}\n}}'.encode(errors="replace")


def _tokens(value: Any, level: int, before: str) -> Iterator[str]:
    """Yields the parts of a quote: lists on one line, objects on several lines, as in TensorFlow Serving."""
    if isinstance(value, list):
        yield before + "["
        for place, item in enumerate(value):
            yield from _tokens(item, level + 1, ", " if place else "")
        yield "]"
    elif isinstance(value, dict):
        yield before + "{"
        for place, (key, item) in enumerate(value.items()):
            yield f"{',' if place else ''}\n{'    ' * (level + 1)}{string(key)}"
            yield from _tokens(item, level + 1, ": ")
        yield f"\n{'    ' * level}}}" if value else "}"
    else:
        yield before + json.dumps(value, ensure_ascii=False)
