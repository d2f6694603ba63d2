"""Xception's published weights: timm's, https://github.com/huggingface/pytorch-image-models (xception.py)."""

from typing import Any

from keraslight.architectures.xception import HEAD, STEM, Row
from keraslight.blocks.conv import TORCH
from keraslight.weights.sources import HALF, Names, checkpoint, conv_bn


def torch_names(*, stages: tuple[tuple[Row, ...], ...], **_unused: Any) -> Names:
    """Yields timm's names."""
    for n in range(len(STEM)):
        yield from conv_bn(f"stem{n}", f"conv{n + 1}", f"bn{n + 1}")
    blocks = [(f"stage{s}_block{b}", row) for s, rows in enumerate(stages) for b, row in enumerate(rows)]
    for index, (ours, row) in enumerate(blocks):
        theirs = f"block{index + 1}"
        for n in range(len(row.channels)):
            place = 3 * n + (index > 0)  # the first module doesn't start with a ReLU
            yield from _separable(f"{ours}_sep{n}", f"{theirs}.rep.{place}", f"{theirs}.rep.{place + 1}")
        if row.stride > 1:
            yield from conv_bn(f"{ours}_shortcut", f"{theirs}.skip", f"{theirs}.skipbn")
    for n in range(len(HEAD)):
        place = len(STEM) + n + 1
        yield from _separable(f"head{n}", f"conv{place}", f"bn{place}")
    yield "classifier", "fc"


def _separable(ours: str, theirs: str, norm: str) -> Names:
    yield f"{ours}_depthwise", f"{theirs}.conv1"
    yield from conv_bn(f"{ours}_pointwise", f"{theirs}.pointwise", norm)


CHECKPOINTS = {  # preprocessing and top-1 from timm 1.0.31 and its results-imagenet.csv
    "timm/legacy_xception.tf_in1k": checkpoint(
        torch_names, "xception", 79.058, size=299, crop_pct=0.8975, style=TORCH, **HALF
    )
}
