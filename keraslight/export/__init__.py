"""From a trained model to what serves it: SavedModels for TensorFlow Serving, LiteRT files for phones."""

from keraslight.export._repository import label_version, prune_versions, version_labels
from keraslight.export._versions import Version, list_versions, read_versions
from keraslight.export.litert import LiteRTReport, litert_report, to_litert
from keraslight.export.saved_model import save_servable

__all__ = [
    "LiteRTReport",
    "Version",
    "label_version",
    "list_versions",
    "litert_report",
    "prune_versions",
    "read_versions",
    "save_servable",
    "to_litert",
    "version_labels",
]
