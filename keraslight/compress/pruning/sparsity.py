"""Which kernels are pruned, and how sparse they are."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keraslight._notebook import Report
from keraslight.compress._patterns import chosen
from keraslight.errors import InvalidArgumentError
from keraslight.graph import is_frozen, read
from keraslight.graph.kinds import base_kind

POLICIES = ("default", "xnnpack")
Targets = dict[str, tuple[keras.Layer, float]]
"""Layer name -> the layer and the share of zeros that it shall reach, in the model's order."""


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one kernel.

    Attributes:
        name: The layer's name.
        shape: The kernel's shape.
        zeros: Number of elements that are exactly zero.
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
class SparsityReport(Report):
    """The zeros of a model's kernels; `str()` is a table.

    Attributes:
        layers: One entry per kernel, in the model's order.
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


def sparsity(model: keras.Model, layers: str | Sequence[str] | None = None, policy: str = "default") -> SparsityReport:
    """Counts the zeros of a model's kernels.

    Args:
        model: A functional or sequential Keras 3 model.
        layers: Name patterns (`fnmatch`) of the layers to list; None lists those that `prune` prunes by default, or
            would prune if they were not frozen, `"*"` every Conv2D, DepthwiseConv2D and Dense. Of a SeparableConv2D
            the 1x1 kernel counts.
        policy: As in `Pruning`.

    Returns:
        The report.

    Raises:
        InvalidArgumentError: A pattern matches no layer that has a kernel.
        CompressionError: The model is subclassed.
    """
    listed = prunable_layers(model, layers, policy, frozen=True)
    entries = [(name, np.asarray(kernel_of(layer))) for name, layer in listed.items()]
    return SparsityReport(tuple(LayerSparsity(name, k.shape, int((k == 0).sum())) for name, k in entries))


def kernel_of(layer: keras.Layer) -> keras.Variable:
    """The kernel that is pruned: of a SeparableConv2D the 1x1 one, which holds nearly all of its weights."""
    return getattr(layer, base_kind(type(layer)).prunes or "kernel")


def prunable_layers(
    model: keras.Model,
    patterns: str | Sequence[str] | None = None,
    policy: str = "default",
    *,
    frozen: bool = False,
) -> dict[str, keras.Layer]:
    """The layers to prune, by name, in the model's order: no frozen ones, which training must not change.

    Args:
        model: A functional or sequential model.
        patterns: Name patterns (`fnmatch`) of layers with a kernel to prune; None uses those of `policy`.
        policy: As in `Pruning`. By default depthwise kernels and the first convolution are skipped: together they hold
            a few percent of the weights, and zeros there cost the most accuracy.
        frozen: Whether to return frozen ones, too: for reports.

    Raises:
        InvalidArgumentError: A pattern matches nothing or only frozen layers, the policy is unknown or chooses nothing,
            or both are given.
        CompressionError: The model is subclassed.
    """
    if policy not in POLICIES:
        raise InvalidArgumentError(f"`policy` must be one of {POLICIES}. Received: {policy!r}.")
    if patterns is not None and policy != "default":
        raise InvalidArgumentError(
            f"`policy` must be 'default' where layers are named. Received: policy={policy!r}, layers={patterns!r}."
        )
    kernels = {name: layer for name, layer in read(model).layers().items() if base_kind(type(layer)).prunes}
    if patterns is None:
        layouts = {name: base_kind(type(layer)).kernel for name, layer in kernels.items()}
        stem = next((name for name, layout in layouts.items() if layout in ("convolution", "separable")), None)
        wanted = {
            name: layer
            for name, layer in kernels.items()
            if (_runs_sparse(layer) if policy == "xnnpack" else name != stem and layouts[name] != "depthwise")
        }
        if not wanted:
            kind = "a 1x1 Conv2D" if policy == "xnnpack" else "a Dense layer or a second Conv2D"
            raise InvalidArgumentError(
                f"A model to compress must have {kind}. Received: {model.name!r} with the kernels {list(kernels)}."
            )
        free = {name: layer for name, layer in wanted.items() if frozen or not _is_frozen(layer)}
        if not free:
            raise InvalidArgumentError(
                "A model to compress must have a layer to compress with `trainable=True`: frozen kernels stay as they "
                f"are. Received: {model.name!r}, which has frozen {list(wanted)}."
            )
        return free
    if not patterns:
        raise InvalidArgumentError("`layers` must be None or name at least one pattern. Received: none.")
    rule = "Each pattern of `layers` must match a Conv2D, SeparableConv2D, DepthwiseConv2D or Dense by name"
    names = chosen(kernels, patterns, rule, list(kernels))
    if not frozen:
        free = {name: layer for name, layer in kernels.items() if not _is_frozen(layer)}
        rule = "Each pattern of `layers` must match a layer with `trainable=True`: frozen kernels stay as they are"
        names = chosen(free, patterns, rule, list(free))
    return {name: kernels[name] for name in names}


def targets(
    model: keras.Model,
    sparsity: float | Mapping[str, float],
    layers: str | Sequence[str] | None = None,
    policy: str = "default",
) -> Targets:
    """The layers to prune with their target shares of zeros; of shares by pattern the first that matches applies.

    Raises:
        InvalidArgumentError, CompressionError: As `prunable_layers`.
    """
    if not isinstance(sparsity, Mapping):
        return {name: (layer, sparsity) for name, layer in prunable_layers(model, layers, policy).items()}
    if layers is not None or policy != "default":
        raise InvalidArgumentError(
            "`layers` and `policy` must be left out where the sparsities name the layers. "
            f"Received: layers={layers!r}, policy={policy!r}, sparsities for {list(sparsity)}."
        )
    return {
        name: (layer, next(share for pattern, share in sparsity.items() if fnmatch.fnmatch(name, pattern)))
        for name, layer in prunable_layers(model, tuple(sparsity)).items()
    }


def check_sparsity(name: str, sparsity: float | Mapping[str, float]) -> None:
    """Raises InvalidArgumentError where a share (or one of several) is not in (0, 1), or there is none."""
    shares = tuple(sparsity.values()) if isinstance(sparsity, Mapping) else (sparsity,)
    if not shares or not all(0 < share < 1 for share in shares):
        raise InvalidArgumentError(f"`{name}` must be in (0, 1). Received: {sparsity}.")


def _is_frozen(layer: keras.Layer) -> bool:
    return is_frozen(layer) or not kernel_of(layer).trainable


def _runs_sparse(layer: keras.Layer) -> bool:
    if isinstance(layer, keras.layers.SeparableConv2D):  # in the file a depthwise and a 1x1 convolution
        return True
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == layer.strides == layer.dilation_rate == (1, 1)
        and layer.groups == 1
    )
