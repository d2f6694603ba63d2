"""AlexNet: ImageNet classification with deep convolutional neural networks.

Sources: `alexnet_2012`: Krizhevsky et al., NeurIPS 2012, figure 2 and section 3, with two groups in the second, fourth
and fifth convolution (one per GPU in the paper) and local response normalization after the first two. `alexnet`:
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", https://arxiv.org/abs/1404.5997, as in
torchvision: narrower, without groups and without local response normalization. The paper's 224-pixel input doesn't
match its figure; 227 pixels do. The dense layers are convolutions that cover the last map (6x6 pixels at the reference
size). On larger images they are evaluated at every position and averaged (torchvision averages the map to 6x6 instead).
On smaller images the first one covers a smaller map, and published weights don't fit. Dropout is the paper's 0.5, after
the first two dense layers (torchvision applies it to their inputs).
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import activate, conv, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Head, Network, check_sides, drop, fully_connected, pooled_classifier
from keraslight.layers import LocalResponseNorm
from keraslight.registry import Variant


class Row(NamedTuple):
    """A convolution with ReLU, optionally followed by local response normalization and 3x3 pooling of stride 2."""

    kernel: int
    channels: int
    groups: int = 1
    normalize: bool = False
    pool: bool = False


OWT = (  # one weird trick; output sides at 224 pixels after the pooling
    Row(11, 64, pool=True),  # 27
    Row(5, 192, pool=True),  # 13
    Row(3, 384),
    Row(3, 256),
    Row(3, 256, pool=True),  # 6
)
Y2012 = (  # at 227 pixels
    Row(11, 96, normalize=True, pool=True),  # 27
    Row(5, 256, groups=2, normalize=True, pool=True),  # 13
    Row(3, 384),
    Row(3, 384, groups=2),
    Row(3, 256, groups=2, pool=True),  # 6
)

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint
    "alexnet": Variant({"rows": OWT, "stem_padding": 2}, 224, 61_100_840, 714_188_480, "torchvision/alexnet"),
    "alexnet_2012": Variant({"rows": Y2012, "stem_padding": 0}, 227, 60_965_224, 724_406_816, None),
}

STEM_STRIDE = 4


@register(VARIANTS, prefix="alexnet_", dropout=0.5, min_size=1)
def AlexNet(images: KerasTensor, *, rows: tuple[Row, ...], stem_padding: int, width: float = 1.0) -> Network:
    """Builds an AlexNet image classifier.

    No pooling pads, so features lose up to two pixels at the border.

    Args:
        rows: Convolutions of the variant.
        stem_padding: Zeros around the image, in pixels.
        width: Multiplier of all channels, including the 4096 of the dense layers, above 0. Channels are rounded to
            multiples of 8.
        input_shape: (height, width, channels), with sides of at least 67 pixels (63 with the stem's padding) or None
            (any size) and at least 1 channel. None uses the variant's own size and channels. With the top, published
            weights need at least 224 pixels.
        dropout: Dropout rate after each of the first two dense layers, in [0, 1).
    """
    check_sides(images.shape[1:], 67 - 2 * stem_padding)
    x = images
    if stem_padding:
        x = layers.ZeroPadding2D(stem_padding, name="conv1_pad")(x)
    features, stride = {}, STEM_STRIDE
    for c, row in enumerate(rows, start=1):
        part, channels = f"conv{c}", make_divisible(row.channels * width)
        if c == 1:
            x = layers.Conv2D(channels, row.kernel, strides=STEM_STRIDE, padding="valid", name=part)(x)
        else:
            x = conv(x, channels, row.kernel, groups=row.groups, name=part)
        x = activate(x, "relu", name=f"{part}_act")
        features[f"stride_{stride}"] = x
        if row.normalize:
            x = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, bias=2.0, name=f"{part}_norm")(x)
        if row.pool:
            x = layers.MaxPooling2D(3, strides=2, name=f"{part}_pool")(x)
            stride *= 2
    features[f"stride_{stride}"] = x

    def top(x: KerasTensor, head: Head) -> KerasTensor:
        units = make_divisible(4096 * width)
        x = fully_connected(x, units, side=6, name="fc1")
        x = drop(x, head.dropout, name="fc1_dropout")
        return pooled_classifier(fully_connected(x, units, name="fc2"), head)

    return Network(features, x, top)
