"""Magnitude pruning in one step, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keraslight.compress.pruning import settings as _settings
from keraslight.compress.pruning.sensitivity import without_smallest
from keraslight.compress.pruning.sparsity import kernel_of, targets
from keraslight.graph import copy as copy_model, read, without_auxiliary


def prune_at_once(
    model: keras.Model,
    sparsity: float | Mapping[str, float] = 0.7,
    *,
    layers: str | Sequence[str] | None = None,
    policy: str = "default",
    block_size: tuple[int, int] | None = None,
) -> keras.Model:
    """Returns a copy of a model whose smallest weights are zero, as `prune` would zero them, but not trained.

    It shows what a sparse file will weigh and how fast it will be before any training; its accuracy is not that of
    `prune`.

    Args:
        model: A functional or sequential model. It is not changed. Auxiliary heads are left out.
        sparsity, layers, policy, block_size: As in `prune`.

    Returns:
        The copy, not compiled.

    Raises:
        InvalidArgumentError: As `prune` for these arguments.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    _settings.check(sparsity, "constant", policy, block_size, None)
    copy = copy_model(without_auxiliary(model))
    chosen = targets(copy, sparsity, layers, policy)
    blocks = _settings.blocks_of(block_size, policy)
    _settings.check_blocks(chosen, blocks)
    nodes = read(copy).layers()
    for name, (_, share) in chosen.items():
        kernel = kernel_of(nodes[name])
        kernel.assign(_without_small_blocks(np.asarray(kernel), share, blocks))
    return copy


def _without_small_blocks(kernel: npt.NDArray[Any], share: float, blocks: tuple[int, int]) -> npt.NDArray[Any]:
    """A copy with at least this share of its blocks of consecutive input and output channels zero."""
    if blocks == (1, 1):
        return without_smallest(kernel, share)
    matrix: Any = kernel.reshape(kernel.shape[-2:])
    height, width = matrix.shape
    missing = [(0, -height % blocks[0]), (0, -width % blocks[1])]
    padded, there = (np.pad(values, missing) for values in (np.abs(matrix), np.ones_like(matrix)))
    rows, columns = padded.shape[0] // blocks[0], padded.shape[1] // blocks[1]

    def sums(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(values.reshape(rows, blocks[0], columns, blocks[1]).sum((1, 3)))

    kept = without_smallest(sums(padded) / sums(there), share) > 0
    mask: Any = np.kron(kept, np.ones(blocks))
    return (matrix * mask[:height, :width]).astype(kernel.dtype).reshape(kernel.shape)
