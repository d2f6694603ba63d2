"""ConvNeXt V2's published weights: the authors', pretrained with masked autoencoders and fine-tuned, from timm."""

import functools
from typing import Any

from keraslight.weights.convnext import timm_names
from keraslight.weights.sources import checkpoint

_timm = functools.partial(checkpoint, functools.partial(timm_names, layer_scale=None, grn=True))
SQUASH: dict[str, Any] = {"crop_pct": 1.0, "crop_mode": "squash"}

CHECKPOINTS = {  # preprocessing and top-1 at that size from timm 1.0.31 and its results-imagenet.csv
    "timm/convnextv2_atto.fcmae_ft_in1k": _timm("convnext_v2_atto", 76.644),
    "timm/convnextv2_femto.fcmae_ft_in1k": _timm("convnext_v2_femto", 78.476),
    "timm/convnextv2_pico.fcmae_ft_in1k": _timm("convnext_v2_pico", 80.304),
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k": _timm("convnext_v2_nano", 82.038),
    "timm/convnextv2_nano.fcmae_ft_in22k_in1k_384": _timm("convnext_v2_nano", 83.366, size=384, **SQUASH),
    "timm/convnextv2_nano.fcmae_ft_in1k": _timm("convnext_v2_nano", 81.856),
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k": _timm("convnext_v2_tiny", 83.904),
    "timm/convnextv2_tiny.fcmae_ft_in22k_in1k_384": _timm("convnext_v2_tiny", 85.098, size=384, **SQUASH),
    "timm/convnextv2_tiny.fcmae_ft_in1k": _timm("convnext_v2_tiny", 82.948),
    "timm/convnextv2_base.fcmae_ft_in22k_in1k": _timm("convnext_v2_base", 86.752),
    "timm/convnextv2_base.fcmae_ft_in22k_in1k_384": _timm("convnext_v2_base", 87.638, size=384, **SQUASH),
    "timm/convnextv2_base.fcmae_ft_in1k": _timm("convnext_v2_base", 84.89),
    "timm/convnextv2_large.fcmae_ft_in22k_in1k": _timm("convnext_v2_large", 87.266),
    "timm/convnextv2_large.fcmae_ft_in22k_in1k_384": _timm("convnext_v2_large", 88.18, size=384, **SQUASH),
    "timm/convnextv2_large.fcmae_ft_in1k": _timm("convnext_v2_large", 85.762),
    "timm/convnextv2_huge.fcmae_ft_in1k": _timm("convnext_v2_huge", 86.26),
    "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384": _timm("convnext_v2_huge", 88.666, size=384, **SQUASH),
    "timm/convnextv2_huge.fcmae_ft_in22k_in1k_512": _timm("convnext_v2_huge", 88.86, size=512, **SQUASH),
}
