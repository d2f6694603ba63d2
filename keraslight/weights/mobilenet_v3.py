"""MobileNetV3's published weights.

timm's: https://github.com/huggingface/pytorch-image-models (mobilenetv3.py); its `tf_` names are the authors' weights.
torchvision's: https://github.com/pytorch/vision (mobilenetv3.py).
"""

import functools
from collections.abc import Iterator
from typing import Any

from keraslight.architectures.mobilenet_v3 import STEM, Row
from keraslight.blocks.conv import TENSORFLOW, ConvStyle
from keraslight.weights import sources
from keraslight.weights.sources import HALF, MBCONV, SEPARABLE, Names

TORCHVISION = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.99)


def _blocks(stages: tuple[tuple[Row, ...], ...], stem: int) -> Iterator[tuple[int, int, bool, Row]]:
    """Yields stage, block, whether it expands, and row."""
    before = stem
    for s, stage in enumerate(stages):
        for b, row in enumerate(stage):
            yield s, b, row.expanded != before, row
            before = row.channels


def timm_names(*, stages: tuple[tuple[Row, ...], ...], stem: int = STEM, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from sources.conv_bn("stem", "conv_stem", "bn1")
    for s, b, expand, row in _blocks(stages, stem):
        parts = MBCONV if expand else SEPARABLE
        yield from sources.timm_block(f"stage{s}_block{b}", f"blocks.{s}.{b}", parts, attention=row.squeeze)
    yield from sources.conv_bn("head_expand", f"blocks.{len(stages)}.0.conv", f"blocks.{len(stages)}.0.bn1")
    yield "head", "conv_head"
    yield "classifier", "classifier"


def torchvision_names(*, stages: tuple[tuple[Row, ...], ...], stem: int = STEM, **_unused: Any) -> Names:
    """Yields torchvision's names. It numbers all blocks consecutively."""
    yield from sources.sequence("stem", "features.0")
    index = 1
    for s, b, expand, row in _blocks(stages, stem):
        parts = [*["expand"] * expand, "depthwise", *["se"] * row.squeeze, "project"]
        yield from sources.torchvision_block(f"stage{s}_block{b}", f"features.{index}.block", parts)
        index += 1
    yield from sources.sequence("head_expand", f"features.{index}")
    yield "head", "classifier.0"
    yield "classifier", "classifier.3"


_timm = functools.partial(sources.checkpoint, timm_names)
_authors = functools.partial(
    sources.checkpoint, timm_names, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, style=TENSORFLOW
)
_tv = functools.partial(sources.torchvision, torchvision_names, style=TORCHVISION)

CHECKPOINTS = {
    # timm 1.0.31: preprocessing from its configurations, top-1 at that size from its results-imagenet.csv.
    "timm/mobilenetv3_large_100.ra_in1k": _timm("mobilenet_v3_large_100", 75.784),
    "timm/mobilenetv3_large_100.ra4_e3600_r224_in1k": _timm("mobilenet_v3_large_100", 76.310, crop_pct=0.95, **HALF),
    "timm/mobilenetv3_large_100.miil_in21k_ft_in1k": _timm(
        "mobilenet_v3_large_100", 77.920, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    ),
    "timm/mobilenetv3_small_100.lamb_in1k": _timm("mobilenet_v3_small_100", 67.636),
    "timm/mobilenetv3_small_075.lamb_in1k": _timm("mobilenet_v3_small_075", 65.284),
    "timm/mobilenetv3_small_050.lamb_in1k": _timm("mobilenet_v3_small_050", 57.918),
    "timm/tf_mobilenetv3_large_100.in1k": _authors("mobilenet_v3_large_100", 75.510),
    "timm/tf_mobilenetv3_large_075.in1k": _authors("mobilenet_v3_large_075", 73.442),
    "timm/tf_mobilenetv3_large_minimal_100.in1k": _authors("mobilenet_v3_large_minimalistic", 72.270),
    "timm/tf_mobilenetv3_small_100.in1k": _authors("mobilenet_v3_small_100", 67.922),
    "timm/tf_mobilenetv3_small_075.in1k": _authors("mobilenet_v3_small_075", 65.706),
    "timm/tf_mobilenetv3_small_minimal_100.in1k": _authors("mobilenet_v3_small_minimalistic", 62.892),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/mobilenetv3_large_075.untrained": _timm("mobilenet_v3_large_075", interpolation="bilinear"),
    # torchvision 0.28, from its weights enums.
    "torchvision/mobilenet_v3_large": _tv("mobilenet_v3_large_100", 75.274, "mobilenet_v3_large-5c1a4163", resized=232),
    "torchvision/mobilenet_v3_large.imagenet1k_v1": _tv(
        "mobilenet_v3_large_100", 74.042, "mobilenet_v3_large-8738ca79"
    ),
    "torchvision/mobilenet_v3_small": _tv("mobilenet_v3_small_100", 67.668, "mobilenet_v3_small-047dcff4"),
}
