"""Layers chosen by name."""

import fnmatch
from collections.abc import Collection, Iterable, Sequence

from keraslight.errors import InvalidArgumentError


def chosen(names: Iterable[str], patterns: str | Collection[str], rule: str, known: Sequence[str]) -> list[str]:
    """The names that match any of the patterns (`fnmatch`), in their order.

    Raises:
        InvalidArgumentError: A pattern matches none; the text gives the rule and the `known` names.
    """
    names, patterns = list(names), (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InvalidArgumentError(f"{rule}. Received: {pattern!r}; the model has {list(known)}.")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
