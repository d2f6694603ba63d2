"""GhostNet's published weights: timm's, https://github.com/huggingface/pytorch-image-models (ghostnet.py).

They are the authors' weights, under the authors' names: https://github.com/huawei-noah/Efficient-AI-Backbones.
"""

import functools
from typing import Any

from keraslight.architectures.ghostnet import STAGES
from keraslight.blocks.conv import make_divisible
from keraslight.weights.sources import Names, checkpoint, conv_bn, sequence


def torch_names(*, width: float = 1.0, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from conv_bn("stem", "conv_stem", "bn1")
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
                    yield from sequence(f"{ours}_{our_part}_{half}", f"{theirs}.{their_part}.{operation}")
            if row.stride > 1:
                yield from conv_bn(f"{ours}_depthwise", f"{theirs}.conv_dw", f"{theirs}.bn_dw")
            if row.squeeze:
                yield f"{ours}_se_reduce", f"{theirs}.se.conv_reduce"
                yield f"{ours}_se_expand", f"{theirs}.se.conv_expand"
            if row.stride > 1 or channels != before:
                for i, part in enumerate(("depthwise", "depthwise_bn", "project", "project_bn")):
                    yield f"{ours}_shortcut_{part}", f"{theirs}.shortcut.{i}"
            position, strided, before = position + 1, row.stride > 1, channels
    yield from conv_bn("head_expand", f"blocks.{group + 1}.0.conv", f"blocks.{group + 1}.0.bn1")
    yield "head", "conv_head"
    yield "classifier", "classifier"


_checkpoint = functools.partial(checkpoint, torch_names)
CHECKPOINTS = {  # preprocessing and top-1 from timm 1.0.31 and its results-imagenet.csv
    "timm/ghostnet_100.in1k": _checkpoint("ghostnet_100", 73.958),
    # Known to timm without weights, for files that users have trained themselves.
    "timm/ghostnet_050.untrained": _checkpoint("ghostnet_050"),
    "timm/ghostnet_130.untrained": _checkpoint("ghostnet_130"),
}
