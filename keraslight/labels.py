"""Class names: the rules that they follow, the files that hold them, ImageNet-1k's, and named rankings.

Names are kept exactly as they are, from a folder or a list to the client's answer, or refused. Files hold one per line
and are only split at line feeds: U+0085, U+2028, vertical tabs and form feeds, at which `str.splitlines` splits too,
are characters of a name. The rules are those of `keraslight_serving.labels`, which clients use.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from keraslight import _doors

_doors.require("keraslight.labels", "models", "numpy")

import numpy as np
from keraslight_serving import labels as rules
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
    with _as_own_errors():
        return rules.check_labels(labels, classes)


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """Reads a UTF-8 text file with one class name per line.

    A byte order mark, the carriage returns of Windows, and blank lines at the end are no part of the names. If every
    line begins with its index from 0, as in "0 cat" or "0: cat", the indices aren't either.

    Raises:
        InvalidArgumentError: The file isn't UTF-8 text, or a line breaks a rule of `check_labels`; the text says which.
    """
    with _as_own_errors():
        return rules.read_labels(path)


@contextlib.contextmanager
def _as_own_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from error


def label_lines(labels: Iterable[str]) -> str:
    """The content of a label file."""
    return "".join(f"{label}\n" for label in labels)


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
