"""NanoDet-Plus: an anchor-free detector with a pyramid of ghost bottlenecks.

Source: https://github.com/RangiLyu/nanodet (Apache 2.0), `config/nanodet-plus-m_320.yml` and its siblings; there is no
paper. The boxes are distributions over distances to their sides: Li et al., "Generalized Focal Loss", NeurIPS 2020,
https://arxiv.org/abs/2006.04388. The ghost bottlenecks are those of GhostNet (`keraslight.blocks.ghost_bottleneck`)
without squeeze-and-excitation, with shortcuts of 5x5 depthwise and 1x1 convolutions.
Activations are leaky ReLUs of slope 0.1 everywhere, also in the backbone, torchvision's ShuffleNet V2 without its last
convolution. The authors' second pyramid and head, which only their training uses, are left out.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, conv, conv_bn
from keraslight.blocks.dense_family import Outputs, register_dense
from keraslight.blocks.ghost import ghost_bottleneck
from keraslight.blocks.resize import upsample
from keraslight.blocks.separable import depthwise_separable
from keraslight.layers import ChannelSlice
from keraslight.registry import Backbone, Variant

ACTIVATION = "leaky_relu"
KERNEL = 5
REG_MAX = 7
"""Largest distance from a place to a side of its box, in strides of the level."""


def _shufflenet(width: str) -> Backbone:
    taps = ("stride_8", "stride_16", "stride_32")
    return Backbone(f"torchvision/shufflenet_v2_{width}", taps, {"activation": ACTIVATION})


VARIANTS = {
    f"nanodet_plus_{name}_{size}": Variant(
        {"channels": channels}, size, parameters, macs, f"ref/nanodet-plus-{name.replace('_1_5x', '-1.5x')}_{size}", 3,
        80, "detection", _shufflenet(width),
    )
    for name, size, width, channels, parameters, macs in (
        ("m", 320, "x1_0", 96, 1_197_924, 450_712_800),
        ("m", 416, "x1_0", 96, 1_197_924, 762_090_840),
        ("m_1_5x", 320, "x1_5", 128, 2_477_792, 879_196_800),
        ("m_1_5x", 416, "x1_5", 128, 2_477_792, 1_486_468_128),
    )
}  # fmt: skip


@register_dense(VARIANTS, prefix="nanodet_plus_", taps=(8, 16, 32), multiple=32)
def NanoDetPlus(
    images: KerasTensor,
    maps: Sequence[KerasTensor],
    *,
    classes: int,
    channels: int,
    reg_max: int = REG_MAX,
    style: ConvStyle = TORCH,
) -> Outputs:
    """Builds a NanoDet-Plus object detector.

    Args:
        channels: Channels of the pyramid and the head, even.
        reg_max: Largest distance from a place to a side of its box, in strides, at least 1.
        style: Padding and batch normalization of pyramid and head.

    Returns:
        A model (B, H, W, C) float32 -> `{"class_logits": (B, N, classes), "box_distances": (B, N, 4 * (reg_max + 1))}`:
        logits of independent classes without a background, and for each of left, top, right and bottom logits of the
        distances 0..reg_max. N counts the places of the levels of strides 8, 16, 32 and 64, row by row.
    """
    inputs = [
        conv_bn(x, channels, 1, activation=ACTIVATION, style=style, name=f"reduce{i}") for i, x in enumerate(maps)
    ]

    def merge(x: KerasTensor, other: KerasTensor, name: str) -> KerasTensor:
        x = layers.Concatenate(name=f"{name}_concat")([x, other])
        return ghost_bottleneck(
            x, channels, expanded=channels, kernel=KERNEL, activation=ACTIVATION, style=style, name=name
        )

    def separable(x: KerasTensor, stride: int, name: str) -> KerasTensor:
        return depthwise_separable(
            x, channels, kernel=KERNEL, stride=stride, activation=ACTIVATION, style=style, name=name
        )

    inner = [inputs[-1]]
    for i, x in enumerate(reversed(inputs[:-1])):
        inner.insert(0, merge(upsample(inner[0], 2, name=f"top_down{i}_up"), x, f"top_down{i}"))
    levels = [inner[0]]
    for i, x in enumerate(inner[1:]):
        levels.append(merge(separable(levels[-1], 2, f"bottom_up{i}_down"), x, f"bottom_up{i}"))
    levels.append(
        layers.Add(name="extra_add")([separable(inputs[-1], 2, "extra_in"), separable(levels[-1], 2, "extra_out")])
    )

    values = classes + 4 * (reg_max + 1)
    answers = []
    for i, x in enumerate(levels):
        for n in range(2):
            x = separable(x, 1, f"level{i}_conv{n}")
        x = conv(x, values, 1, name=f"level{i}_classifier")
        answers.append(layers.Reshape((-1, values), name=f"level{i}_places")(x))
    x = layers.Concatenate(axis=1, name="places")(answers)
    return {
        "class_logits": ChannelSlice(0, classes, name="class_logits")(x),
        "box_distances": ChannelSlice(classes, name="box_distances")(x),
    }
