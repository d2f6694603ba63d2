"""MobileNetV4's published weights: timm's, https://github.com/huggingface/pytorch-image-models (mobilenetv3.py)."""

from collections.abc import Iterator
from typing import Any

from keraslight.architectures.mobilenet_v4 import MQA, UIB, Block, Conv, Fused
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(
    *, stages: tuple[tuple[Block, ...], ...], layer_scale: float | None = None, **_unused: Any
) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "conv_stem"
    yield "stem_bn", "bn1"
    for s, stage in enumerate(stages):
        for b, row in enumerate(stage):
            ours, theirs = f"stage{s}_block{b}", f"blocks.{s}.{b}"
            match row:
                case Conv():
                    yield ours, f"{theirs}.conv"
                    yield f"{ours}_bn", f"{theirs}.bn1"
                case Fused():
                    yield f"{ours}_expand", f"{theirs}.conv_exp"
                    yield f"{ours}_expand_bn", f"{theirs}.bn1"
                    yield f"{ours}_project", f"{theirs}.conv_pwl"
                    yield f"{ours}_project_bn", f"{theirs}.bn2"
                case UIB(start, middle):
                    parts = (("start", "dw_start", start), ("expand", "pw_exp", True),
                             ("depthwise", "dw_mid", middle), ("project", "pw_proj", True))  # fmt: skip
                    for our_part, their_part, present in parts:
                        if present:
                            yield f"{ours}_{our_part}", f"{theirs}.{their_part}.conv"
                            yield f"{ours}_{our_part}_bn", f"{theirs}.{their_part}.bn"
                case MQA(kv_stride=kv_stride):
                    yield f"{ours}_norm", f"{theirs}.norm"
                    yield f"{ours}_query", f"{theirs}.attn.query.proj"
                    for part in ("key", "value"):
                        if kv_stride > 1:
                            yield f"{ours}_{part}_down", f"{theirs}.attn.{part}.down_conv"
                            yield f"{ours}_{part}_down_bn", f"{theirs}.attn.{part}.norm"
                        yield f"{ours}_{part}", f"{theirs}.attn.{part}.proj"
                    yield f"{ours}_output", f"{theirs}.attn.output.proj"
            if layer_scale is not None and isinstance(row, (UIB, MQA)):
                yield f"{ours}_layer_scale", f"{theirs}.layer_scale"
    yield "head", "conv_head"
    yield "head_bn", "norm_head"
    yield "classifier", "classifier"


def _checkpoint(variant: str, size: int, crop_pct: float, top1: float) -> Checkpoint:
    return Checkpoint(variant, torch_names, Preprocessing((size, size), crop_pct=crop_pct), top1)


CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/mobilenetv4_conv_small.e2400_r224_in1k": _checkpoint("mobilenet_v4_conv_small", 224, 0.875, 73.756),
    "timm/mobilenetv4_conv_medium.e500_r256_in1k": _checkpoint("mobilenet_v4_conv_medium", 256, 0.95, 79.916),
    "timm/mobilenetv4_conv_large.e600_r384_in1k": _checkpoint("mobilenet_v4_conv_large", 384, 0.95, 82.974),
    "timm/mobilenetv4_hybrid_medium.ix_e550_r256_in1k": _checkpoint("mobilenet_v4_hybrid_medium", 256, 0.95, 81.478),
    "timm/mobilenetv4_hybrid_large.ix_e600_r384_in1k": _checkpoint("mobilenet_v4_hybrid_large", 384, 0.95, 83.996),
}
