"""Which kernels are pruned, and how sparse they are."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

import keras
import numpy as np

from keraslight.compress import _graph
from keraslight.errors import InvalidArgumentError

_KERNELS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one kernel.

    Attributes:
        name: The layer's name.
        shape: The kernel's shape.
        zeros: How many of its elements are exactly zero.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape))

    @property
    def fraction(self) -> float:
        """Zeros among the elements, 0..1."""
        return self.zeros / self.size


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """The zeros of a model's kernels; `str()` is a table.

    Attributes:
        layers: One entry a kernel, in the model's order.
    """

    layers: tuple[LayerSparsity, ...]

    @property
    def total(self) -> float:
        """Zeros among all elements of the listed kernels, 0..1."""
        return sum(layer.zeros for layer in self.layers) / max(sum(layer.size for layer in self.layers), 1)

    def __str__(self) -> str:
        rows = [(layer.name, "x".join(map(str, layer.shape)), layer.zeros, layer.size) for layer in self.layers]
        rows.append(("total", "", sum(row[2] for row in rows), sum(row[3] for row in rows)))
        wide = max(len("kernel"), *(len(row[0]) for row in rows))
        lines = [f"{'kernel':<{wide}}  {'shape':>14}  {'zeros':>10}  {'of':>10}  sparsity"]
        for name, shape, zeros, size in rows:
            lines.append(f"{name:<{wide}}  {shape:>14}  {zeros:>10,}  {size:>10,}  {zeros / max(size, 1):>7.1%}")
        return "\n".join(lines)


def sparsity(model: keras.Model, layers: str | Sequence[str] | None = None) -> SparsityReport:
    """Counts the zeros of a model's kernels.

    Args:
        model: A functional or sequential Keras 3 model.
        layers: Name patterns (`fnmatch`) of the layers to list; None lists those that `prune` prunes by default,
            `"*"` every Conv2D, DepthwiseConv2D and Dense.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: a pattern matches no layer that has a kernel.
        CompressionError: the model is subclassed.
    """
    chosen = prunable_layers(model, layers)
    entries = [(name, np.asarray(layer.kernel)) for name, layer in chosen.items()]
    return SparsityReport(tuple(LayerSparsity(name, k.shape, int((k == 0).sum())) for name, k in entries))


def prunable_layers(model: keras.Model, patterns: str | Sequence[str] | None = None) -> dict[str, keras.Layer]:
    """The layers to prune, by name, in the model's order.

    Without patterns: every Conv2D and Dense but the first convolution. Depthwise kernels and the first convolution
    are left alone: together they hold a few percent of the weights, and zeros there cost the most accuracy.
    """
    kernels = {name: layer for name, layer in _graph.read(model).layers().items() if isinstance(layer, _KERNELS)}
    if patterns is None:
        stem = next((name for name, layer in kernels.items() if isinstance(layer, keras.layers.Conv2D)), None)
        chosen = {
            name: layer
            for name, layer in kernels.items()
            if name != stem and not isinstance(layer, keras.layers.DepthwiseConv2D)
        }
        if not chosen:
            raise InvalidArgumentError(
                "A model to prune must have a Dense layer or a second Conv2D. "
                f"Received: {model.name!r} with the kernels {list(kernels)}."
            )
        return chosen
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        if not fnmatch.filter(kernels, pattern):
            raise InvalidArgumentError(
                "Each pattern of `layers` must match a Conv2D, DepthwiseConv2D or Dense by name. "
                f"Received: {pattern!r}; the model has {list(kernels)}."
            )
    return {name: layer for name, layer in kernels.items() if any(fnmatch.fnmatch(name, p) for p in patterns)}
