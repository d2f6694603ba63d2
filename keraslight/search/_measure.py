"""What a trial measures: the cost of a net before it is trained, and its loss on held-out images after that."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keraslight import _tasks
from keraslight.analysis import count_macs, count_parameters, file_latency
from keraslight.errors import InvalidArgumentError
from keraslight.export import to_litert
from keraslight.training import ImageData, without_auxiliary

METRICS = ("latency", "macs", "parameters")
COLUMN = {"latency": "latency_ms", "macs": "macs", "parameters": "parameters"}
_REPEATS = 200
_BATCH = 64
_RANGE_IMAGES = 16  # for the ranges of an int8 file, whose values don't change its latency


@dataclasses.dataclass(frozen=True)
class Meter:
    """Measures what nets cost on this machine.

    Attributes:
        metric: One of `METRICS`.
        int8: Whether the latency is that of an int8 file, instead of float32.
        threads: Threads of LiteRT.
    """

    metric: str = "latency"
    int8: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InvalidArgumentError(f"`metric` must be one of {METRICS}. Received: {self.metric!r}.")
        if self.int8 and self.metric != "latency":
            raise InvalidArgumentError(
                f'`int8` is for metric="latency": it changes no other. Received: int8=True, metric={self.metric!r}.'
            )
        if self.threads < 1:
            raise InvalidArgumentError(f"`threads` must be at least 1. Received: {self.threads}.")

    def costs(self, model: keras.Model, data: ImageData) -> dict[str, Any]:
        """Multiply-adds and parameters; and milliseconds, if they are the metric."""
        found: dict[str, Any] = {"macs": count_macs(model), "parameters": count_parameters(model)}
        if self.metric == "latency":
            (found["latency_ms"],) = self.latencies({"net": model}, data).values()
        return found

    def latencies(self, models: Mapping[str, keras.Model], data: ImageData) -> dict[str, float]:
        """The median milliseconds of each model for one image, timed in turn."""
        options: dict[str, Any] = {}
        if self.int8:
            images, *_ = next(iter(data.train(_RANGE_IMAGES)))
            options = {"quantization": "int8", "representative_data": np.asarray(images)}
        with tempfile.TemporaryDirectory() as folder:
            files = {
                name: to_litert(model, Path(folder, f"{number}.tflite"), **options)
                for number, (name, model) in enumerate(models.items())
            }
            timed = file_latency(files, threads=self.threads, repeats=_REPEATS)
        return {name: latency.p50 for name, latency in timed.items()}


def judge(model: keras.Model, data: ImageData, task: str | None) -> tuple[float, float]:
    """A trained model's loss, without label smoothing, and its accuracy on the images that `data` holds out."""
    model = without_auxiliary(model)
    head = _tasks.read_head(model, task)
    targets = data.targets[data.validation_indices]
    # Layer by layer: to trace a small net takes longer than to run it.
    outputs = np.concatenate([np.asarray(model(images, training=False)) for images, _ in data.validation(_BATCH)])
    rows = head.task == "softmax" and targets.ndim == 2
    if head.task != "softmax":
        targets = targets.reshape(outputs.shape)
    loss = float(_tasks.loss(head, rows=rows)(targets, outputs))
    return loss, float(_tasks.score(head, outputs, targets))
