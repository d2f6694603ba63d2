"""Xception's published weights: timm's, https://github.com/huggingface/pytorch-image-models (xception.py)."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.xception import HEAD, STEM, Row
from keraslight.blocks.conv import TORCH
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, stages: tuple[tuple[Row, ...], ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    for n in range(len(STEM)):
        yield f"stem{n}", f"conv{n + 1}"
        yield f"stem{n}_bn", f"bn{n + 1}"
    blocks = [(f"stage{s}_block{b}", row) for s, rows in enumerate(stages) for b, row in enumerate(rows)]
    for index, (ours, row) in enumerate(blocks):
        theirs = f"block{index + 1}"
        for n in range(len(row.channels)):
            place = 3 * n + (index > 0)  # the first module doesn't start with a ReLU
            yield from _separable(f"{ours}_sep{n}", f"{theirs}.rep.{place}", f"{theirs}.rep.{place + 1}")
        if row.stride > 1:
            yield f"{ours}_shortcut", f"{theirs}.skip"
            yield f"{ours}_shortcut_bn", f"{theirs}.skipbn"
    for n in range(len(HEAD)):
        place = len(STEM) + n + 1
        yield from _separable(f"head{n}", f"conv{place}", f"bn{place}")
    yield "classifier", "fc"


def _separable(ours: str, theirs: str, norm: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}_depthwise", f"{theirs}.conv1"
    yield f"{ours}_pointwise", f"{theirs}.pointwise"
    yield f"{ours}_pointwise_bn", norm


CHECKPOINTS = {  # preprocessing and top-1 from timm 1.0.31 and its results-imagenet.csv
    "timm/legacy_xception.tf_in1k": Checkpoint(
        "xception",
        torch_names,
        Preprocessing((299, 299), crop_pct=0.8975, mean=(0.5,) * 3, std=(0.5,) * 3),
        79.058,
        arguments={"style": TORCH},
    )
}
