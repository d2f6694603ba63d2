"""DeepLabV3: parallel dilated convolutions over a dilated backbone.

Source: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", https://arxiv.org/abs/1706.05587,
section 3.3 and figure 5.
Left open by the paper and taken from torchvision: the rates 12, 24 and 36 whatever the output stride (the paper halves
them at stride 16), dropout 0.5 before the last 3x3 convolution, and the auxiliary head for training. MobileNetV3 is
dilated to stride 16, ResNet to stride 8; the auxiliary head reads the first block of stride 8 or the third stage.
On any other backbone, the maps are the last ones of strides 8 and 16; backbones that can be dilated are.
"""

from collections.abc import Sequence

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, conv, conv_bn
from keraslight.blocks.dense_family import Outputs, register_dense
from keraslight.blocks.model import drop
from keraslight.blocks.resize import resize_like
from keraslight.registry import Backbone, Variant

RATES = (12, 24, 36)
_V3 = Backbone("torchvision/mobilenet_v3_large", ("stage2_block0_project_bn", "head_expand_act"), {"output_stride": 16})
_R50, _R101 = (
    Backbone(f"torchvision/resnet{depth}", (f"stage2_block{last}_act", "stage3_block2_act"), {"output_stride": 8})
    for depth, last in ((50, 5), (101, 22))
)

VARIANTS = {
    f"deeplab_v3_{name}": Variant({}, 520, parameters, macs, checkpoint, 3, 21, "segmentation", backbone)
    for name, backbone, parameters, macs, checkpoint in (
        ("mobilenet_v3_large", _V3, 11_025_477, 10_436_350_688, "torchvision/deeplabv3_mobilenet_v3_large"),
        ("resnet50", _R50, 39_638_869, 168_731_205_888, "torchvision/deeplabv3_resnet50"),
        ("resnet101", _R101, 58_630_997, 248_752_300_288, "torchvision/deeplabv3_resnet101"),
    )
}


@register_dense(VARIANTS, prefix="deeplab_v3_", taps=(8, 16))
def DeepLabV3(
    images: KerasTensor,
    maps: Sequence[KerasTensor],
    *,
    classes: int,
    rates: tuple[int, ...] = RATES,
    middle: int = 256,
    dropout: float = 0.5,
    auxiliary: bool = False,
    style: ConvStyle = TORCH,
) -> Outputs:
    """Builds a DeepLabV3 segmenter.

    Args:
        rates: Dilations of the parallel 3x3 convolutions in pixels of the map, each at least 1.
        middle: Channels of each branch and of the head's last convolution, at least 1.
        dropout: Dropout rate after the branches' projection, in [0, 1).
        auxiliary: Whether the model has a second head on the larger map, for training.
        style: Batch normalization of the head.

    Returns:
        A model (B, H, W, C) float32 -> `{"logits": (B, H, W, classes)}`, with `"aux"` of the same shape if it has an
        auxiliary head.
    """
    low, high = maps
    branches = [conv_bn(high, middle, 1, activation="relu", style=style, name="branch0")]
    for i, rate in enumerate(rates, start=1):
        branches.append(conv_bn(high, middle, 3, dilation=rate, activation="relu", style=style, name=f"branch{i}"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(high)
    x = conv_bn(x, middle, 1, activation="relu", style=style, name="mean_conv")
    branches.append(resize_like(x, high, name="mean_resize"))
    x = layers.Concatenate(name="branches")(branches)
    x = drop(conv_bn(x, middle, 1, activation="relu", style=style, name="project"), dropout, name="dropout")
    x = conv_bn(x, middle, 3, activation="relu", style=style, name="head_conv")
    outputs = {"logits": resize_like(conv(x, classes, 1, name="classifier"), images, name="logits")}
    if auxiliary:
        x = conv_bn(low, low.shape[-1] // 4, 3, activation="relu", style=style, name="aux_conv")
        x = conv(drop(x, 0.1, name="aux_dropout"), classes, 1, name="aux_classifier")
        outputs["aux"] = resize_like(x, images, name="aux")
    return outputs
