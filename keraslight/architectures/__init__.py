"""One paper, one file. Importing this package registers every family, each by importing its file."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from keraslight.registry import FAMILIES

if TYPE_CHECKING:
    import keras

    def __getattr__(name: str) -> Callable[..., keras.Model]: ...


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

globals().update({name: family.builder for name, family in FAMILIES.items()})
__all__ = sorted(FAMILIES)
