"""The maths of evaluations: confusions, precision and recall, average precision, calibration, errors of numbers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keraslight import _tasks
from keraslight.errors import InvalidArgumentError

Array = npt.NDArray[Any]
BINS = 15


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How well a class is recognized. Shares are 0 to 1, and 0 where they divide by 0.

    Attributes:
        label: Name of the class.
        count: Images of the class.
        precision: Share of the images given this class that are of it.
        recall: Share of the images of the class that are given it.
        f1: Harmonic mean of both.
        threshold: Score above which a `multi-label` model gives the label; None for one of several classes.
        average_precision: Of a `multi-label` model; see the function of that name.
    """

    label: str
    count: int
    precision: float
    recall: float
    f1: float
    threshold: float | None = None
    average_precision: float | None = None


@dataclasses.dataclass(frozen=True)
class ValueScore:
    """How well a number is predicted.

    Attributes:
        label: Name of the number.
        r2: Coefficient of determination: 1 for a perfect fit, 0 for one that is no better than the mean.
        mean_absolute_error: Mean of the errors' sizes.
        root_mean_square_error: Root of the mean of their squares.
        bias: Mean of prediction minus target.
        largest_error: Size of the largest error.
    """

    label: str
    r2: float
    mean_absolute_error: float
    root_mean_square_error: float
    bias: float
    largest_error: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Whether probabilities are what they say, in bins of equal width from 0 to 1.

    Attributes:
        ece: Expected calibration error: the mean of |accuracy - confidence| over the bins, weighted by their counts.
        counts: Answers in each bin. Bin i holds probabilities p with i / n < p <= (i + 1) / n; the first also 0.
        confidence: Mean probability in each bin; NaN for an empty one.
        accuracy: Share of right answers in each bin; NaN for an empty one.
    """

    ece: float
    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def confusion_matrix(targets: npt.ArrayLike, answers: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Counts (K, K), one row per true class and one column per answer.

    Args:
        targets, answers: Integers (N,) from 0 to `classes` - 1.
        classes: Number of classes, K.

    Raises:
        InvalidArgumentError: They have other shapes or values.
    """
    targets, answers = _classes("targets", targets, classes), _classes("answers", answers, classes)
    if len(targets) != len(answers):
        raise InvalidArgumentError(
            f"`targets` and `answers` must be as many. Received: {len(targets)} and {len(answers)}."
        )
    counts = np.bincount(targets * classes + answers, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_scores(confusion: npt.ArrayLike, labels: Sequence[str] | None = None) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class, from a confusion matrix (K, K); see `confusion_matrix`."""
    counts = np.asarray(confusion)
    right, given, true = np.diag(counts), counts.sum(0), counts.sum(1)
    names = labels or [str(number) for number in range(len(counts))]
    return tuple(class_score(label, *map(int, each)) for label, *each in zip(names, right, given, true, strict=True))


def average_precision(targets: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean of the precision over all positive images, each at the threshold of its own score.

    `sum((R_n - R_{n-1}) * P_n)` over the thresholds, without interpolation, as `sklearn.metrics` has it.

    Args:
        targets: 0 or 1, (N,).
        scores: (N,); higher means more likely 1.

    Returns:
        0 to 1; NaN without a positive image.
    """
    positive, found = np.asarray(targets).reshape(-1) > 0.5, np.asarray(scores, np.float64).reshape(-1)
    if len(positive) != len(found):
        raise InvalidArgumentError(
            f"`targets` and `scores` must be as many. Received: {len(positive)} and {len(found)}."
        )
    if not positive.any():
        return math.nan
    order = np.argsort(-found, kind="stable")
    hits, found = np.cumsum(positive[order]), found[order]
    ends = np.flatnonzero(np.append(found[1:] != found[:-1], True))  # equal scores share a threshold
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def calibration(probabilities: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> Calibration:
    """Compares probabilities of answers with how many of them are right.

    Source: Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, equation 3.

    Args:
        probabilities: (N,), 0 to 1, of the answers; of one of several classes the largest.
        right: Whether each is right, (N,).
        bins: Number of bins, at least 1.

    Raises:
        InvalidArgumentError: There is none, they are not as many, or `bins` is below 1.
    """
    stated = np.clip(np.asarray(probabilities, np.float64).reshape(-1), 0, 1)
    hits = np.asarray(right, np.float64).reshape(-1)
    if not len(stated) or len(stated) != len(hits) or bins < 1:
        raise InvalidArgumentError(
            "`probabilities` and `right` must be as many, at least one, and `bins` at least 1. "
            f"Received: {len(stated)} and {len(hits)}, bins={bins}."
        )
    places = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, values, bins) for values in (stated, hits))
    confidence, accuracy = (np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums)
    ece = float(np.nansum(np.abs(accuracy - confidence) * counts) / len(stated))
    return Calibration(ece, tuple(map(int, counts)), tuple(map(float, confidence)), tuple(map(float, accuracy)))


def class_score(label: str, right: int, given: int, true: int, **more: Any) -> ClassScore:
    precision, recall = (right / of if of else 0.0 for of in (given, true))
    return ClassScore(label, true, precision, recall, 2 * right / (given + true) if given + true else 0.0, **more)


def value_score(label: str, targets: Array, found: Array) -> ValueScore:
    errors = np.asarray(found, np.float64) - targets
    sizes = np.abs(errors)
    root = float(np.sqrt((errors**2).mean()))
    return ValueScore(label, _tasks.fit(found, targets), float(sizes.mean()), root, float(errors.mean()), sizes.max())


def _classes(name: str, values: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    found = np.asarray(values)
    whole = found.ndim == 1 and found.dtype.kind in "iu"
    if not whole or (len(found) and not 0 <= found.min() <= found.max() < classes):
        raise InvalidArgumentError(
            f"`{name}` must be integers (N,) from 0 to {classes - 1}. Received: {found.dtype} of shape {found.shape}."
        )
    return found.astype(np.int64)
