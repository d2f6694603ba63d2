"""Runs .tflite files."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from keraslight import _litert_files
from keraslight.export._frozen import OUTPUT_NAME

Run = Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]


def litert_runner(path: str | os.PathLike[str], *, num_threads: int = 1) -> Run:
    """Returns a function that runs a .tflite file as if its input and output were float32.

    Args:
        path: A file with one input (b, H, W, C), b fixed or open, and one output, or several of which one is called
            `probabilities`.
        num_threads: Threads of the interpreter, at least 1.

    Returns:
        A function of float32 images (B, H, W, C), for any B, that returns the output, float32 (B, ...). Integer inputs
        and outputs are scaled by the file's own scale and zero point.

    Raises:
        InvalidArgumentError: `path` is not a file, or `num_threads` is below 1.
        ExportError: The file is not a .tflite file, or LiteRT can't run it.
        MissingDependencyError: Ai-edge-litert is not installed.
    """
    ends = LiteRTEnds(path, num_threads)

    def run(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        outputs = []
        for batch, count in ends.batches(images):
            ends.interpreter.set_tensor(ends.source["index"], batch)
            ends.interpreter.invoke()
            outputs.append(ends.floats(ends.interpreter.get_tensor(ends.sink["index"]))[:count])
        return np.concatenate(outputs)

    return run


def input_shape(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The shape (B, H, W, C) of a .tflite file's one input; an open batch is 1. Raises as `litert_runner`."""
    return tuple(int(side) for side in LiteRTEnds(path).source["shape"])


class LiteRTEnds:
    """The one input and the one output of a .tflite file, and floats as they go in and come out.

    Attributes:
        interpreter: LiteRT's interpreter of the file.
        source, sink: Its details of the input's and of the output's tensor.
    """

    def __init__(self, path: str | os.PathLike[str], num_threads: int = 1):
        self.interpreter = _litert_files.interpreter(path, num_threads)
        (self.source,), sinks = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        if len(sinks) > 1:
            sinks = [self.interpreter.get_signature_runner().get_output_details()[OUTPUT_NAME]]
        (self.sink,) = sinks

    def batches(self, images: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], int]]:
        """Float images (B, H, W, C) as batches that the file takes, each with its number of images.

        The last one is filled up by its last image.
        """
        size = int(self.source["shape"][0])
        for start in range(0, len(images), size):
            part = np.asarray(images[start : start + size], np.float32)
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            yield _quantized(padded, self.source), len(part)

    def floats(self, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """A batch of outputs, as the file gives it, in float32."""
        return _dequantized(outputs, self.sink)


def _quantized(values: npt.NDArray[np.float32], details: dict[str, Any]) -> npt.NDArray[Any]:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(limits.dtype)


def _dequantized(values: npt.NDArray[Any], details: dict[str, Any]) -> npt.NDArray[np.float32]:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    scaled: npt.NDArray[np.float32] = (values.astype(np.float32) - zero) * np.float32(scale)
    return scaled
