"""The names of the 1,000 ImageNet-1k classes, and rankings of a model's outputs by name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from keraslight.errors import InvalidArgumentError


class Prediction(NamedTuple):
    """One class of a ranking."""

    label: str
    score: float
    index: int


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1,000 names in the order of every published ImageNet-1k checkpoint (by WordNet id, as in ILSVRC 2012).

    A few names stand for two classes each (crane the bird and crane the machine, maillot), so use the index as a key.
    """
    return tuple(resources.files("keraslight").joinpath("imagenet_labels.txt").read_text(encoding="utf-8").split("\n"))[
        :-1
    ]


def decode_predictions(
    probabilities: np.ndarray, top: int = 5, labels: Sequence[str] | None = None
) -> list[list[Prediction]]:
    """Ranks a model's outputs by name.

    Args:
        probabilities: (B, classes), or (classes,) for one image; logits rank the same.
        top: Length of each ranking, at least 1; at most the number of classes counts.
        labels: The class names, in order. None: the ImageNet-1k classes.

    Returns:
        One ranking an image, best first.

    Raises:
        InvalidArgumentError: another shape, or another number of classes than labels.
    """
    labels = imagenet_labels() if labels is None else labels
    scores = np.atleast_2d(np.asarray(probabilities))
    if scores.ndim != 2 or scores.shape[1] != len(labels):
        raise InvalidArgumentError(
            f"`probabilities` must be (images, {len(labels)}), one column a label. Received: shape "
            f"{np.shape(probabilities)}."
        )
    if top < 1:
        raise InvalidArgumentError(f"`top` must be at least 1. Received: top={top}.")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(labels[i], float(row[i]), int(i)) for i in ranks] for row, ranks in zip(scores, order, strict=True)
    ]
