"""LiteRT (TensorFlow Lite) files for phones: conversion, Android metadata, comparison with the model, reports."""

from keraslight.export.litert._metadata import LiteRTMetadata, read_metadata
from keraslight.export.litert._parity import LiteRTParity, litert_parity
from keraslight.export.litert._report import LiteRTOperator, LiteRTReport, litert_latency, litert_report
from keraslight.export.litert._run import litert_runner
from keraslight.export.litert.convert import to_litert

__all__ = [
    "LiteRTMetadata",
    "LiteRTOperator",
    "LiteRTParity",
    "LiteRTReport",
    "litert_latency",
    "litert_parity",
    "litert_report",
    "litert_runner",
    "read_metadata",
    "to_litert",
]
