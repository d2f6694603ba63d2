"""GhostNet's published weights: timm's, https://github.com/huggingface/pytorch-image-models (ghostnet.py).

They are the authors' weights, under the authors' names: https://github.com/huawei-noah/Efficient-AI-Backbones.
"""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.ghostnet import STAGES
from keraslight.blocks.conv import make_divisible
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, width: float = 1.0, **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    group, position, strided, before = -1, 0, True, make_divisible(16 * width, 4)
    for s, stage in enumerate(STAGES):
        for b, row in enumerate(stage):
            # A strided block is its own group in the authors' numbering.
            if strided or row.stride > 1:
                group, position = group + 1, 0
            ours, theirs = f"stage{s}_block{b}", f"blocks.{group}.{position}"
            channels = make_divisible(row.channels * width, 4)
            for our_part, their_part in (("expand", "ghost1"), ("project", "ghost2")):
                for half, operation in (("primary", "primary_conv"), ("cheap", "cheap_operation")):
                    yield f"{ours}_{our_part}_{half}", f"{theirs}.{their_part}.{operation}.0"
                    yield f"{ours}_{our_part}_{half}_bn", f"{theirs}.{their_part}.{operation}.1"
            if row.stride > 1:
                yield f"{ours}_depthwise", f"{theirs}.conv_dw"
                yield f"{ours}_depthwise_bn", f"{theirs}.bn_dw"
            if row.squeeze:
                yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
                yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"
            if row.stride > 1 or channels != before:
                for i, part in enumerate(("depthwise", "depthwise_bn", "project", "project_bn")):
                    yield f"{ours}_shortcut_{part}", f"{theirs}.shortcut.{i}"
            position, strided, before = position + 1, row.stride > 1, channels
    yield "head_expand", f"blocks.{group + 1}.0.conv"
    yield "head_expand_bn", f"blocks.{group + 1}.0.bn1"
    yield "head", "conv_head"
    yield "classifier", "classifier"


def _checkpoint(variant: str, top1: float | None = None) -> Checkpoint:
    return Checkpoint(variant, torch_names, Preprocessing((224, 224), crop_pct=0.875), top1)


CHECKPOINTS = {  # preprocessing and top-1 from timm 1.0.31 and its results-imagenet.csv
    "timm/ghostnet_100.in1k": _checkpoint("ghostnet_100", 73.958),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/ghostnet_050.untrained": _checkpoint("ghostnet_050"),
    "timm/ghostnet_130.untrained": _checkpoint("ghostnet_130"),
}
