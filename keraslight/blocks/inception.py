"""GoogLeNet's inception module and auxiliary classifier.

Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842, figures 2 (b), 3.
"""

import functools

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn
from keraslight.blocks.model import Head
from keraslight.blocks.pool import max_pool


def inception(
    x: KerasTensor,
    pointwise: int,
    *,
    middle: tuple[int, int],
    wide: tuple[int, int],
    pooled: int,
    wide_kernel: int = 5,
    style: ConvStyle = TORCH,
    name: str,
) -> KerasTensor:
    """Four parallel branches: 1x1; 1x1 and 3x3; 1x1 and `wide_kernel`; max pool and 1x1.

    Args:
        x: (B, H, W, C), nowhere negative.
        pointwise: Channels of the first branch.
        middle, wide: Channels of the reduction and of the convolution in the second and third branch.
        pooled: Channels of the last branch.
        wide_kernel: Side of the third branch's kernel in pixels, odd: 5 in the paper, 3 in torchvision.
        style: Padding and batch normalization.

    Returns:
        (B, H, W, pointwise + middle[1] + wide[1] + pooled).
    """
    unit = functools.partial(conv_bn, activation="relu", style=style)
    branches = [unit(x, pointwise, 1, name=f"{name}_pointwise")]
    for part, kernel, (reduced, channels) in (("middle", 3, middle), ("wide", wide_kernel, wide)):
        y = unit(x, reduced, 1, name=f"{name}_{part}_reduce")
        branches.append(unit(y, channels, kernel, name=f"{name}_{part}"))
    y = max_pool(x, 3, stride=1, style=style, name=f"{name}_pool")
    branches.append(unit(y, pooled, 1, name=f"{name}_project"))
    return layers.Concatenate(name=f"{name}_concat")(branches)


def auxiliary_classifier(x: KerasTensor, head: Head, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Classifies an inner feature map, averaged to 4x4 for any size: (B, H, W, C) -> (B, classes).

    Its loss helps to train the layers below it. The head's dropout is that of the 1024 features.
    """
    x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    x = conv_bn(x, 128, 1, activation="relu", style=style, name=f"{name}_reduce")
    x = layers.Conv2D(1024, 4, name=f"{name}_dense")(x)  # a dense layer over the whole map
    x = activate(x, "relu", name=f"{name}_dense_act")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dropout(head.dropout, name=f"{name}_dropout")(x)
    x = layers.Dense(head.classes, name=f"{name}_classifier")(x)
    return activate(x, head.activation, name=f"{name}_probabilities")
