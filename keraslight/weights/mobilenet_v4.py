"""MobileNetV4's published weights: timm's, https://github.com/huggingface/pytorch-image-models (mobilenetv3.py)."""

import functools
from typing import Any

from keraslight.architectures.mobilenet_v4 import MQA, UIB, Block, Conv, Fused
from keraslight.weights.sources import Names, checkpoint, conv_bn, timm_block


def torch_names(*, stages: tuple[tuple[Block, ...], ...], layer_scale: float | None = None, **_unused: Any) -> Names:
    """Yields timm's names."""
    yield from conv_bn("stem", "conv_stem", "bn1")
    for s, stage in enumerate(stages):
        for b, row in enumerate(stage):
            ours, theirs = f"stage{s}_block{b}", f"blocks.{s}.{b}"
            match row:
                case Conv():
                    yield from conv_bn(ours, f"{theirs}.conv", f"{theirs}.bn1")
                case Fused():
                    yield from timm_block(ours, theirs, {"expand": "conv_exp", "project": "conv_pwl"})
                case UIB(start, middle):
                    parts = (("start", "dw_start", start), ("expand", "pw_exp", True),
                             ("depthwise", "dw_mid", middle), ("project", "pw_proj", True))  # fmt: skip
                    for part, name, present in parts:
                        if present:
                            yield from conv_bn(f"{ours}_{part}", f"{theirs}.{name}.conv", f"{theirs}.{name}.bn")
                case MQA(kv_stride=kv_stride):
                    yield f"{ours}_norm", f"{theirs}.norm"
                    yield f"{ours}_query", f"{theirs}.attn.query.proj"
                    for part in ("key", "value"):
                        if kv_stride > 1:
                            attention = f"{theirs}.attn.{part}"
                            yield from conv_bn(f"{ours}_{part}_down", f"{attention}.down_conv", f"{attention}.norm")
                        yield f"{ours}_{part}", f"{theirs}.attn.{part}.proj"
                    yield f"{ours}_output", f"{theirs}.attn.output.proj"
            if layer_scale is not None and isinstance(row, (UIB, MQA)):
                yield f"{ours}_layer_scale", f"{theirs}.layer_scale"
    yield from conv_bn("head", "conv_head", "norm_head")
    yield "classifier", "classifier"


_timm = functools.partial(checkpoint, torch_names)
CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/mobilenetv4_conv_small.e2400_r224_in1k": _timm("mobilenet_v4_conv_small", 73.756),
    "timm/mobilenetv4_conv_medium.e500_r256_in1k": _timm("mobilenet_v4_conv_medium", 79.916, size=256, crop_pct=0.95),
    "timm/mobilenetv4_conv_large.e600_r384_in1k": _timm("mobilenet_v4_conv_large", 82.974, size=384, crop_pct=0.95),
    "timm/mobilenetv4_hybrid_medium.ix_e550_r256_in1k": _timm(
        "mobilenet_v4_hybrid_medium", 81.478, size=256, crop_pct=0.95
    ),
    "timm/mobilenetv4_hybrid_large.ix_e600_r384_in1k": _timm(
        "mobilenet_v4_hybrid_large", 83.996, size=384, crop_pct=0.95
    ),
}
