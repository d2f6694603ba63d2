"""Names of the 1,000 ImageNet-1k classes, and named rankings of model outputs."""

import functools
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from keraslight import _doors

_doors.require("keraslight.labels", "models", "numpy")

import numpy as np
from numpy.typing import ArrayLike

from keraslight.errors import InvalidArgumentError


class Prediction(NamedTuple):
    """A class in a ranking.

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
    return tuple(resources.files("keraslight").joinpath("imagenet_labels.txt").read_text(encoding="utf-8").splitlines())


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
        InvalidArgumentError: `probabilities` has another shape, or another number of classes than labels.
    """
    labels = imagenet_labels() if labels is None else labels
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
