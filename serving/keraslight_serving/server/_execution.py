"""What is told of each run of an engine."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """One run of an engine: for one request, or for a batch of several.

    Attributes:
        engine: `litert` or `tensorflow`.
        signature: the signature that ran; the decoding in front of another one counts as a run of its own.
        seconds: how long the engine took, with the wait for a free interpreter.
        rows: the rows of each request in it, such as `(1, 4)`. A request with no common number of rows counts as 1.
        padding: the rows that batching added.
        queue_seconds: how long each request waited to be batched; empty without batching.
    """

    engine: str
    signature: str
    seconds: float
    rows: tuple[int, ...]
    padding: int = 0
    queue_seconds: tuple[float, ...] = ()


Observer = Callable[[Execution], None]


def ignore(execution: Execution) -> None:
    """The Observer of those who don't ask."""
