"""Detecting objects in images of any size with a Keras model, and evaluating that."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keraslight.detection.decoding import Decoder, decoder_of
from keraslight.detection.evaluation import DetectionFigures, Detections, Truths, figures
from keraslight.detection.suppression import Found, Suppression, suppress
from keraslight.errors import InvalidArgumentError
from keraslight.graph import own_preprocessing


class Box(NamedTuple):
    """A box in pixels of the image that was given, from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclasses.dataclass(frozen=True)
class Detection:
    """An object in an image.

    Args:
        label: Name of its class; without names its index as text.
        score: Score, 0 to 1.
        index: Index of its class.
        box: Where it is.
    """

    label: str
    score: float
    index: int
    box: Box


def detect(
    model: keras.Model,
    images: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    score_threshold: float | None = None,
    suppression: Suppression | None = None,
    batch_size: int = 8,
) -> list[list[Detection]]:
    """Detects objects in images.

    Args:
        model: The detector. With its preprocessing in the graph, it takes raw pixels 0..255 of any size, which are
            stretched to its input size as its preprocessing says; without, images as it was built for.
        images: Arrays (H, W, C), or a batch (B, H, W, C).
        labels: Names of the classes, without the background.
        score_threshold: Smallest score, 0 to 1. None uses that of `suppression`.
        suppression: How boxes are chosen. None uses the default of the model's kind.
        batch_size: Images per call of the model, at least 1.

    Returns:
        The detections of each image, best first.

    Raises:
        InvalidArgumentError: The model is not a detector, an image doesn't fit, or an argument is out of range.
    """
    decoder = decoder_of(model)
    how = _chosen(decoder, suppression, score_threshold)
    classes = _classes(model)
    if labels is not None and len(labels) != classes:
        raise InvalidArgumentError(f"`labels` must name {classes} classes. Received: {len(labels)} names.")
    names = list(map(str, range(classes))) if labels is None else labels
    return [
        [
            Detection(names[label], float(score), int(label), Box(*map(float, box)))
            for box, score, label in zip(*found, strict=True)
        ]
        for found in _found(model, decoder, images, how, batch_size)
    ]


def evaluate(
    model: keras.Model,
    data: Iterable[tuple[Any, Truths]],
    *,
    suppression: Suppression | None = None,
    batch_size: int = 8,
) -> DetectionFigures:
    """Evaluates a detector by COCO's figures.

    Args:
        model: The detector; see `detect`.
        data: Pairs (image (H, W, C), its objects, with boxes in pixels of that image).
        suppression: How boxes are chosen. None uses the default of the model's kind with a threshold of 0.001, since
            detections of low scores only add to these figures.
        batch_size: Images per call of the model, at least 1.

    Raises:
        InvalidArgumentError: The model is not a detector, an image doesn't fit, or a label is out of range.
    """
    decoder = decoder_of(model)
    how = _chosen(decoder, suppression, 0.001 if suppression is None else None)
    truths: list[Truths] = []
    detections: list[Detections] = []
    part: list[Any] = []

    def run() -> None:
        detections.extend(Detections(*found) for found in _found(model, decoder, part, how, batch_size))
        part.clear()

    for image, objects in data:
        truths.append(objects)
        part.append(image)
        if len(part) == batch_size:
            run()
    run()
    return figures(truths, detections, _classes(model))


def _chosen(decoder: Decoder, suppression: Suppression | None, threshold: float | None) -> Suppression:
    how = decoder.suppression if suppression is None else suppression
    if threshold is None:
        return how
    return Suppression(threshold, how.iou_threshold, how.per_class, how.detections)


def _classes(model: keras.Model) -> int:
    """Number of classes without the background."""
    outputs: Any = model.output
    return outputs["class_logits"].shape[-1] - ("box_deltas" in outputs)


def _found(
    model: keras.Model, decoder: Decoder, images: Sequence[Any], how: Suppression, batch_size: int
) -> Iterator[Found]:
    """Yields what is found in each image, in its own pixels."""
    if batch_size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
    for start in range(0, len(images), batch_size):
        part = [np.asarray(image) for image in images[start : start + batch_size]]
        batch = np.stack([_fitted(model, image) for image in part])
        outputs = model.predict_on_batch(batch)
        for image, boxes, scores in zip(part, *decoder(outputs), strict=True):
            found = suppress(boxes, scores, how)
            height, width = decoder.image_size
            scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2, boxes.dtype)
            yield found._replace(boxes=found.boxes * scale)


def _fitted(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """Returns an image as the model takes it, float32 (H, W, C)."""
    wanted = model.input_shape[1:]
    spec = own_preprocessing(model)
    if image.ndim != 3 or image.shape[2] != wanted[2] or (spec is None and image.shape[:2] != wanted[:2]):
        raise InvalidArgumentError(
            f"Images must have the shape {wanted if spec is None else ('H', 'W', wanted[2])}. Received: {image.shape}."
        )
    if spec is None or image.shape == wanted:
        return image.astype(np.float32)
    return np.asarray(spec.fit(image, rounded=False))
