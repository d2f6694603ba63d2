"""Detectors and segmenters: one paper, one file. Importing this package registers every family."""

import importlib
import pkgutil

from keraslight import _doors
from keraslight.registry import DENSE

_doors.require("keraslight.dense", "models", "keras")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

globals().update({name: family.builder for name, family in DENSE.items()})
__all__ = sorted(DENSE)
