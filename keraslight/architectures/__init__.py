"""One paper, one file. Importing this package registers every family, each by importing its file."""

import importlib
import pkgutil

from keraslight import _doors
from keraslight.registry import FAMILIES

_doors.require("keraslight.architectures", "models", "keras")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

globals().update({name: family.builder for name, family in FAMILIES.items()})
__all__ = sorted(FAMILIES)
