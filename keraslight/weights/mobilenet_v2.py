"""MobileNetV2's published weights.

timm's: https://github.com/huggingface/pytorch-image-models (efficientnet.py).
torchvision's: https://github.com/pytorch/vision (mobilenetv2.py).
"""

import functools
from typing import Any

from keraslight.architectures.mobilenet_v2 import STAGES
from keraslight.weights.sources import MBCONV, SEPARABLE, Names, checkpoint, conv_bn, sequence, timm_block, torchvision


def timm_names(**_unused: Any) -> Names:
    """Yields timm's names."""
    yield from conv_bn("stem", "conv_stem", "bn1")
    for s, row in enumerate(STAGES):
        for b in range(row.repeats):
            parts = MBCONV if row.expansion > 1 else SEPARABLE
            yield from timm_block(f"stage{s}_block{b}", f"blocks.{s}.{b}", parts)
    yield from conv_bn("head", "conv_head", "bn2")
    yield "classifier", "classifier"


def torchvision_names(**_unused: Any) -> Names:
    """Yields torchvision's names. It numbers all blocks consecutively, and the parts of each."""
    yield from sequence("stem", "features.0")
    index = 1
    for s, row in enumerate(STAGES):
        wide = ("expand", "depthwise") if row.expansion > 1 else ("depthwise",)
        for b in range(row.repeats):
            ours, theirs = f"stage{s}_block{b}", f"features.{index}.conv"
            for i, part in enumerate(wide):  # with an activation, nested
                yield from sequence(f"{ours}_{part}", f"{theirs}.{i}")
            yield from sequence(f"{ours}_project", theirs, len(wide))
            index += 1
    yield from sequence("head", f"features.{index}")
    yield "classifier", "classifier.1"


_timm, _tv = functools.partial(checkpoint, timm_names), functools.partial(torchvision, torchvision_names)

CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/mobilenetv2_100.ra_in1k": _timm("mobilenet_v2_100", 72.910),
    "timm/mobilenetv2_050.lamb_in1k": _timm("mobilenet_v2_050", 65.928),
    "timm/mobilenetv2_140.ra_in1k": _timm("mobilenet_v2_140", 76.528),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/mobilenetv2_035.untrained": _timm("mobilenet_v2_035"),
    "timm/mobilenetv2_075.untrained": _timm("mobilenet_v2_075"),
    # torchvision 0.28, from its weights enum.
    "torchvision/mobilenet_v2": _tv("mobilenet_v2_100", 72.154, "mobilenet_v2-7ebf99e0", resized=232),
    "torchvision/mobilenet_v2.imagenet1k_v1": _tv("mobilenet_v2_100", 71.878, "mobilenet_v2-b0353104"),
}
