"""SqueezeNet: AlexNet-level accuracy with 50x fewer parameters.

Source: Iandola et al., 2016, https://arxiv.org/abs/1602.07360, table 1, for 1.0; the authors' SqueezeNet v1.1
(https://github.com/forresti/SqueezeNet) for 1.1. Built as in torchvision: the stem doesn't pad, poolings round up,
and the last convolution doesn't pad either (the authors' 1.0 pads it by one pixel, which changes no weight). A ReLU
is applied to the logits before they are averaged, so none is negative. Dropout is the paper's 0.5. The last stride is
16.
"""

import functools
from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import activate, conv, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Network, convolutional_classifier
from keraslight.blocks.pool import max_pool_ceil
from keraslight.registry import Variant


class Stem(NamedTuple):
    """The first convolution, stride 2."""

    kernel: int
    channels: int


class Fire(NamedTuple):
    """Squeezes to `squeeze` channels, then expands with `expand` 1x1 and `expand` 3x3 kernels."""

    squeeze: int
    expand: int


# Every stage begins with a 3x3 pooling of stride 2; output sides at 224 pixels.
STAGES_1_0 = (
    (Fire(16, 64), Fire(16, 64), Fire(32, 128)),  # 54
    (Fire(32, 128), Fire(48, 192), Fire(48, 192), Fire(64, 256)),  # 27
    (Fire(64, 256),),  # 13
)
STAGES_1_1 = (
    (Fire(16, 64), Fire(16, 64)),  # 55
    (Fire(32, 128), Fire(32, 128)),  # 27
    (Fire(48, 192), Fire(48, 192), Fire(64, 256), Fire(64, 256)),  # 13
)

V1_0, V1_1 = {"stem": Stem(7, 96), "stages": STAGES_1_0}, {"stem": Stem(3, 64), "stages": STAGES_1_1}
VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint
    "squeezenet_1_0": Variant(V1_0, 224, 1_248_424, 818_924_576, "torchvision/squeezenet1_0"),
    "squeezenet_1_1": Variant(V1_1, 224, 1_235_496, 349_151_936, "torchvision/squeezenet1_1"),
}


@register(VARIANTS, prefix="squeezenet_", dropout=0.5)
def SqueezeNet(images: KerasTensor, *, stem: Stem, stages: tuple[tuple[Fire, ...], ...], width: float = 1.0) -> Network:
    """Builds a SqueezeNet image classifier.

    The stem doesn't pad, so features lose up to two pixels. Their last stride is 16.

    Args:
        stem, stages: The variant's table.
        width: Multiplier of all channels, above 0. Channels are rounded to multiples of 8.
        classifier_activation: Activation of the classifier. None returns logits, which are never negative here.
    """
    channels = make_divisible(stem.channels * width)
    x = layers.Conv2D(channels, stem.kernel, strides=2, padding="valid", name="stem")(images)
    x = activate(x, "relu", name="stem_act")
    features = {"stride_2": x}
    number = 2  # the paper counts the stem as the first layer
    for s, stage in enumerate(stages):
        x = max_pool_ceil(x, 3, name=f"stage{s}_pool")
        for row in stage:
            x = _fire(x, make_divisible(row.squeeze * width), make_divisible(row.expand * width), name=f"fire{number}")
            number += 1
        features[f"stride_{4 * 2**s}"] = x
    return Network(features, x, functools.partial(convolutional_classifier, activation="relu"))


def _fire(x: KerasTensor, squeeze: int, expand: int, *, name: str) -> KerasTensor:
    """(B, H, W, C) -> (B, H, W, 2 * expand), figure 1."""
    x = activate(conv(x, squeeze, 1, name=f"{name}_squeeze"), "relu", name=f"{name}_squeeze_act")
    branches = [
        activate(conv(x, expand, kernel, name=part), "relu", name=f"{part}_act")
        for kernel, part in ((1, f"{name}_expand1x1"), (3, f"{name}_expand3x3"))
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)
