"""Efficient CNNs in Keras 3: build, train, make smaller, export, serve over gRPC, run on phones.

Everything public is listed here and loaded when it is first used: `import keraslight` alone loads neither Keras nor
TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {  # name -> module that defines it
    "ModelInfo": "zoo",
    "create_model": "zoo",
    "decode_predictions": "labels",
    "list_models": "zoo",
    "load_model": "zoo",
    "model_info": "zoo",
    "KeraslightError": "errors",
    "Preprocessing": "preprocessing",
}
_MODULES = ("analysis", "blocks", "compress", "errors", "export", "labels", "layers", "training", "zoo")
_FAMILIES = (
    "AlexNet",
    "ConvNeXt",
    "ConvNeXtV2",
    "DenseNet",
    "EfficientNet",
    "EfficientNetV2",
    "GhostNet",
    "GoogLeNet",
    "LeNet5",
    "MobileNeXt",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "MobileNetV4",
    "RepVGG",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "ShuffleNetV2Plus",
    "SqueezeNet",
    "VGG",
    "Xception",
)

__all__ = [*_PUBLIC, *_MODULES, *_FAMILIES]


def __getattr__(name: str) -> Any:
    try:
        if name in _PUBLIC:
            value = getattr(importlib.import_module(f"keraslight.{_PUBLIC[name]}"), name)
        elif name in _MODULES:
            value = importlib.import_module(f"keraslight.{name}")
        elif name in _FAMILIES:
            value = importlib.import_module("keraslight.zoo").builder(name)
        else:
            raise AttributeError(f"module 'keraslight' has no attribute {name!r}")
    except ModuleNotFoundError as error:
        if error.name in ("keras", "tensorflow"):
            from keraslight.errors import MissingDependencyError

            raise MissingDependencyError(
                f'keraslight.{name} needs {error.name}, which is not installed: pip install "keraslight[models]".'
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
