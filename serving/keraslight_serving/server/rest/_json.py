"""Parses JSON, and quotes it in errors."""

import json
import re
from collections.abc import Iterator
from typing import Any

from keraslight_serving.server.base.errors import invalid

# Values, lists and objects per body: as many as in 41 images of 224x224x3. They may take 400 MB for a moment.
MAX_VALUES = 2**23
MAX_KEYS = 2**19  # each takes several times the memory of a number
LARGE = 2**18  # bytes of a body from which the lists in it are parsed item by item

_QUOTED = 256  # characters of a value in an error's text
_ESCAPES = re.compile(r"\\(?:u(?:([dD][89abAB]..)(\\u[dD][c-fC-F])?|([dD][c-fC-F]))|.)", re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Returns the object in a request's body, where `NaN`, `Infinity` and `-Infinity` are numbers. Raises
    INVALID_ARGUMENT.

    TensorFlow Serving accepts lists nested 500,000 deep; here the limit is about a thousand levels. It also accepts any
    number of values. Here they are counted first, because they may take thirty times the memory of the body. A number
    beyond float64 becomes infinity, where TensorFlow Serving rejects the body: finding one would take as long as
    everything else. As there, the only encoding is UTF-8.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    count = body.count(b"[") + body.count(b"{") + body.count(b",")
    if count > MAX_VALUES:
        raise invalid(f"A request must have at most {MAX_VALUES} values, lists and objects. Received: {count}")
    # Colons in strings count, too. Only a text has this many.
    if (keys := body.count(b":")) > MAX_KEYS:
        raise invalid(f"A request must have at most {MAX_KEYS} keys of objects. Received: {keys}")
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text) if len(body) < LARGE else _parse_by_items(text)
        if "\\u" in text:
            _check_surrogates(text)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {quote(document)} Is not object")
    return document


def _check_surrogates(text: str) -> None:
    """Half a pair is a str that nothing can encode."""
    for escape in _ESCAPES.finditer(text):
        if (escape[1] and not escape[2]) or escape[3]:
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.")


def _parse_by_items(text: str) -> Any:
    """As `json.loads`, but parses the lists of the outermost object item by item.

    Nothing else in the process runs while Python parses, and a batch of images may take seconds. Between items, other
    requests have their turn.
    """
    decoder = json.JSONDecoder()
    place = _after_space(text, 0)
    if text[place : place + 1] != "{":
        return decoder.decode(text)
    found: dict[str, Any] = {}
    place = _after_space(text, place + 1)
    if text[place : place + 1] == "}":
        return _alone(found, text, place + 1)
    while True:
        if text[place : place + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
        key, place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
        if text[place : place + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
        place = _after_space(text, place + 1)
        if text[place : place + 1] == "[":
            found[key], place = _items(decoder, text, place)
        else:
            found[key], place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
        if text[place : place + 1] == "}":
            return _alone(found, text, place + 1)
        if text[place : place + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
        place = _after_space(text, place + 1)


def _items(decoder: json.JSONDecoder, text: str, place: int) -> tuple[list[Any], int]:
    """Parses the list that begins at `place`. Returns it, and where it ends."""
    found: list[Any] = []
    place = _after_space(text, place + 1)
    if text[place : place + 1] == "]":
        return found, place + 1
    while True:
        item, place = decoder.raw_decode(text, place)
        found.append(item)
        place = _after_space(text, place)
        if text[place : place + 1] == "]":
            return found, place + 1
        if text[place : place + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
        place = _after_space(text, place + 1)


def _alone(document: Any, text: str, place: int) -> Any:
    place = _after_space(text, place)
    if place != len(text):
        raise json.JSONDecodeError("Extra data", text, place)
    return document


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None  # noqa: S101, for the type checker: it matches nothing, too
    return found.end()


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
