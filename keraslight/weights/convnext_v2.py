"""ConvNeXt V2's published weights: the authors', pretrained with masked autoencoders and fine-tuned, from timm."""

from collections.abc import Iterator
from typing import Any

from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def torch_names(*, blocks: tuple[int, ...], **_unused: Any) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, timm's module name) of all layers with weights."""
    yield "stem", "stem.0"
    yield "stem_norm", "stem.1"
    for s, count in enumerate(blocks):
        if s > 0:
            yield f"stage{s}_down_norm", f"stages.{s}.downsample.0"
            yield f"stage{s}_down", f"stages.{s}.downsample.1"
        for b in range(count):
            ours, theirs = f"stage{s}_block{b}", f"stages.{s}.blocks.{b}"
            yield f"{ours}_depthwise", f"{theirs}.conv_dw"
            yield f"{ours}_norm", f"{theirs}.norm"
            yield f"{ours}_expand", f"{theirs}.mlp.fc1"
            yield f"{ours}_grn", f"{theirs}.mlp.grn"
            yield f"{ours}_project", f"{theirs}.mlp.fc2"
    yield "head_norm", "head.norm"
    yield "classifier", "head.fc"


def _checkpoint(variant: str, top1: float, size: int = 224, **more: Any) -> Checkpoint:
    spec = Preprocessing((size, size), **{"crop_pct": 0.875, **more})
    return Checkpoint(f"convnext_v2_{variant}", torch_names, spec, top1)


SQUASH = {"crop_pct": 1.0, "crop_mode": "squash"}

CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/convnextv2_atto.fcmae_ft_in1k": _checkpoint("atto", 76.644),
    "timm/convnextv2_femto.fcmae_ft_in1k": _checkpoint("femto", 78.476),
    "timm/convnextv2_pico.fcmae_ft_in1k": _checkpoint("pico", 80.304),
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k": _checkpoint("nano", 82.038),
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k_384": _checkpoint("nano", 83.366, 384, **SQUASH),
    "timm/convnextv2_nano.fcmae_ft_in1k": _checkpoint("nano", 81.856),
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k": _checkpoint("tiny", 83.904),
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k_384": _checkpoint("tiny", 85.098, 384, **SQUASH),
    "timm/convnextv2_tiny.fcmae_ft_in1k": _checkpoint("tiny", 82.948),
    "timm/convnextv2_base.fcmae_ft_in22k_in1k": _checkpoint("base", 86.752),
    "timm/convnextv2_base.fcmae_ft_in22k_in1k_384": _checkpoint("base", 87.638, 384, **SQUASH),
    "timm/convnextv2_base.fcmae_ft_in1k": _checkpoint("base", 84.89),
    "timm/convnextv2_large.fcmae_ft_in22k_in1k": _checkpoint("large", 87.266),
    "timm/convnextv2_large.fcmae_ft_in22k_in1k_384": _checkpoint("large", 88.18, 384, **SQUASH),
    "timm/convnextv2_large.fcmae_ft_in1k": _checkpoint("large", 85.762),
    "timm/convnextv2_huge.fcmae_ft_in1k": _checkpoint("huge", 86.26),
    "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384": _checkpoint("huge", 88.666, 384, **SQUASH),
    "timm/convnextv2_huge.fcmae_ft_in22k_in1k_512": _checkpoint("huge", 88.86, 512, **SQUASH),
}
