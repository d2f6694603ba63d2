"""Class names: the rules that they follow, the files that hold them, ImageNet-1k's, and named rankings.

Names are kept exactly as they are, from a folder or a list to the client's answer, or refused. Files hold one per line
and are only split at line feeds: U+0085, U+2028, vertical tabs and form feeds, at which `str.splitlines` splits too,
are characters of a name. `keraslight_serving.labels` has the same rules for clients.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from keraslight import _doors

_doors.require("keraslight.labels", "models", "numpy")

import numpy as np
from numpy.typing import ArrayLike

from keraslight.errors import InvalidArgumentError


class Prediction(NamedTuple):
    """A class in a ranking: a tuple that can be unpacked. `index` is the class's, not the method of tuples.

    Attributes:
        label: Name of the class.
        score: Its probability or logit.
        index: Its index among the model's classes.
    """

    label: str
    score: float
    index: int  # type: ignore[assignment]  # public name, which hides the method of tuples


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 class names, in the order of published ImageNet-1k checkpoints (by WordNet ID, as in ILSVRC 2012).

    Names aren't unique (crane is a bird and a machine, and there are two maillots), so use the index as a key.
    """
    return tuple(resources.files("keraslight").joinpath("imagenet_labels.txt").read_text(encoding="utf-8").split("\n"))[
        :-1
    ]


def check_labels(labels: Iterable[str], classes: int | None = None) -> list[str]:
    """Returns the names of a model's classes as a list, unchanged.

    Args:
        labels: Names that differ, except for those that ImageNet-1k has twice. They must hold more than spaces, no line
            feed or carriage return, no byte order mark at the start, and only characters that UTF-8 can encode.
        classes: Number of classes; None for any.

    Raises:
        InvalidArgumentError: A name breaks a rule, and the text says at which index; or their number is another.
    """
    labels = list(labels)
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise InvalidArgumentError(f"`labels` must be strings. Received: {label!r} at index {index}.")
        if fault := _fault(label):
            rule, what = fault
            raise InvalidArgumentError(f"`labels` {rule}. Received: {what}, {label!r} at index {index}.")
    if classes is not None and len(labels) != classes:
        raise InvalidArgumentError(
            f"`labels` must name every class once. Received: {len(labels)} labels for {classes} classes."
        )
    if repeated := _repeated(labels):
        first, second = repeated
        raise InvalidArgumentError(
            f"`labels` must differ. Received: {labels[first]!r} at index {first} and at index {second}."
        )
    return labels


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Reads a UTF-8 text file with one class name per line.

    A byte order mark, the carriage returns of Windows, and blank lines at the end are no part of the names. If every
    line begins with its index from 0, as in "0 cat" or "0: cat", the indices aren't either.

    Raises:
        InvalidArgumentError: The file isn't UTF-8 text, or a line breaks a rule of `check_labels`; the text says which.
    """
    rule = "A label file must be UTF-8 text with one class name per line."
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        line = content.split(b"\n")[number - 1]
        raise InvalidArgumentError(f"{rule} Received: {path}, line {number}: {line!r}.") from error
    labels = [line.removesuffix("\r") for line in text.split("\n")]
    while labels and not labels[-1].strip():
        del labels[-1]
    if not labels:
        raise InvalidArgumentError(f"{rule} Received: {path}, which is empty.")
    for number, label in enumerate(labels, 1):
        if fault := _fault(label):
            raise InvalidArgumentError(f"{rule} Received: {path}, line {number}: {fault[1]}, {label!r}.")
    indexed = [re.fullmatch(r"(\d+)(?:\s*[:,;\t]\s*|\s+)(\S.*)", label, re.DOTALL) for label in labels]
    if [found and int(found[1]) for found in indexed] == list(range(len(labels))):
        labels = [found[2] for found in indexed if found]
    elif all(indexed) and sorted(int(found[1]) for found in indexed if found) == list(range(len(labels))):
        place = next(i for i, found in enumerate(indexed) if found and int(found[1]) != i)
        raise InvalidArgumentError(
            f"{rule} Indices must be in order. Received: {path}, line {place + 1}: {labels[place]!r}."
        )
    if repeated := _repeated(labels):
        first, second = repeated
        raise InvalidArgumentError(
            f"{rule} Names must differ. Received: {path}, lines {first + 1} and {second + 1}: {labels[first]!r}."
        )
    return labels


def label_lines(labels: Iterable[str]) -> str:
    """The content of a label file."""
    return "".join(f"{label}\n" for label in labels)


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
    allowed = _imagenet_counts() if len(labels) == len(imagenet_labels()) else Counter[str]()
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        found = places.setdefault(label, [])
        found.append(place)
        if len(found) > max(allowed[label], 1):
            return found[-2], place
    return None


@functools.cache
def _imagenet_counts() -> Counter[str]:
    return Counter(imagenet_labels())


def decode_predictions(
    probabilities: ArrayLike, top: int = 5, labels: Sequence[str] | None = None
) -> list[list[Prediction]]:
    """Converts a model's outputs to named rankings.

    Args:
        probabilities: Probabilities or logits, (B, classes), or (classes,) for one image.
        top: Length of the rankings, at least 1; limited to the number of classes.
        labels: Class names; None for the ImageNet-1k classes.

    Returns:
        One ranking per image, best class first.

    Raises:
        InvalidArgumentError: `probabilities` has another shape, or another number of classes than labels, or a label
            can't be a name.
    """
    labels = imagenet_labels() if labels is None else check_labels(labels)
    scores = np.atleast_2d(np.asarray(probabilities))
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise InvalidArgumentError(
            f"`probabilities` must be (images, {len(labels)}), one column per label. Received: shape "
            f"{np.shape(probabilities)}."
        )
    if top < 1:
        raise InvalidArgumentError(f"`top` must be at least 1. Received: top={top}.")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(labels[i], float(row[i]), int(i)) for i in ranks] for row, ranks in zip(scores, order, strict=True)
    ]
