"""NanoDet-Plus' published weights: the authors', https://github.com/RangiLyu/nanodet.

They take blue, green, red: the loader reverses the stem. A checkpoint of PyTorch Lightning holds each tensor under
`model.` and its moving average, which is to be used, under `avg_model.`.
"""

import functools
from typing import Any

from keraslight.architectures.shufflenet_v2 import X100, X150
from keraslight.preprocessing import Preprocessing
from keraslight.weights import shufflenet_v2
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import Names, conv_bn, sequence


def torch_names(backbone: dict[str, Any], **_unused: Any) -> Names:
    """Yields the authors' names for a backbone with these arguments."""
    for ours, theirs in shufflenet_v2.torch_names(**backbone):
        if not theirs.startswith(("conv5", "fc")):
            yield ours, f"backbone.{theirs}"
    levels = len(backbone["stages"])
    for i in range(levels):
        yield from conv_bn(f"reduce{i}", f"fpn.reduce_layers.{i}.conv", f"fpn.reduce_layers.{i}.bn")
    for i in range(levels - 1):
        yield from _ghost(f"top_down{i}", f"fpn.top_down_blocks.{i}.blocks.0")
        yield from _separable(f"bottom_up{i}_down", f"fpn.downsamples.{i}")
        yield from _ghost(f"bottom_up{i}", f"fpn.bottom_up_blocks.{i}.blocks.0")
    yield from _separable("extra_in", "fpn.extra_lvl_in_conv.0")
    yield from _separable("extra_out", "fpn.extra_lvl_out_conv.0")
    for i in range(levels + 1):
        for n in range(2):
            yield from _separable(f"level{i}_conv{n}", f"head.cls_convs.{i}.{n}")
        yield f"level{i}_classifier", f"head.gfl_cls.{i}"


def _ghost(ours: str, theirs: str) -> Names:
    for part, module in (("expand", "ghost1"), ("project", "ghost2")):
        yield from sequence(f"{ours}_{part}_primary", f"{theirs}.{module}.primary_conv")
        yield from sequence(f"{ours}_{part}_cheap", f"{theirs}.{module}.cheap_operation")
    yield from sequence(f"{ours}_shortcut_depthwise", f"{theirs}.shortcut")
    yield from sequence(f"{ours}_shortcut_project", f"{theirs}.shortcut", 2)


def _separable(ours: str, theirs: str) -> Names:
    yield from conv_bn(f"{ours}_depthwise", f"{theirs}.depthwise", f"{theirs}.dwnorm")
    yield from conv_bn(f"{ours}_pointwise", f"{theirs}.pointwise", f"{theirs}.pwnorm")


def _rename(name: str) -> str:
    """Files that were extracted from Lightning's may keep the prefix."""
    return name.removeprefix("avg_model.").removeprefix("model.")


CHECKPOINTS = {
    f"ref/nanodet-plus-m{wider}_{size}": Checkpoint(
        f"nanodet_plus_m{wider.replace('-', '_').replace('.', '_')}_{size}",
        functools.partial(torch_names, backbone),
        Preprocessing((size, size), crop_mode="squash", interpolation="bilinear", antialias=False),
        rename=_rename,
        bgr=True,
        training_only=("aux_fpn", "aux_head", "head.distribution_project"),
        dataset="coco",
    )
    for wider, backbone in (("", X100), ("-1.5x", X150))
    for size in (320, 416)
}
