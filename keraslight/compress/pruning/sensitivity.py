"""Accuracy lost by pruning each layer alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight import _batches as _data, _pictures, _tasks
from keraslight._notebook import Report
from keraslight.compress.pruning.sparsity import kernel_of, prunable_layers
from keraslight.errors import InvalidArgumentError
from keraslight.graph import compilable, copy as copy_model, read, without_auxiliary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class SensitivityReport(Report):
    """Accuracy against sparsity for each layer; `str()` is a table.

    Attributes:
        baseline: Accuracy of the unpruned model, 0..1.
        sparsities: Shares of zeros that were tried, in (0, 1).
        accuracies: Layer name -> accuracy at each sparsity, with only this layer's kernel pruned.
    """

    baseline: float
    sparsities: tuple[float, ...]
    accuracies: dict[str, tuple[float, ...]]

    def within(self, loss: float) -> dict[str, float]:
        """Finds the highest sparsity of each layer that alone costs at most `loss`, for `Pruning` and `prune`.

        Losses of several layers add up and fine-tuning recovers most of them, so this is a starting point.

        Args:
            loss: Accuracy that may be lost, 0..1.

        Returns:
            Layer name -> sparsity, without the layers that lose more even at the lowest sparsity. A sparsity above one
            that costs too much is not considered.
        """
        chosen = {}
        for name, accuracies in self.accuracies.items():
            for sparsity, accuracy in zip(self.sparsities, accuracies, strict=True):
                if accuracy < self.baseline - loss:
                    break
                chosen[name] = sparsity
        return chosen

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draws the table as a heat map: one row per layer, one column per sparsity, colored by accuracy.

        Args:
            path: File to write, .png or .svg. None writes none.

        Returns:
            The figure, which notebooks show.

        Raises:
            InvalidArgumentError: `path` ends differently.
            MissingDependencyError: matplotlib is not installed.
        """
        return _pictures.heat_map(
            path,
            np.asarray(list(self.accuracies.values())),
            rows=list(self.accuracies),
            columns=[f"{sparsity:.0%}" for sparsity in self.sparsities],
            title=f"Accuracy with one layer pruned (dense: {self.baseline:.2%})",
            axis="sparsity of the layer",
        )

    def __str__(self) -> str:
        wide = max(len("accuracy at"), *map(len, self.accuracies))
        lines = [f"{'accuracy at':<{wide}}" + "".join(f"  {sparsity:>7.0%}" for sparsity in self.sparsities)]
        for name, accuracies in self.accuracies.items():
            lines.append(f"{name:<{wide}}" + "".join(f"  {accuracy:>7.2%}" for accuracy in accuracies))
        return "\n".join([*lines, f"{'dense':<{wide}}  {self.baseline:>7.2%}"])


def sensitivity(
    model: keras.Model,
    data: Any,
    *,
    sparsities: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    layers: str | Sequence[str] | None = None,
    policy: str = "default",
    batch_size: int = 64,
    task: str | None = None,
) -> SensitivityReport:
    """Measures the accuracy with each layer pruned in turn, without any training.

    Source: Li et al., "Pruning filters for efficient ConvNets", https://arxiv.org/abs/1608.08710, section 3.2, with
    single weights in place of filters.

    Args:
        model: A trained functional or sequential model. It is not changed. Auxiliary heads are left out.
        data: Images and labels, in any form that `prune` takes. All of it is kept in memory and run through the model
            once per layer and sparsity: a thousand images are enough.
        sparsities: Shares of zeros to try, each in (0, 1), in ascending order.
        layers, policy: Layers to prune, as in `Pruning`.
        batch_size: Images per batch if `data` is arrays.
        task: What the outputs are, as in `prune`. The accuracy of `multi-label` and `binary` is the share of right
            decisions; that of `regression` is the coefficient of determination, 1 at best.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: An argument is out of range, `data` can't be used, a pattern matches nothing, the task
            must be said, or the labels don't fit it.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    sparsities = tuple(sparsities)
    if not sparsities or list(sparsities) != sorted(set(sparsities)) or not 0 < sparsities[0] <= sparsities[-1] < 1:
        raise InvalidArgumentError(f"`sparsities` must rise and lie in (0, 1). Received: {sparsities}.")
    model = without_auxiliary(model)
    head = _tasks.read_head(model, task)
    names = list(prunable_layers(model, layers, policy))
    copy = copy_model(model)
    kernels = {name: kernel_of(layer) for name, layer in read(copy).layers().items() if name in names}
    _data.check_ends(data)
    batches = [(images.numpy(), labels.numpy()) for images, labels in _data.batches(data, batch_size)]
    if not batches or any(len(images) != len(labels) for images, labels in batches):
        raise InvalidArgumentError(
            "`data` must hold at least one batch, with one label per image. "
            f"Received: batches of {[(len(images), len(labels)) for images, labels in batches]} images and labels."
        )
    targets = np.concatenate([labels for _, labels in batches])
    _tasks.check_labels(head, model.outputs[0].shape, targets)

    def accuracy() -> float:
        with compilable(copy):
            outputs = np.concatenate([np.asarray(copy.predict_on_batch(images)) for images, _ in batches])
        return _tasks.score(head, outputs, targets)

    accuracies = {}
    baseline = accuracy()
    for name, kernel in kernels.items():
        dense = kernel.numpy()
        found = []
        for sparsity in sparsities:
            kernel.assign(without_smallest(dense, sparsity))
            found.append(accuracy())
        kernel.assign(dense)
        accuracies[name] = tuple(found)
    return SensitivityReport(baseline, sparsities, accuracies)


def without_smallest(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    """A copy whose smallest elements, by magnitude, are zero: at least this share of them."""
    zeros = int(np.ceil(kernel.size * sparsity))
    flat = kernel.reshape(-1).copy()
    flat[np.argpartition(np.abs(flat), zeros - 1)[:zeros]] = 0
    return flat.reshape(kernel.shape)
