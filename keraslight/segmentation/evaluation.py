"""Mean intersection over union, and what else follows from the confusion matrix of pixels."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.segmentation.losses import IGNORE


@dataclasses.dataclass(frozen=True)
class SegmentationFigures:
    """How well a segmenter finds the classes of pixels.

    Source: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2015, section 4.3.

    Attributes:
        miou: Mean of `iou` over the classes that occur in truth or prediction, 0 to 1.
        accuracy: Share of pixels with the right class, 0 to 1.
        iou: For each class the pixels that both have over those that either has; NaN for a class that doesn't occur.
        recall: For each class the share of its pixels that were found; NaN for a class without pixels.
        confusion: int64 (K, K): pixels by true class (rows) and predicted class (columns).
    """

    miou: float
    accuracy: float
    iou: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: np.ndarray

    def per_class(self, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Returns `iou` by the classes' names, or by their indices."""
        names = map(str, range(len(self.iou))) if labels is None else labels
        return dict(zip(names, self.iou, strict=True))


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int, *, ignore: int = IGNORE) -> np.ndarray:
    """Counts pixels by true and predicted class: int64 (K, K).

    Args:
        truth: int, of any shape, 0..classes-1 or `ignore`.
        predicted: int of the same shape, 0..classes-1.
        classes: Number of classes K, at least 1.
        ignore: Label of pixels that don't count.

    Raises:
        InvalidArgumentError: The shapes differ, or a label is out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise InvalidArgumentError(
            f"Truth and prediction must have one shape. Received: {truth.shape} and {predicted.shape}."
        )
    counted = truth != ignore
    pairs = [labels[counted].astype(np.int64) for labels in (truth, predicted)]
    for name, labels in zip(("truth", "predicted"), pairs, strict=True):
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise InvalidArgumentError(
                f"`{name}` must be in 0..{classes - 1}. Received: {labels.min()}..{labels.max()}."
            )
    return np.bincount(pairs[0] * classes + pairs[1], minlength=classes * classes).reshape(classes, classes)


def figures(matrix: np.ndarray) -> SegmentationFigures:
    """Returns the figures of a confusion matrix, (K, K), rows being the truth."""
    right, true, found = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore"):
        overlap, recall = right / (true + found - right), right / np.where(true, true, np.nan)
    occurs = true + found > 0
    return SegmentationFigures(
        miou=float(overlap[occurs].mean()) if occurs.any() else float("nan"),
        accuracy=float(right.sum() / matrix.sum()) if matrix.sum() else float("nan"),
        iou=tuple(map(float, overlap)),
        recall=tuple(map(float, recall)),
        confusion=matrix,
    )


def evaluate(model: keras.Model, data: Iterable[tuple[Any, Any]], *, ignore: int = IGNORE) -> SegmentationFigures:
    """Evaluates a segmenter on batches of images and masks.

    Args:
        model: The segmenter, with an output `logits` (B, H, W, K).
        data: Pairs (images (B, H, W, C) as the model takes them, masks int (B, H, W)).
        ignore: Label of pixels that don't count.

    Raises:
        InvalidArgumentError: The model is not a segmenter, or a mask doesn't fit.
    """
    outputs: Any = model.output
    if not isinstance(outputs, dict) or "logits" not in outputs:
        raise InvalidArgumentError(f"`model` must be a segmenter, with an output `logits`. Received: {model.name!r}.")
    classes = outputs["logits"].shape[-1]
    matrix = np.zeros((classes, classes), np.int64)
    for images, masks in data:
        logits = model.predict_on_batch(np.asarray(images))["logits"]
        matrix += confusion(np.asarray(masks), logits.argmax(axis=-1), classes, ignore=ignore)
    return figures(matrix)
