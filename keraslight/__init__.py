"""Efficient CNNs in Keras 3: build, train, compress, export, serve over gRPC, run on phones.

Public names are loaded on first use: `import keraslight` alone imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {  # name -> module that defines it
    "ModelInfo": "catalogue",
    "compound_scaling": "architectures.efficientnet",
    "create_model": "zoo",
    "decode_predictions": "labels",
    "list_models": "catalogue",
    "load_model": "zoo",
    "model_info": "catalogue",
    "KeraslightError": "errors",
    "Preprocessing": "preprocessing",
    "views": "_views",
}
_MODULES = (
    *("analysis", "blocks", "compress", "detection", "errors", "export", "labels", "layers", "search", "segmentation"),
    *("training", "zoo"),
)


@functools.cache
def _families() -> list[str]:
    """Returns the names of the builders, read from the architectures' files because importing those imports Keras."""
    from pathlib import Path

    packages = (Path(__file__).parent / name for name in ("architectures", "dense"))
    text = "\n".join(file.read_text("utf-8") for package in packages for file in sorted(package.glob("*.py")))
    return re.findall(r"^@register(?:_dense)?\(.*\)\ndef (\w+)", text, re.MULTILINE)


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return [*_PUBLIC, *_MODULES, *_families()]
    if name in _PUBLIC:
        if _PUBLIC[name] in ("zoo", "_views"):
            _require(name)
        value = getattr(importlib.import_module(f"keraslight.{_PUBLIC[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"keraslight.{name}")
    elif name in _families():
        _require(name)
        value = importlib.import_module("keraslight.zoo").builder(name)
    else:
        raise AttributeError(f"module 'keraslight' has no attribute {name!r}")
    globals()[name] = value
    return value


def _require(name: str) -> None:
    from keraslight import _doors

    _doors.require(f"keraslight.{name}", "models", "numpy", "keras")


def __dir__() -> list[str]:
    return sorted([*globals(), *__getattr__("__all__")])
