"""Exports trained models: SavedModels for TensorFlow Serving, LiteRT files for phones, ONNX files."""

from keraslight.export._repository import label_version, prune_versions, version_labels
from keraslight.export._versions import Version, list_versions, read_versions
from keraslight.export.litert import (
    LiteRTMetadata,
    LiteRTOperator,
    LiteRTParity,
    LiteRTReport,
    litert_latency,
    litert_parity,
    litert_report,
    litert_runner,
    read_metadata,
    to_litert,
)
from keraslight.export.onnx import onnx_runner, to_onnx
from keraslight.export.saved_model import save_servable

__all__ = [
    "LiteRTMetadata",
    "LiteRTOperator",
    "LiteRTParity",
    "LiteRTReport",
    "Version",
    "label_version",
    "list_versions",
    "litert_latency",
    "litert_parity",
    "litert_report",
    "litert_runner",
    "onnx_runner",
    "prune_versions",
    "read_metadata",
    "read_versions",
    "save_servable",
    "to_litert",
    "to_onnx",
    "version_labels",
]
