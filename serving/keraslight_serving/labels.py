"""Names of classes: the rules that they follow, and the files that hold them.

`keraslight.labels` raises its own errors for them. Files hold one name per line and are only split
at line feeds, because the other characters at which `str.splitlines` splits may be part of a name.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_TWICE = frozenset({"crane", "maillot"})  # names that two classes of ImageNet-1k have


def check_labels(labels: Iterable[str], classes: int | None = None) -> list[str]:
    """Returns the names of a model's classes as a list, unchanged.

    Args:
        labels: Names that differ, except for those that ImageNet-1k has twice. They must hold more than spaces, no line
            feed or carriage return, no byte order mark at the start, and only characters that UTF-8 can encode.
        classes: Number of classes; None for any.

    Raises:
        ValueError: A name breaks a rule, and the text says at which index; or their number is another.
    """
    labels = list(labels)
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise ValueError(f"`labels` must be strings. Received: {label!r} at index {index}.")
        if fault := _fault(label):
            rule, what = fault
            raise ValueError(f"`labels` {rule}. Received: {what}, {label!r} at index {index}.")
    if classes is not None and len(labels) != classes:
        raise ValueError(f"`labels` must name every class once. Received: {len(labels)} labels for {classes} classes.")
    if repeated := _repeated(labels):
        first, second = repeated
        raise ValueError(f"`labels` must differ. Received: {labels[first]!r} at index {first} and at index {second}.")
    return labels


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Reads a UTF-8 text file with one class name per line.

    A byte order mark, the carriage returns of Windows, and blank lines at the end are no part of the names. If every
    line begins with its index from 0, as in "0 cat" or "0: cat", the indices aren't either.

    Raises:
        ValueError: The file isn't UTF-8 text, or a line breaks a rule of `check_labels`; the text says which.
    """
    rule = "A label file must be UTF-8 text with one class name per line."
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        line = content.split(b"\n")[number - 1]
        raise ValueError(f"{rule} Received: {path}, line {number}: {line!r}.") from error
    labels = [line.removesuffix("\r") for line in text.split("\n")]
    while labels and not labels[-1].strip():
        del labels[-1]
    if not labels:
        raise ValueError(f"{rule} Received: {path}, which is empty.")
    for number, label in enumerate(labels, 1):
        if fault := _fault(label):
            raise ValueError(f"{rule} Received: {path}, line {number}: {fault[1]}, {label!r}.")
    indexed = [re.fullmatch(r"(\d+)(?:\s*[:,;\t]\s*|\s+)(\S.*)", label, re.DOTALL) for label in labels]
    if [found and int(found[1]) for found in indexed] == list(range(len(labels))):
        labels = [found[2] for found in indexed if found]
    elif all(indexed) and sorted(int(found[1]) for found in indexed if found) == list(range(len(labels))):
        place = next(i for i, found in enumerate(indexed) if found and int(found[1]) != i)
        raise ValueError(f"{rule} Indices must be in order. Received: {path}, line {place + 1}: {labels[place]!r}.")
    if repeated := _repeated(labels):
        first, second = repeated
        raise ValueError(
            f"{rule} Names must differ. Received: {path}, lines {first + 1} and {second + 1}: {labels[first]!r}."
        )
    return labels


def _fault(label: str) -> tuple[str, str] | None:
    """The rule that a name breaks, and what it is."""
    if not label.strip():
        return "must hold more than spaces", "a blank label"
    if "\n" in label or "\r" in label:
        return "are written one per line", "a label with a line break"
    if label.startswith("\ufeff"):
        return "must be names alone", "a label with a byte order mark"
    if any("\ud800" <= character <= "\udfff" for character in label):
        return "must be text that UTF-8 can encode", "a label that is not"
    return None


def _repeated(labels: Sequence[str]) -> tuple[int, int] | None:
    """The places of a name's first repetition."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        found = places.setdefault(label, [])
        found.append(place)
        if len(found) > (2 if len(labels) == 1000 and label in _TWICE else 1):
            return found[-2], place
    return None
