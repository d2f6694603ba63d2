"""ConvNeXt's published weights: timm's (the authors' and its own) and torchvision's."""

from collections.abc import Iterator
from typing import Any

from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint


def timm_names(
    *, blocks: tuple[int, ...], layer_scale: float | None = 1e-6, **_unused: Any
) -> Iterator[tuple[str, str]]:
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
            yield f"{ours}_project", f"{theirs}.mlp.fc2"
            if layer_scale is not None:
                yield f"{ours}_layer_scale", theirs  # a parameter of the block itself, `gamma`
    yield "head_norm", "head.norm"
    yield "classifier", "head.fc"


def torchvision_names(
    *, blocks: tuple[int, ...], layer_scale: float | None = 1e-6, **_unused: Any
) -> Iterator[tuple[str, str]]:
    """Yields pairs (our layer's name, torchvision's module name) of all layers with weights."""
    yield "stem", "features.0.0"
    yield "stem_norm", "features.0.1"
    for s, count in enumerate(blocks):
        if s > 0:
            yield f"stage{s}_down_norm", f"features.{2 * s}.0"
            yield f"stage{s}_down", f"features.{2 * s}.1"
        for b in range(count):
            ours, theirs = f"stage{s}_block{b}", f"features.{2 * s + 1}.{b}"
            yield f"{ours}_depthwise", f"{theirs}.block.0"
            yield f"{ours}_norm", f"{theirs}.block.2"
            yield f"{ours}_expand", f"{theirs}.block.3"
            yield f"{ours}_project", f"{theirs}.block.5"
            if layer_scale is not None:
                yield f"{ours}_layer_scale", f"{theirs}.layer_scale"  # a parameter, not a module
    yield "head_norm", "classifier.0"
    yield "classifier", "classifier.2"


def _timm(variant: str, top1: float, size: int = 224, **more: Any) -> Checkpoint:
    spec = Preprocessing((size, size), **{"crop_pct": 0.875, **more})
    return Checkpoint(f"convnext_{variant}", timm_names, spec, top1)


def _tv(variant: str, resized: int, top1: float, file: str) -> Checkpoint:
    return Checkpoint(
        f"convnext_{variant}",
        torchvision_names,
        Preprocessing((224, 224), crop_pct=224 / resized, interpolation="bilinear"),
        top1,
        url=f"https://download.pytorch.org/models/convnext_{file}.pth",
    )


LARGE: dict[str, Any] = {"size": 384, "crop_pct": 1.0, "crop_mode": "squash"}

CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31, its results-imagenet.csv and torchvision 0.28
    "timm/convnext_tiny.in12k_ft_in1k": _timm("tiny", 84.192, crop_pct=0.95),
    "timm/convnext_tiny.in12k_ft_in1k_384": _timm("tiny", 85.154, **LARGE),
    "timm/convnext_tiny.fb_in22k_ft_in1k": _timm("tiny", 82.9),
    "timm/convnext_tiny.fb_in22k_ft_in1k_384": _timm("tiny", 84.098, **LARGE),
    "timm/convnext_tiny.fb_in1k": _timm("tiny", 82.066),
    "timm/convnext_small.in12k_ft_in1k": _timm("small", 85.164, crop_pct=0.95),
    "timm/convnext_small.in12k_ft_in1k_384": _timm("small", 86.186, **LARGE),
    "timm/convnext_small.fb_in22k_ft_in1k": _timm("small", 84.582),
    "timm/convnext_small.fb_in22k_ft_in1k_384": _timm("small", 85.752, **LARGE),
    "timm/convnext_small.fb_in1k": _timm("small", 83.144),
    "timm/convnext_base.fb_in22k_ft_in1k": _timm("base", 85.814),
    "timm/convnext_base.fb_in22k_ft_in1k_384": _timm("base", 86.826, **LARGE),
    "timm/convnext_base.fb_in1k": _timm("base", 83.838),
    "timm/convnext_large.fb_in22k_ft_in1k": _timm("large", 86.612),
    "timm/convnext_large.fb_in22k_ft_in1k_384": _timm("large", 87.456, **LARGE),
    "timm/convnext_large.fb_in1k": _timm("large", 84.304),
    "timm/convnext_xlarge.fb_in22k_ft_in1k": _timm("xlarge", 86.97),
    "timm/convnext_xlarge.fb_in22k_ft_in1k_384": _timm("xlarge", 87.764, **LARGE),
    "torchvision/convnext_tiny": _tv("tiny", 236, 82.52, "tiny-983f1562"),
    "torchvision/convnext_small": _tv("small", 230, 83.616, "small-0c510722"),
    "torchvision/convnext_base": _tv("base", 232, 84.062, "base-6075fbad"),
    "torchvision/convnext_large": _tv("large", 232, 84.414, "large-ea097f82"),
}
