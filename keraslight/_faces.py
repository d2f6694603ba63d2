"""The names that a package offers: those that its `__init__` imports as themselves, so that each is written once."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any


def public(names: Mapping[str, Any]) -> list[str]:
    """`__all__` of a package, from its globals: all names but private ones and modules."""
    return [name for name, value in names.items() if not (name.startswith("_") or isinstance(value, ModuleType))]
