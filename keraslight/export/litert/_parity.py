"""Compares a .tflite file with the model that it was made from."""

import dataclasses
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from keraslight import _tasks
from keraslight._batches import labelled_batches
from keraslight._notebook import Report
from keraslight.errors import DisagreementError, InvalidArgumentError
from keraslight.export.litert._run import Run, litert_runner
from keraslight.graph import without_auxiliary

_AGREEMENTS = {
    "softmax": "top-1 agreement",
    "multi-label": "agreement of the scores' sides",
    "binary": "agreement of the scores' sides",
    "regression": "R2 against the model",
}


@dataclasses.dataclass(frozen=True)
class LiteRTParity(Report):
    """A file and its model on the same images; `str()` is one line.

    Attributes:
        images: Number of images.
        largest_difference: Largest difference of an output; of a probability 0 to 1.
        agreement: Share of images whose top-1 class is the same, 0 to 1. For `multi-label` and `binary` the share of
            scores that are on the same side of one half, and for `regression` the coefficient of determination of the
            file's outputs against the model's: 1 if they are the same, 0 if the model's mean would be as close.
        model_accuracy, file_accuracy: Accuracy, 0 to 1; None without labels. For `multi-label` and `binary` the share
            of right scores, and for `regression` the coefficient of determination against the labels.
        task: What the outputs are.
    """

    images: int
    largest_difference: float
    agreement: float
    model_accuracy: float | None = None
    file_accuracy: float | None = None
    task: str = "softmax"

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
        name = "R2" if self.task == "regression" else "accuracy"
        accuracy = f", {name} {self.model_accuracy:.2%} -> {self.file_accuracy:.2%}" if known else ""
        return (
            f"{self.images} images: {_AGREEMENTS[self.task]} {self.agreement:.2%}, largest difference of "
            f"{'an output' if self.task == 'regression' else 'a probability'} {self.largest_difference:.2g}{accuracy}"
        )


def litert_parity(
    model: Any, path: str | os.PathLike[str], data: Any, *, task: str | None = None, num_threads: int = 1
) -> LiteRTParity:
    """Runs a model and its .tflite file on the same images and compares the outputs.

    Args:
        model: The `keras.Model`, or quantization-aware model, that was converted: (B, H, W, C) -> (B, K).
        path: The file, with one input and one output of any dtype; integers are scaled as the file says.
        data: Images as the model takes them, or images and labels as in `keraslight.compress.prune`, as arrays or as a
            data set of batches. At least one image.
        task: What the outputs are: `"softmax"`, `"multi-label"`, `"binary"` or `"regression"`. None takes what the
            final activation says or what the model remembers. Where neither does, and there are no labels, several
            outputs are compared as scores of classes, and a single one as a number.
        num_threads: Threads of the interpreter, at least 1.

    Returns:
        The comparison.

    Raises:
        InvalidArgumentError: `data` has no image, the labels don't fit the task or come with a part of the images only,
            the task must be said, `path` is not a file, or the file has outputs of another shape.
        ExportError: The file is not a .tflite file, or LiteRT can't run it.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    model = without_auxiliary(model)
    run = litert_runner(path, num_threads=num_threads)
    batches = [_compared(model, run, *batch) for batch in labelled_batches(data)]
    batches = [batch for batch in batches if len(batch[0])]
    if not batches:
        raise InvalidArgumentError("`data` must hold at least one image. Received: none.")
    wanted, found = (np.concatenate([batch[n] for batch in batches]) for n in range(2))
    targets = _tasks.joined_labels([labels for *_, labels in batches])
    try:
        head = _tasks.read_head(model, task)
    except InvalidArgumentError:
        if task is not None or targets is not None:
            raise
        units = wanted.shape[-1]
        head = _tasks.Head("regression" if units == 1 else "softmax", units, None)
    # Not Python's max, which may drop a NaN.
    largest, agreement = float(np.abs(wanted - found).max()), _tasks.agreement(head, found, wanted)
    if targets is None:
        return LiteRTParity(len(wanted), largest, agreement, task=head.task)
    _tasks.check_labels(head, wanted.shape, targets)
    right, file_right = (_tasks.score(head, outputs, targets) for outputs in (wanted, found))
    return LiteRTParity(len(wanted), largest, agreement, right, file_right, head.task)


def _compared(
    model: Any, run: Run, images: npt.NDArray[Any], labels: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[Any] | None]:
    """The outputs of model and file, and the labels."""
    pixels = np.asarray(images, np.float32)
    wanted, found = np.asarray(model(pixels, training=False), np.float32), run(pixels)
    if wanted.shape != found.shape:
        raise InvalidArgumentError(
            f"`path` must be a file of the model. Received: outputs of shape {found.shape}, not {wanted.shape}."
        )
    return wanted, found, labels
