"""Exports trained models: SavedModels for TensorFlow Serving, LiteRT files for phones, ONNX files."""

from keraslight import _doors, _faces

_doors.require("keraslight.export", "export", "numpy", "keras", "tensorflow")

from keraslight.export._repository import (
    label_version as label_version,
    prune_versions as prune_versions,
    version_labels as version_labels,
)
from keraslight.export._versions import (
    Version as Version,
    list_versions as list_versions,
    read_versions as read_versions,
)
from keraslight.export.litert import (
    ARM64Run as ARM64Run,
    LiteRTMetadata as LiteRTMetadata,
    LiteRTOperator as LiteRTOperator,
    LiteRTParity as LiteRTParity,
    LiteRTReport as LiteRTReport,
    SparseInference as SparseInference,
    arm64_problem as arm64_problem,
    install_arm64 as install_arm64,
    litert_latency as litert_latency,
    litert_parity as litert_parity,
    litert_report as litert_report,
    litert_runner as litert_runner,
    read_metadata as read_metadata,
    run_on_arm64 as run_on_arm64,
    to_litert as to_litert,
    write_metadata as write_metadata,
)
from keraslight.export.onnx import onnx_runner as onnx_runner, to_onnx as to_onnx
from keraslight.export.saved_model import save_servable as save_servable

__all__ = _faces.public(globals())
