"""BiSeNet V2: bilateral network with guided aggregation, for segmentation.

Source: Yu et al., IJCV 2021, https://arxiv.org/abs/2004.02147, table 1 and figures 4 to 6.
Left open by the paper or different there, and taken from https://github.com/CoinCheung/BiSeNet (MIT), whose weights are
published: gather-and-expansion layers of stride 1 have a ReLU after the depthwise convolution, those of stride 2 after
the second one; the context embedding normalizes the mean before its 1x1 convolution; the guided aggregation repeats
pixels instead of interpolating, and its average pooling counts the padding; the head has 1024 channels; auxiliary heads
for training end at full resolution.
"""

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, conv, conv_bn, depthwise_bn
from keraslight.blocks.dense_family import Outputs, register_dense
from keraslight.blocks.model import drop
from keraslight.blocks.pool import max_pool
from keraslight.blocks.resize import upsample
from keraslight.registry import Variant

DETAIL = ((64, 64), (64, 64, 64), (128, 128, 128))  # channels; the first convolution of each stage has stride 2
STEM = 16
SEGMENT = ((32, 2), (64, 2), (128, 4))  # channels and layers; the first layer of each stage has stride 2
EXPANSION = 6

VARIANTS = {
    f"bisenet_v2_{name}": Variant({}, 512, parameters, macs, f"ref/bisenetv2_{name}", 3, classes, "segmentation")
    for name, classes, parameters, macs in (
        ("cityscapes", 19, 3_358_627, 12_301_664_256),
        ("coco", 171, 3_514_427, 12_939_198_464),
        ("ade20k", 150, 3_492_902, 12_851_118_080),
    )
}


@register_dense(VARIANTS, prefix="bisenet_v2_", multiple=32)
def BiSeNetV2(
    images: KerasTensor,
    *,
    classes: int,
    head: int = 1024,
    dropout: float = 0.1,
    auxiliary: bool = False,
    style: ConvStyle = TORCH,
) -> Outputs:
    """Builds a BiSeNet V2 segmenter.

    Args:
        head: Channels of the last 3x3 convolution, at least 1.
        dropout: Dropout rate before each classifier, in [0, 1).
        auxiliary: Whether the model has four more heads on the segment branch, for training.
        style: Padding and batch normalization.

    Returns:
        A model (B, H, W, C) float32 -> `{"logits": (B, H, W, classes)}`, with `"aux2"`, `"aux3"`, `"aux4"` and
        `"aux5_4"` of the same shape if it has auxiliary heads.
    """
    detail = images
    for s, stage in enumerate(DETAIL):
        for b, channels in enumerate(stage):
            name = f"detail{s}_conv{b}"
            detail = conv_bn(detail, channels, 3, stride=1 if b else 2, activation="relu", style=style, name=name)
    x = _stem(images, style=style)
    sources = {"aux2": (x, 4)}
    for s, (channels, repeats) in enumerate(SEGMENT, start=3):
        for b in range(repeats):
            gather = _gather if b else _gather_down
            x = gather(x, channels, style=style, name=f"segment{s}_block{b}")
        sources[f"aux{s}" if s < 5 else "aux5_4"] = (x, 2**s)
    x = _context(x, style=style)
    x = _aggregate(detail, x, style=style)
    x = conv_bn(x, head, 3, activation="relu", style=style, name="head_conv")
    x = conv(drop(x, dropout, name="dropout"), classes, 1, name="classifier")
    outputs = {"logits": upsample(x, 8, name="logits")}
    if auxiliary:
        for name, (x, factor) in sources.items():
            outputs[name] = _auxiliary(x, classes, factor, dropout, style=style, name=name)
    return outputs


def _stem(images: KerasTensor, *, style: ConvStyle) -> KerasTensor:
    """The stem block of figure 5 a: convolutions and a max pooling side by side, (B, H / 4, W / 4, 16)."""
    x = conv_bn(images, STEM, 3, stride=2, activation="relu", style=style, name="stem")
    left = conv_bn(x, STEM // 2, 1, activation="relu", style=style, name="stem_left0")
    left = conv_bn(left, STEM, 3, stride=2, activation="relu", style=style, name="stem_left1")
    right = max_pool(x, 3, stride=2, style=style, name="stem_right")
    x = layers.Concatenate(name="stem_concat")([left, right])
    return conv_bn(x, STEM, 3, activation="relu", style=style, name="stem_fuse")


def _gather(x: KerasTensor, channels: int, *, style: ConvStyle, name: str) -> KerasTensor:
    """The gather-and-expansion layer of stride 1, figure 4 b."""
    shortcut, width = x, x.shape[-1]
    x = conv_bn(x, width, 3, activation="relu", style=style, name=f"{name}_gather")
    x = depthwise_bn(x, 3, multiplier=EXPANSION, activation="relu", style=style, name=f"{name}_depthwise")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    return activate(layers.Add(name=f"{name}_add")([x, shortcut]), "relu", name=f"{name}_act")


def _gather_down(x: KerasTensor, channels: int, *, style: ConvStyle, name: str) -> KerasTensor:
    """The gather-and-expansion layer of stride 2, figure 4 c."""
    shortcut, width = x, x.shape[-1]
    x = conv_bn(x, width, 3, activation="relu", style=style, name=f"{name}_gather")
    x = depthwise_bn(x, 3, stride=2, multiplier=EXPANSION, style=style, name=f"{name}_depthwise0")
    x = depthwise_bn(x, 3, activation="relu", style=style, name=f"{name}_depthwise1")
    x = conv_bn(x, channels, 1, style=style, name=f"{name}_project")
    shortcut = depthwise_bn(shortcut, 3, stride=2, style=style, name=f"{name}_shortcut_depthwise")
    shortcut = conv_bn(shortcut, channels, 1, style=style, name=f"{name}_shortcut")
    return activate(layers.Add(name=f"{name}_add")([x, shortcut]), "relu", name=f"{name}_act")


def _context(x: KerasTensor, *, style: ConvStyle) -> KerasTensor:
    """The context embedding block of figure 5 b."""
    channels = x.shape[-1]
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="context_mean")(x)
    mean = batch_norm(mean, style=style, name="context_mean_bn")
    mean = conv_bn(mean, channels, 1, activation="relu", style=style, name="context_gap")
    x = layers.Add(name="context_add")([x, mean])
    return conv_bn(x, channels, 3, activation="relu", style=style, name="context_last")


def _aggregate(detail: KerasTensor, segment: KerasTensor, *, style: ConvStyle) -> KerasTensor:
    """The guided aggregation layer of figure 6, at the detail branch's size."""
    channels = detail.shape[-1]
    kept = depthwise_bn(detail, 3, style=style, name="detail_keep_depthwise")
    kept = conv(kept, channels, 1, use_bias=False, name="detail_keep")
    down = conv_bn(detail, channels, 3, stride=2, style=style, name="detail_down")
    down = layers.ZeroPadding2D(1, name="detail_pool_pad")(down)  # the mean counts the zeros
    down = layers.AveragePooling2D(3, strides=2, name="detail_pool")(down)
    up = conv_bn(segment, channels, 3, style=style, name="segment_up_conv")
    up = activate(upsample(up, 4, interpolation="nearest", name="segment_up"), "sigmoid", name="segment_up_gate")
    same = depthwise_bn(segment, 3, style=style, name="segment_keep_depthwise")
    same = activate(conv(same, channels, 1, use_bias=False, name="segment_keep"), "sigmoid", name="segment_keep_gate")
    left = layers.Multiply(name="detail_scale")([kept, up])
    right = layers.Multiply(name="segment_scale")([down, same])
    right = upsample(right, 4, interpolation="nearest", name="segment_scale_up")
    x = layers.Add(name="aggregate_add")([left, right])
    return conv_bn(x, channels, 3, activation="relu", style=style, name="aggregate")


def _auxiliary(
    x: KerasTensor, classes: int, factor: int, dropout: float, *, style: ConvStyle, name: str
) -> KerasTensor:
    """An auxiliary head on a map of stride `factor`: (B, H, W, classes)."""
    x = conv_bn(x, 128, 3, activation="relu", style=style, name=f"{name}_conv")
    x = upsample(drop(x, dropout, name=f"{name}_dropout"), 2, interpolation="nearest", name=f"{name}_up")
    x = conv_bn(x, factor * factor, 3, activation="relu", style=style, name=f"{name}_up_conv")
    return upsample(conv(x, classes, 1, name=f"{name}_classifier"), factor // 2, name=name)
