"""MobileNetV1's published weights: timm's, https://github.com/huggingface/pytorch-image-models (efficientnet.py)."""

import functools
from typing import Any

from keraslight.architectures.mobilenet_v1 import STAGES
from keraslight.weights.sources import Names, checkpoint, conv_bn, timm_block


def torch_names(**_unused: Any) -> Names:
    """Yields timm's names."""
    yield from conv_bn("stem", "conv_stem", "bn1")
    parts = {"depthwise": "conv_dw", "pointwise": "conv_pw"}
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            yield from timm_block(f"stage{s}_block{b}", f"blocks.{s}.{b}", parts)
    yield "classifier", "classifier"


_timm = functools.partial(checkpoint, torch_names, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/mobilenetv1_100.ra4_e3600_r224_in1k": _timm("mobilenet_v1_100", 75.388),
    "timm/mobilenetv1_125.ra4_e3600_r224_in1k": _timm("mobilenet_v1_125", 76.920, crop_pct=0.9),
}
