"""What a .tflite file loses against the model that it was made from."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keraslight import _tasks
from keraslight._batches import check_images, is_arrays, labelled_batches
from keraslight._notebook import Report
from keraslight.errors import InvalidArgumentError
from keraslight.graph import compilable


@dataclasses.dataclass(frozen=True)
class QuantizationCost(Report):
    """How a file's outputs differ from its model's.

    Attributes:
        accuracy: Accuracy of the file, 0..1; None without labels. As `LiteRTParity.file_accuracy` for other tasks than
            softmax.
        agreement: Share of images with the same top-1 class, 0..1. As `LiteRTParity.agreement` for other tasks.
        difference: Mean absolute difference of the outputs; of probabilities, 0..1.
    """

    accuracy: float | None
    agreement: float
    difference: float

    def drop(self, baseline: float | None) -> float:
        """Loss of the file, 0..1: of accuracy against the model, or without labels of agreement with it."""
        return 1 - self.agreement if self.accuracy is None or baseline is None else baseline - self.accuracy

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"{self.accuracy:>8.2%}  "
        return f"{right}{self.agreement:>10.2%}  {self.difference:>10.2e}"


class Images:
    """Images in memory, and their labels or None.

    Args:
        data: Images, or images and labels, in any form that `keraslight._batches` describes.
        enough: Minimum number of images to read of a data set; None reads all. Arrays are read as a whole.

    Raises:
        InvalidArgumentError: The data is empty, or images and labels differ in number.
    """

    def __init__(self, data: Any, enough: int | None = None) -> None:
        parts = []
        arrays = is_arrays(data)
        for part in labelled_batches(data, whole=enough is None):
            parts.append(part)
            if enough is not None and not arrays and sum(len(images) for images, _ in parts) >= enough:
                break
        if not sum(len(images) for images, _ in parts):
            given = [np.shape(part) for part in (data if isinstance(data, tuple | list) else (data,)) if arrays]
            raise InvalidArgumentError(
                f"`data` must hold at least one image. Received: {given or 'an empty data set'}."
            )
        self.images: np.ndarray = np.concatenate([images for images, _ in parts]).astype(np.float32)
        self.labels: np.ndarray | None = _tasks.joined_labels([labels for _, labels in parts])


class Judge:
    """Compares files with the model that they were made from.

    Args:
        model: The model.
        data: Images to compare on.
        task: What the outputs are; see `keraslight._tasks`.

    Attributes:
        data: These images.
        baseline: The model's accuracy, 0..1; None without labels.
    """

    def __init__(self, model: keras.Model, data: Images, task: str | None = None):
        check_images(data.images, model)
        self._head = _tasks.read_head(model, task)
        if data.labels is not None:
            _tasks.check_labels(self._head, model.outputs[0].shape, data.labels)
        self.data = data
        with compilable(model):
            self._wanted = model.predict(data.images, batch_size=64, verbose=0)
        self.baseline = self._accuracy(self._wanted)

    def cost(self, file: Path) -> QuantizationCost:
        """Runs all images through a file."""
        from keraslight.export import litert_runner

        found = litert_runner(file)(self.data.images)
        return QuantizationCost(
            self._accuracy(found),
            _tasks.agreement(self._head, found, self._wanted),
            float(np.abs(found - self._wanted).mean()),
        )

    def _accuracy(self, outputs: np.ndarray) -> float | None:
        labels = self.data.labels
        return None if labels is None else _tasks.score(self._head, outputs, labels)
