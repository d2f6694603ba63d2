"""Semantic segmentation: losses, and mean intersection over union. Every pixel has a class; the background is one."""

from keraslight import _doors, _faces

_doors.require("keraslight.segmentation", "models", "numpy", "keras")

from keraslight._windows import SceneAugmentation as SceneAugmentation
from keraslight.segmentation.data import (
    Batch as Batch,
    SegmentationData as SegmentationData,
    load_masks as load_masks,
    load_scenes as load_scenes,
)
from keraslight.segmentation.evaluation import (
    SegmentationFigures as SegmentationFigures,
    confusion as confusion,
    evaluate as evaluate,
    figures as figures,
)
from keraslight.segmentation.losses import (
    cross_entropy as cross_entropy,
    dice as dice,
    ohem_cross_entropy as ohem_cross_entropy,
)

__all__ = _faces.public(globals())
