"""ShuffleNet V2+: ShuffleNet V2 with hard swish, squeeze-and-excitation and searched kernels.

Source: the authors' code, https://github.com/megvii-model/ShuffleNet-Series (ShuffleNetV2+); there is no paper. The
units of V2 are from Ma et al., ECCV 2018, https://arxiv.org/abs/1807.11164; the searched list of kernels is from Guo et
al., "Single Path One-Shot Neural Architecture Search", ECCV 2020, https://arxiv.org/abs/1904.00420.
No convolution or dense layer has a bias, including the classifier. Dropout defaults to 0; the authors train with 0.2.
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import activate, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.model import Head, Network, classifier
from keraslight.blocks.shuffle import shuffle_plus_unit, squeeze_excite_bn
from keraslight.registry import Variant


class Row(NamedTuple):
    """A stage: the depthwise kernel of each unit, or None for the Xception form. The first unit has stride 2."""

    channels: int
    kernels: tuple[int | None, ...]
    activation: str
    attention: bool


def _stages(*channels: int) -> tuple[Row, ...]:
    return (
        Row(channels[0], (3, 3, None, 5), "relu", False),  # 56x56
        Row(channels[1], (5, 5, 3, 3), "hard_silu", False),  # 28x28
        Row(channels[2], (7, 3, 7, 5, 5, 3, 7, 3), "hard_silu", True),  # 14x14
        Row(channels[3], (7, 5, None, 7), "hard_silu", True),  # 7x7
    )


VARIANTS = {
    f"shufflenet_v2_plus_{size}": Variant({"stages": stages}, 224, parameters, macs, f"ref/shufflenet_v2_plus_{size}")
    for size, stages, parameters, macs in (
        ("small", _stages(36, 104, 208, 416), 5_137_116, 155_845_008),
        ("medium", _stages(48, 128, 256, 512), 5_679_840, 222_249_984),
        ("large", _stages(68, 168, 336, 672), 6_768_220, 360_050_704),
    )
}


@register(VARIANTS, prefix="shufflenet_v2_plus_")
def ShuffleNetV2Plus(
    images: KerasTensor, *, stages: tuple[Row, ...], stem: int = 16, head: int = 1280, width: float = 1.0
) -> Network:
    """Builds a ShuffleNet V2+ image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the head's map.

    Args:
        stages, stem, head: The variant's table, and the channels of the stem and the head.
        width: Multiplier of the table's channels, above 0. Unless it is 1, every convolution's channels are rounded to
            multiples of 8. Stem and head are never made narrower.
    """
    divisor = 1 if width == 1 else 8
    stem, units = (make_divisible(channels * max(width, 1.0), divisor) for channels in (stem, head))
    x = conv_bn(images, stem, 3, stride=2, activation="hard_silu", name="stem")
    features = {"stride_2": x}
    for s, row in enumerate(stages):
        for b, kernel in enumerate(row.kernels):
            x = shuffle_plus_unit(
                x,
                make_divisible(row.channels * width, 2 * divisor),
                kernel=kernel,
                stride=1 if b else 2,
                activation=row.activation,
                attention=row.attention,
                divisor=divisor,
                name=f"stage{s}_block{b}",
            )
        features[f"stride_{4 * 2**s}"] = x

    def top(x: KerasTensor, head: Head) -> KerasTensor:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
        x = squeeze_excite_bn(x, units // 4, name="head_se")
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(units, use_bias=False, name="head_dense")(x)
        return classifier(activate(x, "hard_silu", name="head_dense_act"), head, bias=False)

    return Network(features, conv_bn(x, units, 1, activation="hard_silu", name="head"), top)
