"""COCO's twelve figures, in NumPy and without pycocotools, which a test compares them with.

Source: Lin et al., "Microsoft COCO", ECCV 2014, https://arxiv.org/abs/1405.0312, and
https://cocodataset.org/#detection-eval. The rules that decide ties and borders are those of pycocotools' `COCOeval`:
detections are matched in the order of their scores, each with the free truth that it overlaps most; truths that don't
count (crowds, and those outside the range of areas) are taken only if no other fits; what is matched with them doesn't
count either; precision is read at 101 recalls.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keraslight.errors import InvalidArgumentError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LIMITS = (1, 10, 100)
"""Detections per image and class that the recalls are given for. The last limit holds for all other figures."""


class Truths(NamedTuple):
    """The objects of one image.

    Args:
        boxes: (T, 4), left, top, right, bottom in pixels.
        labels: int (T,), 0..K-1.
        crowds: bool (T,): whether a box is around many objects, of which any number may be detected. None: none is.
        areas: (T,), pixels that decide whether an object is small, medium or large. None: the boxes' areas.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray | None = None
    areas: np.ndarray | None = None


class Detections(NamedTuple):
    """What was detected in one image.

    Args:
        boxes: (D, 4), left, top, right, bottom in pixels.
        scores: (D,).
        labels: int (D,), 0..K-1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DetectionFigures:
    """COCO's figures, each from 0 to 1, or -1 if there are no truths that they refer to.

    Attributes:
        ap: Mean average precision over classes and overlaps 0.5, 0.55, ..., 0.95.
        ap50, ap75: Average precision for overlaps of at least 0.5 and 0.75.
        ap_small, ap_medium, ap_large: `ap` of objects of less than 32 x 32 pixels, up to 96 x 96, and above.
        ar1, ar10, ar100: Mean recall with 1, 10 and 100 detections per image and class.
        ar_small, ar_medium, ar_large: `ar100` by the objects' sizes.
        class_ap, class_ap50: `ap` and `ap50` of each class.
        precision: (10, K): mean precision over recalls, by overlap and class.
        recall: (10, K, 4): recall by overlap, class and range of areas (all, small, medium, large).
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    class_ap: tuple[float, ...]
    class_ap50: tuple[float, ...]
    precision: np.ndarray
    recall: np.ndarray

    def summary(self) -> tuple[float, ...]:
        """Returns the twelve figures in COCO's order."""
        names = [field.name for field in dataclasses.fields(self)][:12]
        return tuple(getattr(self, name) for name in names)

    def per_class(self, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Returns `class_ap` by the classes' names, or by their indices."""
        names = map(str, range(len(self.class_ap))) if labels is None else labels
        return dict(zip(names, self.class_ap, strict=True))


class _Objects(NamedTuple):
    """The truths of one image and class: boxes (T, 4), crowds (T,) and areas (T,)."""

    boxes: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Matches:
    """What became of one image's detections of one class, best first, for one range of areas.

    Args:
        scores: (D,).
        matched: bool (10, D): whether a truth was found, by overlap.
        ignored: bool (10, D): whether the detection doesn't count.
        count: Truths that count.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    count: int


def figures(truths: Sequence[Truths], detections: Sequence[Detections], classes: int) -> DetectionFigures:
    """Computes COCO's figures.

    Args:
        truths: The objects of each image.
        detections: What was detected in each image, in the same order.
        classes: Number of classes K, at least 1.

    Raises:
        InvalidArgumentError: The numbers of images differ, or a label is out of range.
    """
    if len(truths) != len(detections):
        raise InvalidArgumentError(
            "`truths` and `detections` must have one entry per image. "
            f"Received: {len(truths)} and {len(detections)} entries."
        )
    for name, entries in (("truths", truths), ("detections", detections)):
        for entry in entries:
            labels = np.asarray(entry.labels)
            if labels.size and not (labels.min() >= 0 and labels.max() < classes):
                raise InvalidArgumentError(
                    f"Labels of `{name}` must be in 0..{classes - 1}. Received: {labels.min()}..{labels.max()}."
                )
    # -1: no truths, which no mean counts
    precision = -np.ones((len(THRESHOLDS), len(RECALLS), classes, len(AREAS)))
    recall = -np.ones((len(THRESHOLDS), classes, len(AREAS), len(LIMITS)))
    for label in range(classes):
        pairs = [
            (_truths_of(truth, label), _detections_of(found, label))
            for truth, found in zip(truths, detections, strict=True)
        ]
        pairs = [(truth, found) for truth, found in pairs if len(truth.boxes) or len(found.boxes)]
        overlaps = [_overlaps(found.boxes, truth) for truth, found in pairs]
        for a, bounds in enumerate(AREAS.values()):
            matches = [
                _match(truth, found, overlap, bounds) for (truth, found), overlap in zip(pairs, overlaps, strict=True)
            ]
            count = sum(match.count for match in matches)
            if not count:
                continue
            for m, limit in enumerate(LIMITS):
                reached, curve = _curves(matches, limit, count)
                recall[:, label, a, m] = reached
                if limit == LIMITS[-1]:
                    precision[:, :, label, a] = curve
    return _summary(precision, recall)


def _summary(precision: np.ndarray, recall: np.ndarray) -> DetectionFigures:
    """Returns the figures from precisions (T, R, K, A) and recalls (T, K, A, M)."""
    places = {name: place for place, name in enumerate(AREAS)}
    ap = {name: _mean(precision[..., place]) for name, place in places.items()}
    ar = {name: _mean(recall[:, :, place, -1]) for name, place in places.items()}
    whole = precision[..., 0]
    return DetectionFigures(
        ap=ap["all"],
        ap50=_mean(whole[0]),
        ap75=_mean(whole[5]),
        ap_small=ap["small"],
        ap_medium=ap["medium"],
        ap_large=ap["large"],
        ar1=_mean(recall[:, :, 0, 0]),
        ar10=_mean(recall[:, :, 0, 1]),
        ar100=ar["all"],
        ar_small=ar["small"],
        ar_medium=ar["medium"],
        ar_large=ar["large"],
        class_ap=tuple(_mean(whole[:, :, label]) for label in range(whole.shape[2])),
        class_ap50=tuple(_mean(whole[0, :, label]) for label in range(whole.shape[2])),
        precision=whole.mean(axis=1),
        recall=recall[..., -1],
    )


def _mean(values: np.ndarray) -> float:
    """The mean of the values that aren't -1; -1 if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _truths_of(truths: Truths, label: int) -> _Objects:
    """The objects of one class, in float64, with crowds and areas."""
    chosen = np.asarray(truths.labels) == label
    boxes = np.asarray(truths.boxes, np.float64).reshape(-1, 4)[chosen]
    crowds = np.zeros(len(chosen), bool) if truths.crowds is None else np.asarray(truths.crowds, bool)
    areas = _areas(boxes) if truths.areas is None else np.asarray(truths.areas, np.float64)[chosen]
    return _Objects(boxes, crowds[chosen], areas)


def _detections_of(found: Detections, label: int) -> Detections:
    """The detections of one class, best first, as many as count, in float64."""
    (chosen,) = np.nonzero(np.asarray(found.labels) == label)
    scores = np.asarray(found.scores, np.float64)[chosen]
    order = np.argsort(-scores, kind="stable")[: LIMITS[-1]]
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)[chosen]
    return Detections(boxes[order], scores[order], np.asarray(found.labels)[chosen][order])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlaps(boxes: np.ndarray, truths: _Objects) -> np.ndarray:
    """(D, T): intersection over union; of a crowd, over the detection's own area."""
    low = np.maximum(boxes[:, None, :2], truths.boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truths.boxes[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    own = _areas(boxes)[:, None]
    whole = np.where(truths.crowds, own, own + _areas(truths.boxes) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _match(truths: _Objects, found: Detections, overlaps: np.ndarray, bounds: tuple[float, float]) -> _Matches:
    """Matches detections with truths of areas within `bounds`, at each overlap."""
    low, high = bounds
    outside = truths.crowds | (truths.areas < low) | (truths.areas > high)
    order = np.argsort(outside, kind="stable")  # those that count first
    ignored, crowds, overlaps = outside[order], truths.crowds[order], overlaps[:, order]
    shape = (len(THRESHOLDS), len(found.scores))
    matched, dropped = np.zeros(shape, bool), np.zeros(shape, bool)
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(order), bool)
        for d in range(len(found.scores)):
            best = _best(overlaps[d], threshold, free | crowds, ignored)
            if best is not None:
                matched[t, d], dropped[t, d] = True, ignored[best]
                free[best] = False
    area = _areas(found.boxes)
    dropped |= ~matched & ((area < low) | (area > high))
    return _Matches(found.scores, matched, dropped, int((~ignored).sum()))


def _best(overlaps: np.ndarray, threshold: float, free: np.ndarray, ignored: np.ndarray) -> int | None:
    """The truth that a detection is matched with: the last of those with the largest overlap, one that counts first."""
    fits = free & (overlaps >= min(threshold, 1 - 1e-10))
    for group in (fits & ~ignored, fits & ignored):
        if group.any():
            best = overlaps[group].max()
            return int(np.nonzero(group & (overlaps == best))[0][-1])
    return None


def _curves(matches: Sequence[_Matches], limit: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the recall (T,) and the precision at each of the 101 recalls (T, 101)."""
    scores = np.concatenate([match.scores[:limit] for match in matches])
    order = np.argsort(-scores, kind="stable")
    matched, ignored = (
        np.concatenate([getattr(match, name)[:, :limit] for match in matches], axis=1)[:, order]
        for name in ("matched", "ignored")
    )
    right = np.cumsum(matched & ~ignored, axis=1).astype(float)
    wrong = np.cumsum(~matched & ~ignored, axis=1).astype(float)
    reached, curve = np.zeros(len(THRESHOLDS)), np.zeros((len(THRESHOLDS), len(RECALLS)))
    for t, (hits, misses) in enumerate(zip(right, wrong, strict=True)):
        if not len(hits):
            continue
        recalls = hits / count
        precisions = hits / (misses + hits + np.spacing(1))
        precisions = np.maximum.accumulate(precisions[::-1])[::-1]  # the best at this recall or a higher one
        places = np.searchsorted(recalls, RECALLS, side="left")
        within = places < len(precisions)
        reached[t] = recalls[-1]
        curve[t, within] = precisions[places[within]]
    return reached, curve
