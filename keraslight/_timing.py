"""Times functions in turn, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key")


def interleaved(
    runs: Mapping[Key, Callable[[], Any]],
    repeats: int,
    rng: np.random.Generator,
    *,
    warmup: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Key, list[float]]:
    """Returns the milliseconds of each call: one per function and round, in an order drawn again for each round.

    `progress` is called after each round with the number of finished rounds and `repeats`; `warmup` calls aren't timed.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    keys = list(runs)
    times: dict[Key, list[float]] = {key: [] for key in keys}
    for done in range(repeats):
        for place in rng.permutation(len(keys)):
            began = time.perf_counter()
            runs[keys[place]]()
            times[keys[place]].append(1000 * (time.perf_counter() - began))
        if progress is not None:
            progress(done + 1, repeats)
    return times
