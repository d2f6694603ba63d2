"""Object detection: boxes, anchors, decoding, suppression, losses, and COCO's figures.

Boxes are left, top, right, bottom in pixels, unless a text says otherwise. Labels never count the background.
"""

from keraslight import _doors, _faces

_doors.require("keraslight.detection", "models", "numpy", "keras")

from keraslight._windows import SceneAugmentation as SceneAugmentation
from keraslight.detection.anchors import places as places, ssd_anchors as ssd_anchors
from keraslight.detection.boxes import (
    clip as clip,
    decode as decode,
    encode as encode,
    giou as giou,
    iou as iou,
)
from keraslight.detection.data import (
    Batch as Batch,
    DetectionData as DetectionData,
    load_coco as load_coco,
    load_scenes as load_scenes,
    load_voc as load_voc,
)
from keraslight.detection.decoding import (
    AnchorDecoder as AnchorDecoder,
    DistanceDecoder as DistanceDecoder,
    decoder_of as decoder_of,
)
from keraslight.detection.evaluation import (
    DetectionFigures as DetectionFigures,
    Detections as Detections,
    Truths as Truths,
    figures as figures,
)
from keraslight.detection.losses import NanoDetLoss as NanoDetLoss, SSDLoss as SSDLoss, loss_of as loss_of
from keraslight.detection.running import (
    Box as Box,
    Detection as Detection,
    detect as detect,
    evaluate as evaluate,
)
from keraslight.detection.suppression import (
    Found as Found,
    Suppression as Suppression,
    suppress as suppress,
    suppress_in_graph as suppress_in_graph,
)

__all__ = _faces.public(globals())
