"""SSDLite: single-shot detection by separable convolutions on maps of several resolutions.

Sources: Liu et al., "SSD", ECCV 2016, https://arxiv.org/abs/1512.02325, section 2.1; Sandler et al., "MobileNetV2",
CVPR 2018, https://arxiv.org/abs/1801.04381, section 6.2; Howard et al., "Searching for MobileNetV3", ICCV 2019,
https://arxiv.org/abs/1905.02244, section 6.3.
Left open by the papers and taken from torchvision's `ssdlite320_mobilenet_v3_large`: the first map is the expansion of
the last strided block, the second one MobileNetV3's last convolution; four more maps each halve the resolution; ReLU6
in the head; 6 boxes per place on every map; batch-norm epsilon 1e-3 and momentum 0.97 everywhere. Its weights for COCO
have a reduced tail; networks that start from ImageNet weights have the full one (`..._full`).
On any other backbone, the first two maps are the last ones of strides 16 and 32.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from keraslight.blocks.conv import ConvStyle, conv, conv_bn, depthwise_bn
from keraslight.blocks.dense_family import Outputs, register_dense
from keraslight.errors import InvalidArgumentError
from keraslight.registry import Backbone, Variant

STYLE = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.97)
BOXES = 6
"""Boxes per place of a map; see `keraslight.detection.ssd_anchors`."""

EXTRAS = (512, 256, 256, 128)
"""Channels of the maps after the backbone's."""


def _v3(size: str, block: str, *, reduced: bool = False) -> Backbone:
    arguments = {"reduced_tail": reduced, "style": STYLE}
    return Backbone(f"torchvision/mobilenet_v3_{size}", (f"{block}_expand_act", "head_expand_act"), arguments)


def _checkpoint(name: str) -> str:
    return f"torchvision/ssdlite320_{name}{'' if name == 'mobilenet_v3_large' else '.untrained'}"


VARIANTS = {  # backbone, parameters, MACs
    f"ssdlite320_{name}": Variant({}, 320, parameters, macs, _checkpoint(name), 3, 90, "detection", backbone)
    for name, backbone, parameters, macs in (
        (
            "mobilenet_v3_large",
            _v3("large", "stage5_block0", reduced=True),
            3_440_060,
            583_171_904,
        ),
        ("mobilenet_v3_large_full", _v3("large", "stage5_block0"), 5_198_540, 689_751_104),
        ("mobilenet_v3_small", _v3("small", "stage4_block0", reduced=True), 1_868_108, 195_135_424),
        ("mobilenet_v3_small_full", _v3("small", "stage4_block0"), 2_600_636, 243_249_856),
    )
}


@register_dense(VARIANTS, prefix="ssdlite320_", taps=(16, 32))
def SSDLite(
    images: KerasTensor,
    maps: Sequence[KerasTensor],
    *,
    classes: int,
    extras: tuple[int, ...] = EXTRAS,
    style: ConvStyle = STYLE,
) -> Outputs:
    """Builds an SSDLite object detector.

    Args:
        extras: Channels of the maps that the head adds, each of half the resolution, at least 2 and even.
        style: Padding and batch normalization of the head.

    Returns:
        A model (B, H, W, C) float32 -> `{"class_logits": (B, N, classes + 1), "box_deltas": (B, N, 4)}`. Class 0 is the
        background. N counts 6 boxes for each place of each map, largest map first, row by row.
    """
    if any(channels < 2 or channels % 2 for channels in extras):
        raise InvalidArgumentError(f"`extras` must be even and at least 2. Received: extras={extras}.")
    levels = list(maps)
    for i, channels in enumerate(extras):
        x, name = levels[-1], f"extra{i}"
        x = conv_bn(x, channels // 2, 1, activation="relu6", style=style, name=f"{name}_reduce")
        x = depthwise_bn(x, 3, stride=2, activation="relu6", style=style, name=f"{name}_depthwise")
        levels.append(conv_bn(x, channels, 1, activation="relu6", style=style, name=f"{name}_expand"))
    return {
        "class_logits": _head(levels, classes + 1, "classifier", style=style),
        "box_deltas": _head(levels, 4, "regressor", style=style),
    }


def _head(levels: Sequence[KerasTensor], values: int, kind: str, *, style: ConvStyle) -> KerasTensor:
    """Returns `values` for each box of all maps: (B, N, values)."""
    answers = []
    for i, x in enumerate(levels):
        name = f"level{i}_{kind}"
        x = depthwise_bn(x, 3, activation="relu6", style=style, name=f"{name}_depthwise")
        x = conv(x, BOXES * values, 1, name=name)
        answers.append(layers.Reshape((-1, values), name=f"{name}_boxes")(x))
    return layers.Concatenate(axis=1, name=f"{kind}_boxes")(answers)
