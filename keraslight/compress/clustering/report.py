"""Number of distinct values in kernels, and their compressed size."""

import dataclasses
import gzip
from collections.abc import Sequence

import keras
import numpy as np

from keraslight._notebook import Report
from keraslight.compress.pruning.sparsity import kernel_of, prunable_layers


@dataclasses.dataclass(frozen=True)
class LayerClusters:
    """The distinct values of one kernel.

    Attributes:
        name: The layer's name.
        shape: The kernel's shape.
        values: Number of distinct values, zero included.
        zeros: Number of elements that are exactly zero.
        gzip_bytes: Size of its float32 values after gzip, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    values: int
    zeros: int
    gzip_bytes: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class ClusterReport(Report):
    """The distinct values of a model's kernels; `str()` is a table.

    Attributes:
        layers: One entry per kernel, in the model's order.
    """

    layers: tuple[LayerClusters, ...]

    @property
    def gzip_bytes(self) -> int:
        """Size of all listed kernels after gzip, each compressed separately, in bytes."""
        return sum(layer.gzip_bytes for layer in self.layers)

    @property
    def gzip_share(self) -> float:
        """The same as a share of their size in float32."""
        return self.gzip_bytes / max(4 * sum(layer.size for layer in self.layers), 1)

    def __str__(self) -> str:
        wide = max(len("kernel"), *(len(layer.name) for layer in self.layers))
        lines = [f"{'kernel':<{wide}}  {'shape':>14}  {'values':>9}  {'zeros':>9}  {'gzip bytes':>11}"]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            lines.append(
                f"{layer.name:<{wide}}  {shape:>14}  {layer.values:>9,}  {layer.zeros:>9,}  {layer.gzip_bytes:>11,}"
            )
        lines.append(f"{'total':<{wide}}  {'':>14}  {'':>9}  {'':>9}  {self.gzip_bytes:>11,} ({self.gzip_share:.1%})")
        return "\n".join(lines)


def cluster_report(model: keras.Model, layers: str | Sequence[str] | None = None) -> ClusterReport:
    """Counts the distinct values of a model's kernels and compresses them.

    Args:
        model: A functional or sequential Keras 3 model.
        layers: Name patterns (`fnmatch`) of the layers to list; None lists those that `cluster` clusters by default,
            `"*"` every Conv2D, DepthwiseConv2D and Dense. Of a SeparableConv2D the 1x1 kernel counts.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: A pattern matches no layer that has a kernel.
        CompressionError: The model is subclassed.
    """
    entries = []
    for name, layer in prunable_layers(model, layers, frozen=True).items():
        kernel = np.asarray(kernel_of(layer), np.float32)
        packed = len(gzip.compress(kernel.tobytes(), mtime=0))
        entries.append(LayerClusters(name, kernel.shape, np.unique(kernel).size, int((kernel == 0).sum()), packed))
    return ClusterReport(tuple(entries))
