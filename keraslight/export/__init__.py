"""From a trained model to what serves it: SavedModels for TensorFlow Serving, LiteRT files for phones."""

from keraslight.export.litert import LiteRTReport, litert_report, to_litert
from keraslight.export.saved_model import list_versions, save_servable

__all__ = ["LiteRTReport", "list_versions", "litert_report", "save_servable", "to_litert"]
