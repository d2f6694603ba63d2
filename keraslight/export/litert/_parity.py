"""Compares a .tflite file with the model that it was made from."""

import dataclasses
import os
from typing import Any

import numpy as np

from keraslight._batches import labelled_batches
from keraslight._notebook import Report
from keraslight.errors import DisagreementError, InvalidArgumentError
from keraslight.export.litert._run import litert_runner


@dataclasses.dataclass(frozen=True)
class LiteRTParity(Report):
    """A file and its model on the same images; `str()` is one line.

    Attributes:
        images: Number of images.
        largest_difference: Largest difference of a probability, 0 to 1.
        agreement: Share of images whose top-1 class is the same, 0 to 1.
        model_accuracy, file_accuracy: Accuracy, 0 to 1; None without labels.
    """

    images: int
    largest_difference: float
    agreement: float
    model_accuracy: float | None = None
    file_accuracy: float | None = None

    @property
    def drop(self) -> float:
        """What the file loses compared with the model, 0 to 1: accuracy, or without labels agreement with the model.

        Below 0 if the file is better.
        """
        if self.model_accuracy is None or self.file_accuracy is None:
            return 1 - self.agreement
        return self.model_accuracy - self.file_accuracy

    def require(self, *, max_drop: float | None = None, max_difference: float | None = None) -> None:
        """Raises unless the file is good enough.

        Args:
            max_drop: Largest `drop`, 0 to 1; None accepts any.
            max_difference: Largest `largest_difference`, 0 to 1; None accepts any.

        Raises:
            DisagreementError: The file loses more than `max_drop` or differs by more than `max_difference`.
        """
        for name, found, limit in (
            ("max_drop", self.drop, max_drop),
            ("max_difference", self.largest_difference, max_difference),
        ):
            # Written so that a NaN is never good enough.
            if limit is not None and not found <= limit:
                raise DisagreementError(
                    f"The LiteRT file must stay within {name}={limit} of its model. Received: {found:.6g} ({self})."
                )

    def __str__(self) -> str:
        known = self.model_accuracy is not None
        accuracy = f", accuracy {self.model_accuracy:.2%} -> {self.file_accuracy:.2%}" if known else ""
        return (
            f"{self.images} images: top-1 agreement {self.agreement:.2%}, largest difference of a probability "
            f"{self.largest_difference:.2g}{accuracy}"
        )


def litert_parity(model: Any, path: str | os.PathLike[str], data: Any, *, num_threads: int = 1) -> LiteRTParity:
    """Runs a model and its .tflite file on the same images and compares the outputs.

    Args:
        model: The `keras.Model`, or quantization-aware model, that was converted: (B, H, W, C) -> (B, classes).
        path: The file, with one input and one output of any dtype; integers are scaled as the file says.
        data: Images as the model takes them, or images and integer labels, as arrays or as a data set of batches. At
            least one image.
        num_threads: Threads of the interpreter, at least 1.

    Returns:
        The comparison.

    Raises:
        InvalidArgumentError: `data` has no image.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    run = litert_runner(path, num_threads=num_threads)
    largest, agree, images, right_model, right_file, labelled = 0.0, 0, 0, 0, 0, True
    for batch, labels in labelled_batches(data):
        pixels = np.asarray(batch, np.float32)
        wanted, found = np.asarray(model(pixels, training=False)), run(pixels)
        images += len(pixels)
        # np.maximum passes a NaN on; Python's max may drop it.
        largest = float(np.maximum(largest, np.abs(wanted - found).max()))
        agree += int((wanted.argmax(-1) == found.argmax(-1)).sum())
        if labels is None:
            labelled = False
        else:
            right_model += int((wanted.argmax(-1) == labels.reshape(-1)).sum())
            right_file += int((found.argmax(-1) == labels.reshape(-1)).sum())
    if not images:
        raise InvalidArgumentError("`data` must hold at least one image. Received: none.")
    accuracies = (right_model / images, right_file / images) if labelled else (None, None)
    return LiteRTParity(images, largest, agree / images, *accuracies)
