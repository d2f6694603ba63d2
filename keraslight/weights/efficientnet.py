"""EfficientNet's published weights: Google's as converted by timm (`tf_`), timm's own and torchvision's."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.efficientnet import STAGES, Row, repeats
from keraslight.blocks.conv import TENSORFLOW, TORCH, ConvStyle
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def _blocks(depth: float) -> Iterator[tuple[Row, int, int]]:
    for s, row in enumerate(STAGES):
        for b in range(repeats(row, depth)):
            yield row, s, b


def timm_names(*, depth: float, **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for row, s, b in _blocks(depth):
        ours, theirs = f"stage{s}_block{b}", f"blocks.{s}.{b}"
        if row.expansion == 1:
            parts = [("depthwise", "conv_dw"), ("project", "conv_pw")]
        else:
            parts = [("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl")]
        for i, (our_part, their_part) in enumerate(parts, start=1):
            yield f"{ours}_{our_part}", f"{theirs}.{their_part}"
            yield f"{ours}_{our_part}_bn", f"{theirs}.bn{i}"
        yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
        yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"
    yield "head", "conv_head"
    yield "head_bn", "bn2"
    yield "classifier", "classifier"


def torchvision_names(*, depth: float, **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    yield "stem", "features.0.0"
    yield "stem_bn", "features.0.1"
    for row, s, b in _blocks(depth):
        ours, theirs = f"stage{s}_block{b}", f"features.{s + 1}.{b}.block"
        parts = ("depthwise", "se", "project") if row.expansion == 1 else ("expand", "depthwise", "se", "project")
        for i, part in enumerate(parts):
            if part == "se":
                yield f"{ours}_se_reduce", f"{theirs}.{i}.fc1"
                yield f"{ours}_se_expand", f"{theirs}.{i}.fc2"
            else:
                yield f"{ours}_{part}", f"{theirs}.{i}.0"
                yield f"{ours}_{part}_bn", f"{theirs}.{i}.1"
    yield "head", f"features.{len(STAGES) + 1}.0"
    yield "head_bn", f"features.{len(STAGES) + 1}.1"
    yield "classifier", "classifier.1"


TORCHVISION_LARGE = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.99)
"""Style of torchvision's B5, B6 and B7, which were converted from TensorFlow without its padding."""


def _timm(variant: str, size: int, crop_pct: float, top1: float, style: ConvStyle, **more: Any) -> Checkpoint:
    spec = Preprocessing((size, size), crop_pct=crop_pct, **more)
    return Checkpoint(f"efficientnet_{variant}", timm_names, spec, top1, arguments={"style": style})


def _tv(
    variant: str, size: int, resized: int, top1: float, file: str, *, style: ConvStyle = TORCH, **more: Any
) -> Checkpoint:
    return Checkpoint(
        f"efficientnet_{variant}",
        torchvision_names,
        Preprocessing((size, size), crop_pct=size / resized, **more),
        top1,
        arguments={"style": style},
        url=f"https://download.pytorch.org/models/efficientnet_{file}.pth",
    )


CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31, its results-imagenet.csv and torchvision 0.28
    "timm/tf_efficientnet_b0.ns_jft_in1k": _timm("b0", 224, 0.875, 78.68, TENSORFLOW),
    "timm/tf_efficientnet_b0.aa_in1k": _timm("b0", 224, 0.875, 76.882, TENSORFLOW),
    "timm/tf_efficientnet_b1.ns_jft_in1k": _timm("b1", 240, 0.882, 81.388, TENSORFLOW),
    "timm/tf_efficientnet_b1.aa_in1k": _timm("b1", 240, 0.882, 78.84, TENSORFLOW),
    "timm/tf_efficientnet_b2.ns_jft_in1k": _timm("b2", 260, 0.89, 82.412, TENSORFLOW),
    "timm/tf_efficientnet_b2.aa_in1k": _timm("b2", 260, 0.89, 80.074, TENSORFLOW),
    "timm/tf_efficientnet_b3.ns_jft_in1k": _timm("b3", 300, 0.904, 84.054, TENSORFLOW),
    "timm/tf_efficientnet_b3.aa_in1k": _timm("b3", 300, 0.904, 81.648, TENSORFLOW),
    "timm/tf_efficientnet_b4.ns_jft_in1k": _timm("b4", 380, 0.922, 85.156, TENSORFLOW),
    "timm/tf_efficientnet_b4.aa_in1k": _timm("b4", 380, 0.922, 83.04, TENSORFLOW),
    "timm/tf_efficientnet_b5.ns_jft_in1k": _timm("b5", 456, 0.934, 86.096, TENSORFLOW),
    "timm/tf_efficientnet_b5.aa_in1k": _timm("b5", 456, 0.934, 83.696, TENSORFLOW),
    "timm/tf_efficientnet_b6.ns_jft_in1k": _timm("b6", 528, 0.942, 86.476, TENSORFLOW),
    "timm/tf_efficientnet_b6.aa_in1k": _timm("b6", 528, 0.942, 84.124, TENSORFLOW),
    "timm/tf_efficientnet_b7.ns_jft_in1k": _timm("b7", 600, 0.949, 86.85, TENSORFLOW),
    "timm/tf_efficientnet_b7.aa_in1k": _timm("b7", 600, 0.949, 84.424, TENSORFLOW),
    "timm/efficientnet_b0.ra_in1k": _timm("b0", 224, 0.875, 77.698, TORCH),
    "timm/efficientnet_b0.ra4_e3600_r224_in1k": _timm(
        "b0", 224, 0.9, 78.568, TORCH, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    "timm/efficientnet_b1.ra4_e3600_r240_in1k": _timm(
        "b1", 240, 0.9, 80.404, TORCH, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
    "timm/efficientnet_b1.ft_in1k": _timm("b1", 224, 0.875, 77.592, TORCH),
    "timm/efficientnet_b2.ra_in1k": _timm("b2", 256, 0.875, 79.324, TORCH),
    "timm/efficientnet_b3.ra2_in1k": _timm("b3", 288, 0.875, 81.472, TORCH),
    "timm/efficientnet_b4.ra2_in1k": _timm("b4", 320, 0.875, 82.658, TORCH),
    "timm/efficientnet_b5.sw_in12k_ft_in1k": _timm("b5", 448, 1.0, 85.894, TORCH, crop_mode="squash"),
    "torchvision/efficientnet_b0": _tv("b0", 224, 256, 77.692, "b0_rwightman-7f5810bc"),
    "torchvision/efficientnet_b1": _tv("b1", 240, 255, 79.838, "b1-c27df63c", interpolation="bilinear"),
    "torchvision/efficientnet_b2": _tv("b2", 288, 288, 80.608, "b2_rwightman-c35c1473"),
    "torchvision/efficientnet_b3": _tv("b3", 300, 320, 82.008, "b3_rwightman-b3899882"),
    "torchvision/efficientnet_b4": _tv("b4", 380, 384, 83.384, "b4_rwightman-23ab8bcd"),
    "torchvision/efficientnet_b5": _tv("b5", 456, 456, 83.444, "b5_lukemelas-1a07897c", style=TORCHVISION_LARGE),
    "torchvision/efficientnet_b6": _tv("b6", 528, 528, 84.008, "b6_lukemelas-24a108a5", style=TORCHVISION_LARGE),
    "torchvision/efficientnet_b7": _tv("b7", 600, 600, 84.122, "b7_lukemelas-c5b4e57e", style=TORCHVISION_LARGE),
}
