"""Whether a .tflite file answers as the model that it was made from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keraslight._batches import labelled_batches
from keraslight.errors import DisagreementError, InvalidArgumentError, MissingDependencyError

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class LiteRTParity:
    """A file against its model on the same images; `str()` is one line.

    Attributes:
        images: How many were compared.
        largest_difference: Of a probability, in 0..1.
        agreement: Share of the images, in 0..1, for which both rank the same class first.
        model_accuracy, file_accuracy: Shares of right answers, in 0..1; None without labels.
    """

    images: int
    largest_difference: float
    agreement: float
    model_accuracy: float | None = None
    file_accuracy: float | None = None

    @property
    def drop(self) -> float:
        """What the file loses against the model, in 0..1: accuracy, or without labels agreement with the model.

        Below 0 where the file is the better one.
        """
        if self.model_accuracy is None:
            return 1 - self.agreement
        return self.model_accuracy - self.file_accuracy

    def require(self, *, max_drop: float | None = None, max_difference: float | None = None) -> None:
        """Raises unless the file is good enough.

        Args:
            max_drop: Largest `drop`, in 0..1; None asks for nothing.
            max_difference: Largest `largest_difference`, in 0..1; None asks for nothing.

        Raises:
            DisagreementError: the file loses more than `max_drop` or differs by more than `max_difference`.
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
        accuracy = ""
        if self.model_accuracy is not None:
            accuracy = f", accuracy {self.model_accuracy:.2%} -> {self.file_accuracy:.2%}"
        return (
            f"{self.images} images: top-1 agreement {self.agreement:.2%}, largest difference of a probability "
            f"{self.largest_difference:.2g}{accuracy}"
        )


def litert_parity(model: Any, path: str | os.PathLike, data: Any, *, num_threads: int = 1) -> LiteRTParity:
    """Runs a model and its .tflite file on the same images.

    Args:
        model: The `keras.Model`, or quantization-aware model, that was converted: (B, H, W, C) -> (B, classes).
        path: The file, with one input and one output of any dtype; its integers are scaled as it says.
        data: Images as the model takes them, or images and labels (int, an index a class), as arrays or as a data set
            of batches. At least one image.
        num_threads: Of the interpreter, at least 1.

    Returns:
        The comparison.

    Raises:
        InvalidArgumentError: `data` has no image.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    run = litert_runner(path, num_threads=num_threads)
    largest, agree, images, right_model, right_file, labelled = 0.0, 0, 0, 0, 0, True
    for batch, labels in labelled_batches(data, _BATCH):
        batch = np.asarray(batch, np.float32)
        wanted = np.asarray(model(batch, training=False))
        found = run(batch)
        images += len(batch)
        # np.maximum hands a NaN on; Python's max may drop it.
        largest = float(np.maximum(largest, np.abs(wanted - found).max()))
        agree += int((wanted.argmax(-1) == found.argmax(-1)).sum())
        if labels is None:
            labelled = False
        else:
            labels = labels.reshape(-1)
            right_model += int((wanted.argmax(-1) == labels).sum())
            right_file += int((found.argmax(-1) == labels).sum())
    if not images:
        raise InvalidArgumentError("`data` must hold at least one image. Received: none.")
    accuracies = (right_model / images, right_file / images) if labelled else (None, None)
    return LiteRTParity(images, largest, agree / images, *accuracies)


def litert_runner(path: str | os.PathLike, *, num_threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs a .tflite file as if it took and gave float32.

    Args:
        path: A file with one input (b, H, W, C), b fixed or open, and one output.
        num_threads: At least 1.

    Returns:
        A function of float32 images (B, H, W, C), for any B, that gives the outputs, float32 (B, ...). Integer inputs
        and outputs are scaled with the file's own scale and zero point.

    Raises:
        MissingDependencyError: ai-edge-litert is not installed.
    """
    interpreter = new_interpreter(path, num_threads)
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    size = int(source["shape"][0])

    def run(images: np.ndarray) -> np.ndarray:
        answers = []
        for start in range(0, len(images), size):
            part = np.asarray(images[start : start + size], np.float32)
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            interpreter.set_tensor(source["index"], _quantized(padded, source))
            interpreter.invoke()
            answers.append(_dequantized(interpreter.get_tensor(sink["index"]), sink)[: len(part)])
        return np.concatenate(answers)

    return run


def new_interpreter(path: str | os.PathLike, num_threads: int) -> Any:
    """LiteRT's interpreter of a file, with XNNPACK."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingDependencyError(
            f"Running a .tflite file needs ai-edge-litert: pip install 'keraslight[export]'. Received: {error}."
        ) from error
    return Interpreter(str(Path(path)), num_threads=num_threads)


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    dtype = details["dtype"]
    if dtype == np.float32:
        return values
    scale, zero = details["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(dtype)


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)
