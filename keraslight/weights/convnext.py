"""ConvNeXt's published weights: timm's (the authors' and its own) and torchvision's."""

import functools
from typing import Any

from keraslight.weights.sources import Names, checkpoint, torchvision

_TIMM = {"depthwise": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "grn": "mlp.grn", "project": "mlp.fc2"}
_TORCHVISION = {"depthwise": "block.0", "norm": "block.2", "expand": "block.3", "project": "block.5"}


def timm_names(
    *, blocks: tuple[int, ...], layer_scale: float | None = 1e-6, grn: bool = False, **_unused: Any
) -> Names:
    """Yields timm's names. `grn` is version 2."""
    yield "stem", "stem.0"
    yield "stem_norm", "stem.1"
    for s, count in enumerate(blocks):
        if s > 0:
            yield f"stage{s}_down_norm", f"stages.{s}.downsample.0"
            yield f"stage{s}_down", f"stages.{s}.downsample.1"
        for b in range(count):
            ours, theirs = f"stage{s}_block{b}", f"stages.{s}.blocks.{b}"
            for our_part, their_part in _TIMM.items():
                if grn or our_part != "grn":
                    yield f"{ours}_{our_part}", f"{theirs}.{their_part}"
            if layer_scale is not None:
                yield f"{ours}_layer_scale", theirs  # a parameter of the block itself, `gamma`
    yield "head_norm", "head.norm"
    yield "classifier", "head.fc"


def torchvision_names(*, blocks: tuple[int, ...], layer_scale: float | None = 1e-6, **_unused: Any) -> Names:
    """Yields torchvision's names."""
    yield "stem", "features.0.0"
    yield "stem_norm", "features.0.1"
    for s, count in enumerate(blocks):
        if s > 0:
            yield f"stage{s}_down_norm", f"features.{2 * s}.0"
            yield f"stage{s}_down", f"features.{2 * s}.1"
        for b in range(count):
            ours, theirs = f"stage{s}_block{b}", f"features.{2 * s + 1}.{b}"
            for our_part, their_part in _TORCHVISION.items():
                yield f"{ours}_{our_part}", f"{theirs}.{their_part}"
            if layer_scale is not None:
                yield f"{ours}_layer_scale", f"{theirs}.layer_scale"  # a parameter, not a module
    yield "head_norm", "classifier.0"
    yield "classifier", "classifier.2"


_timm, _tv = functools.partial(checkpoint, timm_names), functools.partial(torchvision, torchvision_names)
LARGE: dict[str, Any] = {"size": 384, "crop_pct": 1.0, "crop_mode": "squash"}

CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31, its results-imagenet.csv and torchvision 0.28
    "timm/convnext_tiny.in12k_ft_in1k": _timm("convnext_tiny", 84.192, crop_pct=0.95),
    "timm/convnext_tiny.in12k_ft_in1k_384": _timm("convnext_tiny", 85.154, **LARGE),
    "timm/convnext_tiny.fb_in22k_ft_in1k": _timm("convnext_tiny", 82.9),
    "timm/convnext_tiny.fb_in22k_ft_in1k_384": _timm("convnext_tiny", 84.098, **LARGE),
    "timm/convnext_tiny.fb_in1k": _timm("convnext_tiny", 82.066),
    "timm/convnext_small.in12k_ft_in1k": _timm("convnext_small", 85.164, crop_pct=0.95),
    "timm/convnext_small.in12k_ft_in1k_384": _timm("convnext_small", 86.186, **LARGE),
    "timm/convnext_small.fb_in22k_ft_in1k": _timm("convnext_small", 84.582),
    "timm/convnext_small.fb_in22k_ft_in1k_384": _timm("convnext_small", 85.752, **LARGE),
    "timm/convnext_small.fb_in1k": _timm("convnext_small", 83.144),
    "timm/convnext_base.fb_in22k_ft_in1k": _timm("convnext_base", 85.814),
    "timm/convnext_base.fb_in22k_ft_in1k_384": _timm("convnext_base", 86.826, **LARGE),
    "timm/convnext_base.fb_in1k": _timm("convnext_base", 83.838),
    "timm/convnext_large.fb_in22k_ft_in1k": _timm("convnext_large", 86.612),
    "timm/convnext_large.fb_in22k_ft_in1k_384": _timm("convnext_large", 87.456, **LARGE),
    "timm/convnext_large.fb_in1k": _timm("convnext_large", 84.304),
    "timm/convnext_xlarge.fb_in22k_ft_in1k": _timm("convnext_xlarge", 86.97),
    "timm/convnext_xlarge.fb_in22k_ft_in1k_384": _timm("convnext_xlarge", 87.764, **LARGE),
    "torchvision/convnext_tiny": _tv("convnext_tiny", 82.52, "convnext_tiny-983f1562", resized=236),
    "torchvision/convnext_small": _tv("convnext_small", 83.616, "convnext_small-0c510722", resized=230),
    "torchvision/convnext_base": _tv("convnext_base", 84.062, "convnext_base-6075fbad", resized=232),
    "torchvision/convnext_large": _tv("convnext_large", 84.414, "convnext_large-ea097f82", resized=232),
}
