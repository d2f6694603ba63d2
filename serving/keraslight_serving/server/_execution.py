"""What is told of each batch that an engine has run."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """A batch of several requests.

    Attributes:
        engine: `litert` or `tensorflow`.
        signature: the signature that ran.
        seconds: how long the engine took, with the wait for a free interpreter.
        rows: the rows of each request in it, such as `(1, 4)`.
        padding: the rows that batching added.
        queue_seconds: how long each request waited to be batched.
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
