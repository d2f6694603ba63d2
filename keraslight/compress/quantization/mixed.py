"""Finds the layers that lose most in int8, and writes int8 files in which those stay float."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight import _pictures
from keraslight._notebook import Report
from keraslight.compress.quantization.calibrate import RANGE_IMAGES, prepare, range_images
from keraslight.compress.quantization.int8_layers import Int8Layers
from keraslight.compress.quantization.judge import Images, Judge, QuantizationCost
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.rewrite import in_float32

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class QuantizationSensitivity(Report):
    """Cost of int8 in each layer alone; `str()` is a table, the most costly layer first.

    Attributes:
        baseline: Accuracy of the model, 0..1; None without labels.
        layers: Layer name -> cost with only this layer in int8, in the model's order.
    """

    baseline: float | None
    layers: dict[str, QuantizationCost]

    @property
    def ranked(self) -> tuple[str, ...]:
        """Layer names by the difference of the outputs, largest first.

        Accuracy would not do: on a few hundred images it is the same for most layers.
        """
        return tuple(sorted(self.layers, key=lambda name: -self.layers[name].difference))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draws the table as bars.

        Args:
            path: File to write, .png or .svg. None writes none.

        Returns:
            The figure, which notebooks show.

        Raises:
            InvalidArgumentError: `path` ends differently.
            MissingDependencyError: matplotlib is not installed.
        """
        costs = [self.layers[name] for name in self.ranked]
        title, label = "Outputs with one layer in int8", "top-1 agreement"
        if self.baseline is not None:
            title, label = f"{title} (float: {self.baseline:.2%})", "accuracy"
        return _pictures.ranking(
            path,
            np.asarray([cost.difference for cost in costs]),
            rows=self.ranked,
            notes=[f"{cost.agreement if cost.accuracy is None else cost.accuracy:.2%}" for cost in costs],
            title=title,
            axis=f"mean difference of an output, labelled with {label}",
        )

    def __str__(self) -> str:
        wide = max(len("only this layer in int8"), *map(len, self.layers))
        lines = [_heading("only this layer in int8", wide, self.baseline)]
        lines += [f"{name:<{wide}}  {self.layers[name]}" for name in self.ranked]
        return "\n".join([*lines, *_float_line(wide, self.baseline)])


@dataclasses.dataclass(frozen=True)
class MixedPrecision(Report):
    """An int8 file in which some layers stay float, and how they were chosen; `str()` is a table.

    Attributes:
        path: The file.
        baseline: Accuracy of the model, 0..1; None without labels.
        steps: Costs with no float layer, with one, with two ...: one more than `floats`.
        floats: Layers that stay float, in the order in which they were chosen; pass them to `calibrate(skip=...)`.
    """

    path: Path
    baseline: float | None
    steps: tuple[QuantizationCost, ...]
    floats: tuple[str, ...]

    @property
    def drop(self) -> float:
        """Loss of the file, 0..1: of accuracy, or without labels of agreement with the model."""
        return self.steps[-1].drop(self.baseline)

    def __str__(self) -> str:
        names = ["all layers in int8", *(f"+ {name} in float" for name in self.floats)]
        wide = max(map(len, names))
        lines = [_heading("", wide, self.baseline)]
        lines += [f"{name:<{wide}}  {step}" for name, step in zip(names, self.steps, strict=True)]
        return "\n".join([*lines, *_float_line(wide, self.baseline)])


def quantization_sensitivity(
    model: keras.Model,
    data: Any,
    *,
    calibration_data: Any = None,
    layers: str | Sequence[str] = "*",
    equalize: bool = True,
    correct_bias: bool = True,
    replace_relu6: bool = False,
    task: str | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> QuantizationSensitivity:
    """Measures the cost of int8 for each layer, with that layer in int8 and everything else in float.

    The files are those that `calibrate` would write, run by the LiteRT interpreter. They share one conversion: each
    layer takes about 50 milliseconds and one pass of the images through the file.

    Args:
        model: A trained functional or sequential Keras 3 model with one input and one output. It is not changed.
        data: Images, or images and labels as in `prune`, as arrays or as a tf.data.Dataset of batches. All of it is
            kept in memory: a few hundred images are enough.
        calibration_data: Images that set the ranges, in the same forms; None uses `data`.
        layers: Name patterns (`fnmatch`) of the layers to try. Layers that `fuse` folds into another one follow that
            layer.
        equalize, correct_bias, replace_relu6: As in `calibrate`.
        task: What the outputs are, as in `prune`.
        seed: Seed of the choice of images from arrays.
        verbose: 1 shows a progress bar, 0 nothing.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: The data can't be used, a pattern matches nothing, or the task must be said.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        ExportError: The converter fails.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    model = in_float32(model)
    judge = Judge(model, Images(data), task)
    images = judge.data if calibration_data is None else Images(calibration_data, RANGE_IMAGES)
    how = {"equalize": equalize, "correct_bias": correct_bias, "replace_relu6": replace_relu6}
    parts = _int8_layers(model, images, 1, how, seed, task)
    return _scan(parts, judge, parts.matching(layers, "layers"), verbose)


def calibrate_mixed(
    model: keras.Model,
    data: Any,
    path: str | os.PathLike[str],
    *,
    max_drop: float = 0.005,
    validation_data: Any = None,
    equalize: bool = True,
    correct_bias: bool = True,
    replace_relu6: bool = False,
    input_dtype: str = "float32",
    batch_size: int | None = 1,
    task: str | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> MixedPrecision:
    """Writes an int8 .tflite file in which as many layers stay float32 as a bound on the loss requires.

    If the bound holds with all layers in int8, the file is that of `calibrate`. Otherwise `quantization_sensitivity`
    ranks the layers, and they become float one by one, the most costly first, until the bound holds.

    Args:
        model: A trained functional or sequential Keras 3 model with one input and one output. It is not changed.
        data: Images that set the ranges: images, or images and labels as in `prune`, as arrays or as a
            tf.data.Dataset of batches.
        path: File to write.
        max_drop: Largest loss, 0..1: of accuracy against `model`, or without labels the share of images whose top-1
            class changes. For other tasks as `LiteRTParity.drop`.
        validation_data: Images to measure the loss on, in the same forms; None uses `data`. All of it is kept in memory
            and run through a file once per layer: a few hundred images are enough.
        equalize, correct_bias, replace_relu6, input_dtype, batch_size: As in `calibrate`.
        task: What the outputs are, as in `prune`.
        seed: Seed of the choice of images from arrays.
        verbose: 1 shows a progress bar, 0 nothing.

    Returns:
        The report, which names the float layers.

    Raises:
        InvalidArgumentError: An argument or the data can't be used, or the task must be said.
        CompressionError: The bound does not hold with every layer in float (equalizing over a ReLU6 changes a model;
            with an integer input the first layer can't be float), the model is subclassed, or a layer's configuration
            does not make it again. Nothing is written.
        ExportError: The converter fails.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    if not 0 <= max_drop < 1:
        raise InvalidArgumentError(f"`max_drop` must be in [0, 1). Received: {max_drop}.")
    model = in_float32(model)
    images = Images(data, None if validation_data is None else RANGE_IMAGES)
    judge = Judge(model, images if validation_data is None else Images(validation_data), task)
    how = {"equalize": equalize, "correct_bias": correct_bias, "replace_relu6": replace_relu6}
    parts = _int8_layers(model, images, batch_size, how, seed, task)
    floats: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = parts.write(Path(folder) / "mixed.tflite", floats, input_dtype=input_dtype)
        steps = [judge.cost(file)]
        waiting: list[str] | None = None
        while steps[-1].drop(judge.baseline) > max_drop:
            if waiting is None:
                waiting = list(_scan(parts, judge, set(parts.names), verbose).ranked)
            if not waiting:
                raise CompressionError(
                    f"A file with every layer in float must lose at most max_drop={max_drop}. Received: a loss of "
                    f"{steps[-1].drop(judge.baseline):.4f} with the layers {floats} in float."
                )
            layer = waiting.pop(0)
            try:
                file = parts.write(file, [*floats, layer], input_dtype=input_dtype)
            except InvalidArgumentError:
                continue  # the file's end, where an integer input needs int8
            floats.append(layer)
            steps.append(judge.cost(file))
        path = parts.write(path, floats, input_dtype=input_dtype)
    return MixedPrecision(path, judge.baseline, tuple(steps), tuple(floats))


def _int8_layers(
    model: keras.Model, data: Images, batch_size: int | None, how: dict[str, bool], seed: int, task: str | None
) -> Int8Layers:
    images = range_images(model, data.images, seed)
    graph, pixels = prepare(model, images, **how)
    graph.task = task or graph.task  # names the output
    return Int8Layers(graph, images, batch_size, pixels)


def _scan(parts: Int8Layers, judge: Judge, names: set[str], verbose: int) -> QuantizationSensitivity:
    chosen = [name for name in parts.names if name in names]
    bar = keras.utils.Progbar(len(chosen), unit_name="layer", verbose=verbose)
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            costs[name] = judge.cost(parts.write_alone(Path(folder) / "alone.tflite", name))
            bar.add(1)
    return QuantizationSensitivity(judge.baseline, costs)


def _heading(text: str, wide: int, baseline: float | None) -> str:
    return f"{text:<{wide}}  " + ("" if baseline is None else "accuracy  ") + "same top-1  difference"


def _float_line(wide: int, baseline: float | None) -> list[str]:
    return [] if baseline is None else [f"{'float':<{wide}}  {baseline:>8.2%}"]
