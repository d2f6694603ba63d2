"""Non-maximum suppression: of boxes of one class that overlap, only the one with the highest score stays."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from keraslight.detection.boxes import iou
from keraslight.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class Suppression:
    """How boxes are chosen.

    Args:
        score_threshold: Scores must be above it, 0 to 1.
        iou_threshold: Largest overlap with a better box of the same class, 0 to 1.
        per_class: Candidates of each class, the best ones, at least 1.
        detections: Largest number of boxes per image, at least 1.

    Raises:
        InvalidArgumentError: A value is out of range.
    """

    score_threshold: float = 0.05
    iou_threshold: float = 0.55
    per_class: int = 300
    detections: int = 100

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgumentError(f"`{name}` must be in 0..1. Received: {name}={getattr(self, name)}.")
        for name in ("per_class", "detections"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {name}={getattr(self, name)}.")


USUAL = Suppression()
"""The default."""


class Found(NamedTuple):
    """The boxes that remain of one image, best first.

    Args:
        boxes: float (D, 4), left, top, right, bottom.
        scores: float (D,).
        labels: int (D,), indices of classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def suppress(boxes: np.ndarray, scores: np.ndarray, how: Suppression = USUAL) -> Found:
    """Chooses boxes of one image in NumPy, class by class.

    Of equal scores, the earlier box and the smaller class come first.
    Source: Girshick et al., "R-CNN", https://arxiv.org/abs/1311.2524, section 2.1; candidates as in torchvision's SSD.

    Args:
        boxes: (N, 4), left, top, right, bottom.
        scores: (N, K), one column per class, without the background.
        how: Thresholds and limits.
    """
    chosen, labels = [], []
    for label in range(scores.shape[1]):
        column = scores[:, label]
        (above,) = np.nonzero(column > how.score_threshold)
        order = above[np.argsort(-column[above], kind="stable")][: how.per_class]
        kept = order[_kept(boxes[order], how.iou_threshold, how.detections)]
        chosen.append(kept)
        labels.append(np.full(len(kept), label))
    places, classes = (np.concatenate(parts) if parts else np.zeros(0, int) for parts in (chosen, labels))
    values = scores[places, classes]
    best = np.argsort(-values, kind="stable")[: how.detections]
    return Found(boxes[places[best]], values[best], classes[best])


def _kept(boxes: np.ndarray, threshold: float, most: int) -> list[int]:
    """Places of the boxes, best first, that no better kept one overlaps by more than the threshold."""
    kept: list[int] = []
    if not len(boxes):
        return kept
    overlaps = iou(boxes, boxes) > threshold
    gone = np.zeros(len(boxes), bool)
    for place in range(len(boxes)):
        if not gone[place]:
            kept.append(place)
            if len(kept) == most:
                break
            gone |= overlaps[place]
    return kept


def suppress_in_graph(boxes: Any, scores: Any, how: Suppression = USUAL) -> tuple[Any, Any, Any, Any]:
    """The same for a batch, in a TensorFlow graph.

    It limits the boxes that remain per class to `per_class` instead of the candidates, so that of more candidates than
    that it may keep others than `suppress`.

    Args:
        boxes: Tensor (B, N, 4), left, top, right, bottom.
        scores: Tensor (B, N, K).
        how: Thresholds and limits.

    Returns:
        Tensors: boxes (B, D, 4), scores (B, D), labels float32 (B, D) and the number of boxes int32 (B,). D is
        `how.detections`; the rest is 0.
    """
    import tensorflow as tf

    found = tf.image.combined_non_max_suppression(
        tf.gather(boxes, [1, 0, 3, 2], axis=-1)[:, :, None],
        scores,
        max_output_size_per_class=how.per_class,
        max_total_size=how.detections,
        iou_threshold=how.iou_threshold,
        score_threshold=how.score_threshold,
        clip_boxes=False,
    )
    return tf.gather(found[0], [1, 0, 3, 2], axis=-1), *found[1:]
