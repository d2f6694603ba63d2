"""Models with fewer channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keraslight.compress.channels.groups import ChannelGroup, Groups, Keep
from keraslight.compress.channels.labels import (
    Channels,
    Labels,
    channel_key,
    channel_place,
    describe,
    getitem_key,
    moved,
    positions,
    slice_step,
)
from keraslight.errors import CompressionError
from keraslight.graph import Call, Graph, Node, Tensor, build, read
from keraslight.graph.kinds import kind


def channel_groups(model: keras.Model) -> tuple[ChannelGroup, ...]:
    """Finds which channels of a model can be removed, and which of them only together.

    Every layer that makes channels (convolutions, dense layers) is in a group. What adds or multiplies its channels
    with another layer's puts both into the same group: a residual stream is one group. Depthwise convolutions and
    normalizations follow what they read. Groups that can't be shrunk are listed with the reason: the model's output,
    attention, layers of unknown types.

    Args:
        model: A functional or sequential model, also with nested ones. It is not changed.

    Returns:
        The groups, from input to output.

    Raises:
        UnreadableModelError: The model has no graph.
    """
    return tuple(Groups(read(model, opaque=True)).public)


def layer_widths(model: keras.Model, widths: float | Mapping[str, int]) -> dict[str, int]:
    """The output channels that the layers of a model would have after `shrink`, which nothing is built for.

    `analysis.resource` tells what a model of these widths would cost.

    Args:
        model, widths: As in `shrink`.

    Returns:
        Layer -> output channels, for the layers that would have fewer.

    Raises:
        InvalidArgumentError, UnreadableModelError: As in `shrink`.
    """
    groups = Groups(read(model, opaque=True))
    return groups.layer_widths(groups.kept(widths, None, "uniform"))


def shrink(
    model: keras.Model,
    widths: float | Mapping[str, int] | None = None,
    *,
    keep: Keep | None = None,
    choice: str = "magnitude",
) -> keras.Model:
    """Removes channels from a model: a copy with narrower layers and the weights that are left.

    The copy computes what the model computes with the weights of the removed channels at zero. Only norms over channels
    (`LayerNormalization`, `GroupNormalization`, `GRN` and the like) then see fewer of them. Accuracy needs fine-tuning.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710, section 3, where
    filters are ranked by the sum of absolute weights rather than by that of squares.

    Args:
        model: A functional or sequential model. It is not changed.
        widths: Units to keep: a share of every removable group, in (0, 1], rounded, or a dictionary from the names of
            `channel_groups(model)` to numbers. Groups that are left out keep all. At least one unit always stays.
        keep: In place of `widths`, a dictionary from names to the places of the units that stay, from 0, in the order
            of the group's first layer.
        choice: Which units `widths` keeps: those with the largest sum of squares in the kernels that make them
            (`"magnitude"`), or evenly spaced ones (`"uniform"`).

    Returns:
        A new functional model, not compiled, with the same layer names, preprocessing and task. Nested models are
        opened up.

    Raises:
        InvalidArgumentError: A name, a number or a place is not one of the group's, the group can't be shrunk, or not
            exactly one of `widths` and `keep` is given.
        UnreadableModelError: The model has no graph.
        CompressionError: A layer's configuration does not make it again.
    """
    groups = Groups(read(model, opaque=True))
    return build(shrunk(groups, groups.kept(widths, keep, choice)))


def shrunk(groups: Groups, kept: Mapping[str, np.ndarray]) -> Graph:
    """The graph with fewer channels.

    Args:
        groups: The groups of a graph, which is not changed.
        kept: As `Groups.kept` gives it.

    Raises:
        CompressionError: A layer that moves values would move others (a fault of its row in `graph/kinds.py`).
    """
    labels, stays = groups.labels, ~groups.removed(kept)
    graph = labels.graph.copy()
    values = {
        tensor: dataclasses.replace(x, row=x.row[stays[x.row]], shape=_with(x.shape, x.axis, int(stays[x.row].sum())))
        for tensor, x in labels.values.items()
    }
    cut = set()
    for before, call in zip(labels.graph.calls, graph.calls, strict=True):
        if all(stays[labels.values[tensor].row].all() for tensor in (*before.inputs, *before.outputs)):
            continue
        if kind(before.layer).flow == "move":
            _move(before, call, labels, values, stays)
        elif labels.bound(before.node) and before.node not in cut:
            cut.add(before.node)
            _cut(before.node, call.node, labels, stays)
    sizes = {
        tensor: dataclasses.replace(tensor, shape=_with(tensor.shape, x.axis, len(x.row)))
        for tensor, x in values.items()
        if x.axis > 0 and tensor.shape[x.axis] is not None
    }

    def resized(structure: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: sizes.get(leaf, leaf) if isinstance(leaf, Tensor) else leaf, structure
        )

    for call in graph.calls:
        call.args, call.kwargs, call.outputs = resized(call.args), resized(call.kwargs), resized(call.outputs)
    return dataclasses.replace(graph, outputs=resized(graph.outputs))


def _with(shape: tuple[Any, ...], axis: int, size: int) -> tuple[Any, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _cut(before: Node, node: Node, labels: Labels, stays: np.ndarray) -> None:
    """Cuts the weights of a layer, and its configuration with them."""
    weights = list(before.weights)
    for bound in labels.bound(before):
        weights[bound.weight] = np.compress(stays[bound.row], weights[bound.weight], bound.axis)
    config: dict[str, Any] = {}
    if before in labels.made:
        made = int(stays[labels.made[before].row].sum())
        config = {"units" if kind(labels.layers[before]).kernel == "dense" else "filters": made}
    if (row := labels.grouped(before)) is not None and labels.layers[before].groups == len(row):
        config["groups"] = int(stays[row].sum())
    if (width := kind(labels.layers[before]).width) is not None:
        (bound,) = labels.bound(before)
        config[width] = int(stays[bound.row].sum())
    node.change(config=config, weights=weights)


def _move(before: Call, call: Call, labels: Labels, new: Mapping[Tensor, Channels], stays: np.ndarray) -> None:
    """Changes the numbers of a layer that moves values, and checks on the labels that it moves those that are left."""
    layer, x = before.layer, labels.values[before.inputs[0]]
    there = stays[x.row]
    config: dict[str, Any] = {}
    for name, first in (("target_shape", 1), ("newshape", 0)):
        if hasattr(layer, name):  # a reshaping
            shape, made = list(getattr(layer, name)), new[before.outputs[0]]
            if shape[made.axis - first] != -1:
                shape[made.axis - first] = len(made.row)
            config = {name: tuple(shape)}
    part = channel_key(before, x)
    if isinstance(part, slice) and slice_step(before, x) == 1:
        start, stop, _ = part.indices(len(there))
        part = slice(int(there[:start].sum()), int(there[:stop].sum()))
    elif isinstance(part, int):
        part = int(there[: range(len(there))[part]].sum())
    if isinstance(part, slice) and isinstance(layer, keras.layers.Layer):
        config = {"start": part.start, "stop": part.stop}
    elif part is not None:
        _replace_key(call, x, part)
    if hasattr(layer, "indices_or_sections") and x.axis in positions(layer, len(x.shape)):
        lengths = [len(new[tensor].row) for tensor in before.outputs]
        config = {"indices_or_sections": tuple(np.cumsum(lengths)[:-1].tolist())}
    if config:
        call.node.change(config=config)
    results = moved(call, call.node.make() if config else layer, {tensor: new[tensor].full for tensor in call.inputs})
    roots = labels.roots
    if not all(
        np.array_equal(roots[each], roots[new[tensor].full])
        for each, tensor in zip(results, before.outputs, strict=True)
    ):
        raise CompressionError(
            "Every layer that moves channels must move those that are left as before. "
            f"Received: {describe(before)} with channels removed."
        )


def _replace_key(call: Call, x: Channels, part: slice | int) -> None:
    """Puts what a bare slice takes of the channels into its key."""
    key, place = list(getitem_key(call)), channel_place(call, x)
    if place is not None:
        key[place] = part
    call.args, call.kwargs = (call.args[0], tuple(key)), {}
