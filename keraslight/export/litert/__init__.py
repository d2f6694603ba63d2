"""LiteRT (TensorFlow Lite) files for phones: conversion, Android metadata, comparison with the model, reports."""

from keraslight import _faces
from keraslight.export.litert._metadata import (
    LiteRTMetadata as LiteRTMetadata,
    read_metadata as read_metadata,
    write_metadata as write_metadata,
)
from keraslight.export.litert._parity import LiteRTParity as LiteRTParity, litert_parity as litert_parity
from keraslight.export.litert._report import (
    LiteRTOperator as LiteRTOperator,
    LiteRTReport as LiteRTReport,
    litert_latency as litert_latency,
    litert_report as litert_report,
)
from keraslight.export.litert._run import input_shape as input_shape, litert_runner as litert_runner
from keraslight.export.litert._sparse import SparseInference as SparseInference
from keraslight.export.litert.arm64 import (
    ARM64Run as ARM64Run,
    arm64_problem as arm64_problem,
    install_arm64 as install_arm64,
    run_on_arm64 as run_on_arm64,
)
from keraslight.export.litert.convert import to_litert as to_litert

__all__ = _faces.public(globals())
