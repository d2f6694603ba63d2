"""BiSeNet V2's published weights: https://github.com/CoinCheung/BiSeNet (MIT), release 0.0.0."""

from typing import Any

from keraslight.dense.bisenet_v2 import DETAIL, SEGMENT
from keraslight.preprocessing import Preprocessing
from keraslight.weights.loader import Checkpoint
from keraslight.weights.sources import Names, conv_bn, sequence


def torch_names(*, auxiliary: bool = False, **_unused: Any) -> Names:
    """Yields the repository's names."""
    for s, stage in enumerate(DETAIL):
        for b in range(len(stage)):
            yield from _module(f"detail{s}_conv{b}", f"detail.S{s + 1}.{b}")
    for ours, theirs in (("", "conv"), ("_left0", "left.0"), ("_left1", "left.1"), ("_fuse", "fuse")):
        yield from _module(f"stem{ours}", f"segment.S1S2.{theirs}")
    for s, (_, repeats) in enumerate(SEGMENT, start=3):
        for b in range(repeats):
            ours, theirs = f"segment{s}_block{b}", f"segment.S{s if s < 5 else '5_4'}.{b}"
            yield from _module(f"{ours}_gather", f"{theirs}.conv1")
            if b:
                yield from sequence(f"{ours}_depthwise", f"{theirs}.dwconv")
            else:
                yield from sequence(f"{ours}_depthwise0", f"{theirs}.dwconv1")
                yield from sequence(f"{ours}_depthwise1", f"{theirs}.dwconv2")
                yield from sequence(f"{ours}_shortcut_depthwise", f"{theirs}.shortcut")
                yield from sequence(f"{ours}_shortcut", f"{theirs}.shortcut", 2)
            yield from sequence(f"{ours}_project", f"{theirs}.conv2")
    yield "context_mean_bn", "segment.S5_5.bn"
    yield from _module("context_gap", "segment.S5_5.conv_gap")
    yield from _module("context_last", "segment.S5_5.conv_last")
    for ours, theirs in (("detail_keep", "left1"), ("segment_keep", "right2")):
        yield from sequence(f"{ours}_depthwise", f"bga.{theirs}")
        yield ours, f"bga.{theirs}.2"
    for ours, theirs in (("detail_down", "left2"), ("segment_up_conv", "right1"), ("aggregate", "conv")):
        yield from sequence(ours, f"bga.{theirs}")
    yield from _module("head_conv", "head.conv")
    yield "classifier", "head.conv_out.1"
    if auxiliary:
        for name in ("aux2", "aux3", "aux4", "aux5_4"):
            yield from _module(f"{name}_conv", f"{name}.conv")
            yield from _module(f"{name}_up_conv", f"{name}.conv_out.0.1")
            yield f"{name}_classifier", f"{name}.conv_out.1"


def _module(ours: str, theirs: str) -> Names:
    """A module of a convolution, its batch norm and a ReLU."""
    return conv_bn(ours, f"{theirs}.conv", f"{theirs}.bn")


CHECKPOINTS = {
    f"ref/bisenetv2_{name}": Checkpoint(
        f"bisenet_v2_{name}",
        torch_names,
        Preprocessing((512, 512), crop_mode="squash", interpolation="bilinear", mean=mean, std=std),
        url=f"https://github.com/CoinCheung/BiSeNet/releases/download/0.0.0/model_final_v2_{file}.pth",
        training_only=("aux2", "aux3", "aux4", "aux5_4"),
        dataset=name,
    )
    for name, file, mean, std in (
        ("cityscapes", "city", (0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115)),
        ("coco", "coco", (0.46962251, 0.4464104, 0.40718787), (0.27469736, 0.27012361, 0.28515933)),
        ("ade20k", "ade20k", (0.49343230, 0.46819794, 0.43106043), (0.25680755, 0.25506608, 0.27422913)),
    )
}
