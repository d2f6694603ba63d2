"""How much a .tflite file loses against the model that it was made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight._batches import check_images
from keraslight.errors import InvalidArgumentError


@dataclasses.dataclass(frozen=True)
class QuantizationCost:
    """How a file's answers differ from its model's.

    Attributes:
        accuracy: The file's share of right answers, 0..1; None without labels.
        agreement: Share of images whose highest output is the same class, 0..1.
        difference: Mean absolute difference of the outputs; of probabilities, 0..1.
    """

    accuracy: float | None
    agreement: float
    difference: float

    def drop(self, baseline: float | None) -> float:
        """What the file loses, 0..1: accuracy against the model's, or without labels agreement with the model."""
        return 1 - self.agreement if self.accuracy is None or baseline is None else baseline - self.accuracy

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"{self.accuracy:>8.2%}  "
        return f"{right}{self.agreement:>10.2%}  {self.difference:>10.2e}"


class Images:
    """Images in memory, and their labels or None.

    Args:
        data: Images, or images and labels, as arrays or as a tf.data.Dataset of batches.
        enough: How many to read of a data set at least; None reads all.
    """

    def __init__(self, data: Any, enough: int | None = None):
        if isinstance(data, tf.data.Dataset):
            batches = []
            for batch in data.as_numpy_iterator():
                batches.append(batch if isinstance(batch, tuple) else (batch,))
                if enough is not None and sum(len(images) for images, *_ in batches) >= enough:
                    break
            data = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
        elif isinstance(data, np.ndarray):
            data = (data,)
        if not (isinstance(data, tuple | list) and len(data) in (1, 2) and len(data[0])):
            raise InvalidArgumentError(
                "`data` must hold at least one image: an array of images, a pair of arrays, or a tf.data.Dataset of "
                f"batches. Received: {[np.shape(part) for part in data] if isinstance(data, tuple | list) else data!r}."
            )
        self.images = np.asarray(data[0], np.float32)
        self.labels = np.asarray(data[1]).reshape(-1) if len(data) == 2 else None
        if self.labels is not None and len(self.labels) != len(self.images):
            raise InvalidArgumentError(
                "`data` must hold as many labels as images. "
                f"Received: {len(self.images)} images, {len(self.labels)} labels."
            )


class Judge:
    """Compares files with the model that they were made from.

    Attributes:
        data: What they are compared on.
        baseline: The model's accuracy, 0..1; None without labels.
    """

    def __init__(self, model: keras.Model, data: Images):
        check_images(data.images, model)
        self.data = data
        self._wanted = model.predict(data.images, batch_size=64, verbose=0)
        self.baseline = self._accuracy(self._wanted)

    def cost(self, file: Path) -> QuantizationCost:
        """Runs all images through a file."""
        from keraslight.export import litert_runner

        found = litert_runner(file)(self.data.images)
        return QuantizationCost(
            self._accuracy(found),
            float((found.argmax(-1) == self._wanted.argmax(-1)).mean()),
            float(np.abs(found - self._wanted).mean()),
        )

    def _accuracy(self, outputs: np.ndarray) -> float | None:
        labels = self.data.labels
        return None if labels is None else float((outputs.argmax(-1) == labels).mean())
