"""LR-ASPP: lite reduced atrous spatial pyramid pooling, MobileNetV3's head for segmentation.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244, figure 10.
The gate's pooling is global, as in torchvision's `lraspp_mobilenet_v3_large`; the paper pools windows of 49x49 pixels
with strides 16 and 20. Also from there: the backbone is dilated from stride 16 on, the smaller map is its last
convolution, the larger one the first block of stride 8 (the blocks after it have maps of the same shape); batch-norm
epsilon is 1e-5 in the head.
On any other backbone, the maps are the last ones of strides 8 and 16; backbones that can be dilated are.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv, conv_bn
from keraslight.blocks.dense_family import Outputs, register_dense
from keraslight.blocks.resize import resize_like
from keraslight.registry import Backbone, Variant


def _v3(size: str, block: str) -> Backbone:
    return Backbone(
        f"torchvision/mobilenet_v3_{size}", (f"{block}_project_bn", "head_expand_act"), {"output_stride": 16}
    )


VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint, channels, classes, task, backbone
    "lraspp_mobilenet_v3_large": Variant(
        {},
        520,
        3_221_538,
        2_086_219_688,
        "torchvision/lraspp_mobilenet_v3_large",
        3,
        21,
        "segmentation",
        _v3("large", "stage2_block0"),
    ),
    "lraspp_mobilenet_v3_small": Variant(
        {},
        520,
        1_077_954,
        671_582_336,
        "torchvision/lraspp_mobilenet_v3_small.untrained",
        3,
        21,
        "segmentation",
        _v3("small", "stage1_block0"),
    ),
}


@register_dense(VARIANTS, prefix="lraspp_", taps=(8, 16))
def LRASPP(
    images: KerasTensor,
    maps: Sequence[KerasTensor],
    *,
    classes: int,
    middle: int = 128,
    style: ConvStyle = TORCH,
) -> Outputs:
    """Builds an LR-ASPP segmenter.

    Args:
        middle: Channels of the head, at least 1.
        style: Batch normalization of the head.
    """
    low, high = maps
    x = conv_bn(high, middle, 1, activation="relu", style=style, name="high_conv")
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="high_mean")(high)
    gate = activate(conv(gate, middle, 1, use_bias=False, name="high_gate"), "sigmoid", name="high_gate_act")
    x = layers.Multiply(name="high_scale")([x, gate])
    x = resize_like(x, low, name="high_resize")
    x = layers.Add(name="scores")(
        [
            conv(low, classes, 1, name="low_classifier"),
            conv(x, classes, 1, name="high_classifier"),
        ]
    )
    return {"logits": resize_like(x, images, name="logits")}
