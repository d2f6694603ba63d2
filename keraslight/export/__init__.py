"""From a trained model to what serves it: SavedModels for TensorFlow Serving, LiteRT files for phones, ONNX files."""

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
from keraslight.export.saved_model import list_versions, save_servable

__all__ = [
    "LiteRTMetadata",
    "LiteRTOperator",
    "LiteRTParity",
    "LiteRTReport",
    "list_versions",
    "litert_latency",
    "litert_parity",
    "litert_report",
    "litert_runner",
    "onnx_runner",
    "read_metadata",
    "save_servable",
    "to_litert",
    "to_onnx",
]
