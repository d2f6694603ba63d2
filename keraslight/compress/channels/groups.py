"""The groups of channels that can be removed, and what stays of each."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keraslight._near import nearest
from keraslight.compress.channels.labels import Labels, along
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Graph, Node

Keep = Mapping[str, Sequence[int]]

CHOICES = ("magnitude", "uniform")


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels that the same layers make, each of which can be removed without the others.

    Attributes:
        name: Name of the first of `layers`. Where several groups share it, the later ones have a number after a colon.
        size: Number of units. A unit is removed as a whole: usually one channel of each of `layers`, but several where
            a grouped convolution, a shuffle or a split ties them.
        layers: The layers that make the channels: convolutions, dense layers and the like, from input to output.
        removable: Whether units can be removed. At least one always stays.
        reason: Why none can be removed; None if they can.
    """

    name: str
    size: int
    layers: tuple[str, ...]
    removable: bool
    reason: str | None = None


def channel_widths(groups: Iterable[ChannelGroup], share: float, *, divisor: int = 1) -> dict[str, int]:
    """Widths for `shrink` that are the same share of every group.

    Args:
        groups: What `channel_groups(model)` returns. Those that can't be shrunk are left out.
        share: Share of the units to keep, above 0 and up to 1.
        divisor: Widths are rounded to the nearest multiple of it: engines compute 8 channels as fast as 5. Groups of
            no more units keep all.

    Returns:
        Name -> number of units to keep, at least 1.

    Raises:
        InvalidArgumentError: An argument is out of range.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InvalidArgumentError(f"The share of channels to keep must be above 0 and at most 1. Received: {share!r}.")
    if divisor < 1:
        raise InvalidArgumentError(f"`divisor` must be at least 1. Received: {divisor}.")
    return {
        group.name: min(max(int(share * group.size / divisor + 0.5), 1) * divisor, group.size)
        for group in groups
        if group.removable
    }


class Groups:
    """The groups of a graph, and what they are made of.

    Attributes:
        labels: The labels of the graph's channels.
        public: The groups, from input to output.
        units: Name of a group -> the roots of its units, in the order of the first layer's channels.
    """

    def __init__(self, graph: Graph) -> None:
        self.labels = Labels(graph)
        self.public: list[ChannelGroup] = []
        self.units: dict[str, np.ndarray] = {}
        self._made = {node: self.labels.roots[bound.row] for node, bound in self.labels.made.items()}
        makers: dict[int, list[Node]] = defaultdict(list)  # root -> the layers that make its channels
        for node, roots in self._made.items():
            for root in dict.fromkeys(roots.tolist()):
                makers[root].append(node)
        parts = self._parts()
        members: dict[Any, list[int]] = defaultdict(list)
        for root, nodes in makers.items():
            members[(*nodes, self.labels.reasons.get(root), parts[root])].append(root)
        for (*nodes, reason, _), roots in members.items():
            if reason is None and len(roots) == 1:
                reason = "one of them must stay, and they are removed together"
            names = [node.name for node in nodes]
            name = next(each for each in _numbered(names[0]) if each not in self.units)
            self.units[name] = np.array(roots)
            self.public.append(ChannelGroup(name, len(roots), tuple(names), reason is None, reason))

    def _parts(self) -> dict[int, int]:
        """Root -> a number that differs wherever a tensor has some of a layer's channels and not others.

        A group of channels that are all in the same tensors can't leave one of them empty as long as one stays.
        """
        part: dict[int, int] = defaultdict(int)
        numbers: dict[tuple[int, int], int] = {}
        rows = {np.unique(self.labels.roots[x.row]).tobytes() for x in self.labels.values.values()}
        for place, row in enumerate(sorted(rows)):
            for root in np.frombuffer(row, np.int64).tolist():
                part[root] = numbers.setdefault((part[root], place), len(numbers) + 1)
        return part

    def kept(
        self, widths: float | Mapping[str, int] | None, keep: Keep | None, choice: str = "magnitude"
    ) -> dict[str, np.ndarray]:
        """Name of a group -> places of the units that stay, ascending, for the groups that lose any.

        Raises:
            InvalidArgumentError: As in `shrink`.
        """
        if (widths is None) == (keep is None):
            raise InvalidArgumentError(
                f"Either `widths` or `keep` must be given. Received: widths={widths}, keep={keep}."
            )
        if choice not in CHOICES:
            raise InvalidArgumentError(f"`choice` must be one of {', '.join(CHOICES)}. Received: {choice!r}.")
        if keep is not None:
            found = {name: self._indices(self.group(name), places) for name, places in keep.items()}
        else:
            sizes = self.sizes(widths)  # type: ignore[arg-type]  # one of both is given
            found = {name: self._chosen(name, size, choice) for name, size in sizes.items()}
        return {name: places for name, places in found.items() if len(places) < len(self.units[name])}

    def group(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            InvalidArgumentError: There is none.
        """
        for group in self.public:
            if group.name == name:
                return group
        near = nearest(str(name), {}, list(self.units))
        raise InvalidArgumentError(
            f"Names must be those of `channel_groups(model)`. Received: {name!r}; the nearest are {near}."
        )

    def sizes(self, widths: float | Mapping[str, int]) -> dict[str, int]:
        """Name of a group -> number of its units that stay.

        Raises:
            InvalidArgumentError: As in `shrink`.
        """
        if isinstance(widths, Mapping):
            return {name: self._size(self.group(name), size) for name, size in widths.items()}
        return channel_widths(self.public, widths)

    def strength(self, name: str) -> np.ndarray:
        """The sum of squares of the kernels that make each unit of a group."""
        units = self.units[name]
        total = np.zeros(len(self.labels.roots))
        for node, roots in self._made.items():
            if np.isin(roots, units).any():
                made = self.labels.made[node]
                squares = np.square(node.weights[made.weight].astype(np.float64))
                np.add.at(total, roots, squares.sum(tuple(axis for axis in range(squares.ndim) if axis != made.axis)))
        return total[units]

    def removed(self, kept: Mapping[str, np.ndarray]) -> np.ndarray:
        """Label -> whether its channel is removed."""
        gone = [np.delete(self.units[name], places) for name, places in kept.items()]
        return np.isin(self.labels.roots, np.concatenate(gone) if gone else [])

    def layer_widths(self, kept: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Layer -> output channels, for the layers that make fewer channels than in the graph."""
        stays = ~self.removed(kept)
        found = {node.name: stays[bound.row] for node, bound in self.labels.made.items()}
        return {name: int(row.sum()) for name, row in found.items() if not row.all()}

    def masks(self, kept: Mapping[str, np.ndarray]) -> list[tuple[keras.Variable, np.ndarray]]:
        """What to multiply the model's weights by, so that it computes what the shrunk one does.

        Statistics of batch norms have no masks. A model with norms over channels computes something else.

        Args:
            kept: As `kept` gives it.

        Returns:
            Weights of the model that was read, and 0 or 1 for each entry, with the weight's shape or broadcast over
            axes along which nothing is removed. Weights that stay as they are are left out.
        """
        removed = self.removed(kept)
        masks: list[tuple[keras.Variable, np.ndarray]] = []
        for node, layer in self.labels.layers.items():
            found: dict[int, np.ndarray] = {}
            for bound in self.labels.bound(node):
                weight = layer.weights[bound.weight]
                if removed[bound.row].any() and not weight.name.startswith("moving_"):
                    mask = along((~removed[bound.row]).astype(np.float32), bound.axis, len(weight.shape))
                    found[bound.weight] = found[bound.weight] * mask if bound.weight in found else mask
            masks.extend((layer.weights[place], mask) for place, mask in found.items())
        return masks

    def _size(self, group: ChannelGroup, size: Any) -> int:
        try:
            number = operator.index(size)
        except TypeError:
            number = 0
        if isinstance(size, bool) or not 1 <= number <= group.size:
            raise InvalidArgumentError(
                f"The width of {group.name!r} must be a whole number from 1 to {group.size}. Received: {size!r}."
            )
        self._check_removable(group, number)
        return number

    def _indices(self, group: ChannelGroup, places: Sequence[int]) -> np.ndarray:
        found = np.asarray(places)
        if found.dtype == bool and found.shape == (group.size,):
            found = np.flatnonzero(found)
        whole = found.ndim == 1 and found.size and np.issubdtype(found.dtype, np.integer)
        if not whole or found.min() < 0 or found.max() >= group.size or len(np.unique(found)) < len(found):
            raise InvalidArgumentError(
                f"`keep[{group.name!r}]` must be at least one of the places 0 to {group.size - 1}, each once. "
                f"Received: {places!r}."
            )
        self._check_removable(group, len(found))
        return np.sort(found)

    def _check_removable(self, group: ChannelGroup, number: int) -> None:
        if number < group.size and not group.removable:
            raise InvalidArgumentError(
                f"Groups of channels must be removable to be shrunk. Received: {group.name!r} with {number} of "
                f"{group.size}, whose channels must stay: {group.reason}."
            )

    def _chosen(self, name: str, size: int, choice: str) -> np.ndarray:
        """The places of the units that stay: the strongest, or evenly spaced ones."""
        count = len(self.units[name])
        if choice == "uniform":
            return np.arange(size) * count // size
        return np.sort(np.argsort(-self.strength(name), kind="stable")[:size])


def _numbered(name: str) -> Iterator[str]:
    """The name, and then the name with numbers from 2."""
    return itertools.chain([name], (f"{name}:{number}" for number in itertools.count(2)))
