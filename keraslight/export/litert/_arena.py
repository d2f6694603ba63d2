"""Plans the memory of the tensors between the operators as TFLite does.

Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020,
https://arxiv.org/abs/2001.03288, "Greedy by Size for Offset Calculation", which TFLite's planner follows.
"""

from collections.abc import Sequence
from typing import NamedTuple

ALIGNMENT = 64
"""TFLite starts every tensor at a multiple of this many bytes."""


class Arena(NamedTuple):
    """A plan: its total size, in bytes, and the start of each block."""

    size: int
    offsets: tuple[int, ...]


def plan_arena(blocks: Sequence[tuple[int, int, int]]) -> Arena:
    """Places blocks so that no two that are alive at the same time overlap.

    A block is (bytes, first, last): it is alive from operator `first` to operator `last`, both included. The largest
    blocks, of equal ones the first, are placed first, each into the smallest gap that holds it.
    """
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i][0], blocks[i][1]))
    offsets: dict[int, int] = {}
    for i in order:
        size, first, last = blocks[i]
        neighbors = sorted(
            (offsets[j], offsets[j] + blocks[j][0])
            for j in offsets
            if blocks[j][0] and blocks[j][1] <= last and first <= blocks[j][2]
        )
        best, smallest, free = None, None, 0
        for begin, end in neighbors:
            gap = begin - free
            if gap >= size and (smallest is None or gap < smallest):
                best, smallest = free, gap
            free = max(free, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[i] = free if best is None else best
    size = max((offsets[i] + blocks[i][0] for i in offsets), default=0)
    return Arena(size, tuple(offsets[i] for i in range(len(blocks))))
