"""Losses of detectors, on every Keras backend: SSD's with hard negative mining, NanoDet-Plus' with its assigner.

Truths come as arrays of a fixed size, padded by labels of -1, so that a training step is one graph.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keraslight.detection import boxes as box_maths
from keraslight.detection.boxes import Array, giou, iou
from keraslight.detection.decoding import AnchorDecoder, DistanceDecoder, decoder_of
from keraslight.errors import InvalidArgumentError

INFINITY = 1e8
"""More than any cost."""


@dataclasses.dataclass(frozen=True)
class SSDLoss:
    """SSD's loss: cross entropy with hard negative mining, and smooth L1 of the boxes' offsets.

    An anchor belongs to the truth that it overlaps most, from an overlap of `threshold` on, and each truth has at least
    the anchor that overlaps it most. Of the others, those with the largest cross entropy count as background. Both
    parts are divided by the number of anchors with a truth.
    Source: Liu et al., "SSD", ECCV 2016, https://arxiv.org/abs/1512.02325, section 2.2, equations 1 to 3; details as in
    torchvision's `SSD`.

    Args:
        decoder: The model's decoder, which has its anchors.
        threshold: Smallest overlap of an anchor and its truth, 0 to 1.
        negatives: Negatives per anchor with a truth, at least 0.
        empty_negatives: Negatives of an image without a truth, at least 0, so that a model learns from such images to
            find nothing. 0 ignores them, as torchvision does.
    """

    decoder: AnchorDecoder
    threshold: float = 0.5
    negatives: float = 3.0
    empty_negatives: int = 16

    def parts(self, outputs: Mapping[str, Array], boxes: Array, labels: Array) -> dict[str, Array]:
        """Returns the loss of the boxes and that of the classes, two scalars.

        Args:
            outputs: The model's, of B images.
            boxes: (B, T, 4), left, top, right, bottom in pixels of the network's input.
            labels: int (B, T), without the background; -1 for padding.
        """
        boxes, labels = ops.convert_to_tensor(boxes, "float32"), ops.convert_to_tensor(labels, "int32")
        owner = self.match(boxes, labels)
        positive = owner >= 0
        mine = ops.maximum(owner, 0)
        count = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)

        # Padding has no area, whose logarithm must not reach the gradient.
        wanted = ops.where(positive[..., None], _of(boxes, mine), self.decoder.anchors[None])
        away = ops.abs(outputs["box_deltas"] - box_maths.encode(wanted, ops.convert_to_tensor(self.decoder.anchors)))
        smooth = ops.sum(ops.where(away < 1, 0.5 * away * away, away - 0.5), axis=-1)
        box_loss = ops.sum(ops.where(positive, smooth, 0.0)) / count

        classes = ops.where(positive, _of(labels, mine) + 1, 0)
        entropy = ops.sparse_categorical_crossentropy(classes, outputs["class_logits"], from_logits=True)
        chosen = ops.logical_or(positive, self._hard(ops.stop_gradient(entropy), positive))
        return {"boxes": box_loss, "classes": ops.sum(ops.where(chosen, entropy, 0.0)) / count}

    def __call__(self, outputs: Mapping[str, Array], boxes: Array, labels: Array) -> Array:
        """Returns the sum of the `parts`."""
        return sum(self.parts(outputs, boxes, labels).values())

    def match(self, boxes: Array, labels: Array) -> Array:
        """Returns each anchor's truth, int32 (B, N), -1 for none. Arguments as of `parts`."""
        there = (labels >= 0)[:, :, None]
        overlaps = ops.where(there, iou(boxes, self.decoder.anchors[None]), -1.0)  # (B, T, N)
        count, anchors = overlaps.shape[1], overlaps.shape[2]
        best = ops.cast(ops.argmax(overlaps, axis=1), "int32")
        best = ops.where(ops.max(overlaps, axis=1) >= self.threshold, best, -1)
        # Each truth claims its best anchor; of two claims the later one counts.
        own = ops.cast(ops.argmax(overlaps, axis=2), "int32")[..., None]
        claims = ops.arange(anchors, dtype="int32") == own
        order = ops.arange(count, dtype="int32")[None, :, None]
        claimed = ops.max(ops.where(ops.logical_and(claims, there), order, -1), axis=1)
        return ops.where(claimed >= 0, claimed, best)

    def _hard(self, entropy: Array, positive: Array) -> Array:
        """Which anchors (B, N) without a truth count as background: in each image those with the largest entropy."""
        counts = ops.sum(ops.cast(positive, "float32"), axis=1, keepdims=True)
        wanted = ops.where(counts > 0, self.negatives * counts, float(self.empty_negatives))
        order = ops.argsort(ops.where(positive, INFINITY, -entropy), axis=1)
        rank = ops.cast(ops.argsort(order, axis=1), "float32")
        return ops.logical_and(rank < wanted, ops.logical_not(positive))


@dataclasses.dataclass(frozen=True)
class NanoDetLoss:
    """NanoDet-Plus' loss: quality focal loss, generalized overlap and distribution focal loss.

    Sources: Li et al., "Generalized Focal Loss", NeurIPS 2020, https://arxiv.org/abs/2006.04388, equations 5 and 6;
    Ge et al., "YOLOX", https://arxiv.org/abs/2107.08430, for the dynamic number of places per truth; weights, and the
    cost with soft labels, as in https://github.com/RangiLyu/nanodet. Its second head, which assigns in its place while
    the network is young, is left out.

    Args:
        decoder: The model's decoder.
        candidates: Number of the best overlaps of a truth whose sum is its number of places, at least 1.
        overlap_cost: Weight of the overlap in the cost of assigning a place to a truth, at least 0.
        beta: Exponent of the quality focal loss, at least 0.
        quality, overlap, distribution: Weights of the three parts, at least 0.
    """

    decoder: DistanceDecoder
    candidates: int = 13
    overlap_cost: float = 3.0
    beta: float = 2.0
    quality: float = 1.0
    overlap: float = 2.0
    distribution: float = 0.25

    def parts(self, outputs: Mapping[str, Array], boxes: Array, labels: Array) -> dict[str, Array]:
        """Returns the weighted parts `quality`, `overlap` and `distribution`, three scalars.

        Args:
            outputs: The model's, of B images.
            boxes: (B, T, 4), left, top, right, bottom in pixels of the network's input.
            labels: int (B, T); -1 for padding.
        """
        boxes, labels = ops.convert_to_tensor(boxes, "float32"), ops.convert_to_tensor(labels, "int32")
        logits = ops.convert_to_tensor(outputs["class_logits"])
        distances = ops.convert_to_tensor(outputs["box_distances"])
        decoded = self.decoder.boxes(distances)
        owner, overlaps = self.assign(ops.stop_gradient(logits), ops.stop_gradient(decoded), boxes, labels)
        positive = owner >= 0
        mine = ops.maximum(owner, 0)
        count = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)

        classes = logits.shape[-1]
        truth = ops.one_hot(ops.where(positive, _of(labels, mine), -1), classes) * overlaps[..., None]
        away = ops.abs(truth - ops.sigmoid(logits))
        # The factor is part of the loss that is differentiated, as in the paper's equation.
        quality = ops.sum(_entropy(logits, truth) * away**self.beta) / count

        sure = ops.where(positive, ops.max(ops.sigmoid(ops.stop_gradient(logits)), axis=-1), 0.0)
        total = ops.maximum(ops.sum(sure), 1.0)
        wanted = ops.where(positive[..., None], _of(boxes, mine), ops.stop_gradient(decoded))
        overlap = ops.sum(sure * (1 - giou(decoded, wanted))) / total

        centers, strides = self.decoder.places[:, :2], self.decoder.places[:, 2:]
        sides = ops.concatenate([centers - wanted[..., :2], wanted[..., 2:] - centers], axis=-1) / strides
        sides = ops.clip(sides, 0.0, self.decoder.reg_max - 0.1)
        spread = ops.reshape(distances, (-1, *distances.shape[1:2], 4, self.decoder.reg_max + 1))
        distribution = ops.sum(sure[..., None] * _between(spread, sides)) / (4 * total)
        return {
            "quality": self.quality * quality,
            "overlap": self.overlap * overlap,
            "distribution": self.distribution * distribution,
        }

    def __call__(self, outputs: Mapping[str, Array], boxes: Array, labels: Array) -> Array:
        """Returns the sum of the `parts`."""
        return sum(self.parts(outputs, boxes, labels).values())

    def assign(self, logits: Array, decoded: Array, boxes: Array, labels: Array) -> tuple[Array, Array]:
        """Assigns places to truths by what the network predicts there.

        Candidates are the places inside any truth. A truth gets as many of them as its best overlaps add up to, the
        cheapest ones; a place that several truths get goes to the one where it costs least.

        Args:
            logits: (B, N, K).
            decoded: Predicted boxes, (B, N, 4), in pixels.
            boxes, labels: See `parts`.

        Returns:
            Each place's truth, int32 (B, N), -1 for none, and its overlap with it, (B, N).
        """
        there = (labels >= 0)[:, None]  # (B, 1, T)
        centers = self.decoder.places[:, None, :2]
        inside = ops.concatenate([centers - boxes[:, None, :, :2], boxes[:, None, :, 2:] - centers], axis=-1)
        inside = ops.logical_and(ops.min(inside, axis=-1) > 0, there)
        candidate = ops.any(inside, axis=2)  # (B, N)
        usable = ops.logical_and(candidate[..., None], there)
        overlaps = ops.where(usable, iou(decoded, boxes), 0.0)  # (B, N, T)

        cost = self._class_cost(logits, ops.maximum(labels, 0), overlaps) - self.overlap_cost * ops.log(overlaps + 1e-7)
        cost = ops.where(usable, cost, INFINITY)
        most = min(self.candidates, overlaps.shape[1])
        by_truth = ops.transpose(overlaps, (0, 2, 1))
        numbers = ops.sum(ops.top_k(by_truth, most)[0], axis=-1)
        numbers = ops.maximum(ops.cast(numbers, "int32"), 1)  # (B, T)
        cheapest = ops.top_k(-ops.transpose(cost, (0, 2, 1)), most)[1]  # (B, T, most)
        taken = ops.arange(most, dtype="int32")[None, None] < numbers[..., None]
        hits = ops.one_hot(ops.where(taken, ops.cast(cheapest, "int32"), -1), overlaps.shape[1])  # (B, T, most, N)
        matched = ops.logical_and(ops.transpose(ops.sum(hits, axis=2), (0, 2, 1)) > 0, usable)

        counts = ops.sum(ops.cast(matched, "int32"), axis=2)
        only = ops.cast(ops.argmax(ops.cast(matched, "int32"), axis=2), "int32")
        owner = ops.where(counts > 1, ops.cast(ops.argmin(cost, axis=2), "int32"), only)
        owner = ops.where(counts > 0, owner, -1)
        mine = ops.take_along_axis(overlaps, ops.maximum(owner, 0)[..., None], axis=2)[..., 0]
        return owner, ops.where(owner >= 0, mine, 0.0)

    def _class_cost(self, logits: Array, labels: Array, overlaps: Array) -> Array:
        """Cost of the classes, (B, N, T): entropy against a label as soft as the overlap, times its distance squared.

        Only the truth's own class depends on the truth; the others have the same cost for all of them.
        """
        none = _entropy(logits, ops.zeros_like(logits)) * ops.sigmoid(logits) ** 2
        at = labels[:, None] + ops.zeros_like(overlaps, dtype="int32")
        own = ops.take_along_axis(logits, at, axis=2)
        soft = _entropy(own, overlaps) * ops.abs(overlaps - ops.sigmoid(own)) ** 2
        return ops.sum(none, axis=-1, keepdims=True) - ops.take_along_axis(none, at, axis=2) + soft


def loss_of(model: keras.Model, **options: Any) -> Callable[[Mapping[str, Array], Array, Array], Array]:
    """Returns the loss that a detector is trained with: a function of its outputs, boxes and labels.

    Args:
        model: The detector, with an input of a fixed size.
        options: Arguments of `SSDLoss` or `NanoDetLoss`.

    Raises:
        InvalidArgumentError: The model is not a detector, or an option is not the loss's.
    """
    decoder = decoder_of(model)
    kind = SSDLoss if isinstance(decoder, AnchorDecoder) else NanoDetLoss
    known = {field.name for field in dataclasses.fields(kind)} - {"decoder"}
    if unknown := options.keys() - known:
        raise InvalidArgumentError(
            f"Options of {kind.__name__} are {', '.join(sorted(known))}. Received: {', '.join(sorted(unknown))}."
        )
    return kind(decoder, **options)  # type: ignore[arg-type] # each kind has its own decoder


def _of(truths: Array, owners: Array) -> Array:
    """Takes (B, T, ...) truths for (B, N) owners: (B, N, ...)."""
    if len(truths.shape) == 2:
        return ops.take_along_axis(truths, owners, axis=1)
    return ops.take_along_axis(truths, owners[..., None], axis=1)


def _entropy(logits: Array, targets: Array) -> Array:
    """Binary cross entropy of each value, from logits."""
    return ops.maximum(logits, 0.0) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))


def _between(logits: Array, targets: Array) -> Array:
    """Distribution focal loss: cross entropy against the two whole distances around each target.

    Args:
        logits: (..., reg_max + 1).
        targets: (...), in 0..reg_max - 0.1.

    Returns:
        (...).
    """
    distances = np.arange(logits.shape[-1], dtype=np.float32)
    # A weight that falls from 1 to 0 within one distance: `high - target` for the lower, `target - low` for the upper.
    weights = ops.maximum(1 - ops.abs(targets[..., None] - distances), 0.0)
    return -ops.sum(weights * ops.log_softmax(logits, axis=-1), axis=-1)
