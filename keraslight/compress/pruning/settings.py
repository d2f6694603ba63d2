"""What both ways of pruning share: checks of their arguments, and the schedules that follow from them."""

import math
from collections.abc import Mapping
from typing import Any

from keraslight.compress.pruning.sparsity import POLICIES, Targets, check_sparsity, kernel_of
from keraslight.errors import InvalidArgumentError

_SCHEDULES = ("polynomial", "constant")
_UPDATES = 20  # mask updates in a training, unless `frequency` says otherwise


def check(
    sparsity: float | Mapping[str, float],
    schedule: Any,
    policy: str,
    block_size: tuple[int, int] | None,
    m_by_n: tuple[int, int] | None,
) -> None:
    check_sparsity("final_sparsity", sparsity)
    if isinstance(schedule, str) and schedule not in _SCHEDULES:
        raise InvalidArgumentError(
            f"`schedule` must be one of {_SCHEDULES} or a schedule object. Received: {schedule!r}."
        )
    if policy not in POLICIES:
        raise InvalidArgumentError(f"`policy` must be one of {POLICIES}. Received: {policy!r}.")
    if block_size is not None and not (_is_pair(block_size) and min(block_size) >= 1):
        raise InvalidArgumentError(f"`block_size` must be two numbers of at least 1. Received: {block_size}.")
    if m_by_n is not None and not (_is_pair(m_by_n) and 0 < m_by_n[0] < m_by_n[1]):
        raise InvalidArgumentError(f"`m_by_n` must be (m, n) with 0 < m < n. Received: {m_by_n}.")


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def check_steps(begin_step: int | None, end_step: int | None, frequency: int | None) -> None:
    if frequency is not None and frequency < 1:
        raise InvalidArgumentError(f"`frequency` must be at least 1. Received: {frequency}.")
    for name, step in (("begin_step", begin_step), ("end_step", end_step)):
        if step is not None and step < 1:
            raise InvalidArgumentError(f"`{name}` must be at least 1. Received: {step}.")
    if begin_step is not None and end_step is not None and begin_step > end_step:
        raise InvalidArgumentError(
            f"`begin_step` must not be after `end_step`. Received: begin_step={begin_step}, end_step={end_step}."
        )


def blocks_of(block_size: tuple[int, int] | None, policy: str) -> tuple[int, int]:
    """The blocks to zero: those asked for, or the policy's own."""
    if block_size is None:
        return (1, 4) if policy == "xnnpack" else (1, 1)
    return (block_size[0], block_size[1])


def check_blocks(chosen: Targets, block_size: tuple[int, int], *, convolutions: bool = True) -> None:
    """Raises InvalidArgumentError for blocks of kernels that are no matrices; with `convolutions`, 1x1 ones are."""
    shapes = {name: tuple(kernel_of(layer).shape) for name, (layer, _) in chosen.items()}
    others = [name for name, shape in shapes.items() if math.prod(shape[:-2]) > 1 or (shape[2:] and not convolutions)]
    if tuple(block_size) != (1, 1) and others:
        what = "Dense layers or 1x1 convolutions" if convolutions else "Dense layers"
        raise InvalidArgumentError(
            f"`block_size` above (1, 1) must come with `layers` that match {what} only. "
            f"Received: block_size={tuple(block_size)} and {others}."
        )


def schedules(
    chosen: Targets, schedule: Any, begin: int, end: int, frequency: int | None, block_size: tuple[int, int]
) -> dict[str, Any]:
    """Layer name -> schedule; layers of equal sparsity share one."""
    if not isinstance(schedule, str):
        return dict.fromkeys(chosen, schedule)
    from keraslight.compress._tfmot import pruning

    frequency = frequency or max((end - begin) // _UPDATES, 1)
    smallest: dict[float, int] = {}  # sparsity -> blocks in the smallest kernel
    for layer, share in chosen.values():
        sides = kernel_of(layer).shape
        if tuple(block_size) != (1, 1):
            sides = [-(-side // block) for side, block in zip(sides[-2:], block_size, strict=True)]
        smallest[share] = min(math.prod(sides), smallest.get(share, math.prod(sides)))
    # The library rounds the number of weights it keeps, so a kernel of 3,072 may end a weight short of 70%. Half a
    # weight of the smallest kernel more makes every kernel reach the requested share.
    made = {
        share: pruning.make_schedule(
            schedule, min(share + min(0.5 / count, 0.01), max(share, 0.9999)), begin, end, frequency
        )
        for share, count in smallest.items()
    }
    return {name: made[share] for name, (_, share) in chosen.items()}
