"""MobileNetV3: searched inverted residuals with squeeze-and-excitation and hard swish.

Source: Howard et al., ICCV 2019, https://arxiv.org/abs/1905.02244, tables 1 (large) and 2 (small). The minimalistic
networks are those of TensorFlow's slim README: 3x3 kernels, ReLU everywhere, no squeeze-and-excitation.
Left open by the paper and taken from the authors' code, as in timm: the expanded width is a multiple of the *rounded*
input width (torchvision rounds the table's own; this only matters for widths other than 1); the squeeze is a quarter of
the expanded width, rounded to multiples of 8, with ReLU inside; the stem and the last convolution keep their channels
below width 1. Table 2 also prints squeeze-and-excitation for the head's 576-channel convolution: no released code has
it. Padding and epsilon depend on the weights: symmetric and 1e-5 in timm, symmetric and 1e-3 in torchvision, "same" and
1e-3 in the authors' code (timm's `tf_` names, keras.applications). Dropout and drop path default to 0; the authors
train with dropout 0.2.
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.inverted_residual import inverted_residual
from keraslight.blocks.model import Head, Network, classifier
from keraslight.blocks.residual import drop_rates
from keraslight.blocks.stride import OutputStride
from keraslight.registry import Variant

RE, HS = "relu", "hard_silu"
STEM = 16


class Row(NamedTuple):
    """A row of table 1 or 2. There is no expansion if `expanded` is the width of the previous row."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: str
    stride: int = 1


LARGE = (  # output sides of a 224x224 image
    (Row(3, 16, 16, False, RE),),  # 112
    (Row(3, 64, 24, False, RE, 2), Row(3, 72, 24, False, RE)),  # 56
    (Row(5, 72, 40, True, RE, 2), *2 * (Row(5, 120, 40, True, RE),)),  # 28
    (Row(3, 240, 80, False, HS, 2), Row(3, 200, 80, False, HS), *2 * (Row(3, 184, 80, False, HS),)),  # 14
    (Row(3, 480, 112, True, HS), Row(3, 672, 112, True, HS)),  # 14
    (Row(5, 672, 160, True, HS, 2), *2 * (Row(5, 960, 160, True, HS),)),  # 7
)
SMALL = (
    (Row(3, 16, 16, True, RE, 2),),  # 56
    (Row(3, 72, 24, False, RE, 2), Row(3, 88, 24, False, RE)),  # 28
    (Row(5, 96, 40, True, HS, 2), *2 * (Row(5, 240, 40, True, HS),)),  # 14
    (Row(5, 120, 48, True, HS), Row(5, 144, 48, True, HS)),  # 14
    (Row(5, 288, 96, True, HS, 2), *2 * (Row(5, 576, 96, True, HS),)),  # 7
)


def _minimalistic(stages: tuple[tuple[Row, ...], ...]) -> tuple[tuple[Row, ...], ...]:
    return tuple(tuple(row._replace(kernel=3, squeeze=False, activation=RE) for row in stage) for stage in stages)


_LARGE = {"stages": LARGE, "head": (960, 1280)}
_SMALL = {"stages": SMALL, "head": (576, 1024)}
_PLAIN = {"activation": RE, "width": 1.0}
_LARGE_PLAIN = {**_LARGE, **_PLAIN, "stages": _minimalistic(LARGE)}
_SMALL_PLAIN = {**_SMALL, **_PLAIN, "stages": _minimalistic(SMALL)}

VARIANTS = {
    f"mobilenet_v3_{name}": Variant(arguments, 224, parameters, macs, f"timm/{checkpoint}")
    for name, arguments, parameters, macs, checkpoint in (
        ("large_100", {**_LARGE, "width": 1.0}, 5_483_032, 216_589_760, "mobilenetv3_large_100.ra_in1k"),
        ("large_075", {**_LARGE, "width": 0.75}, 3_993_528, 154_560_624, "tf_mobilenetv3_large_075.in1k"),
        ("large_minimalistic", _LARGE_PLAIN, 3_924_288, 209_136_704, "tf_mobilenetv3_large_minimal_100.in1k"),
        ("small_100", {**_SMALL, "width": 1.0}, 2_542_856, 56_510_400, "mobilenetv3_small_100.lamb_in1k"),
        ("small_075", {**_SMALL, "width": 0.75}, 2_041_872, 43_399_344, "mobilenetv3_small_075.lamb_in1k"),
        ("small_050", {**_SMALL, "width": 0.5}, 1_593_224, 24_188_688, "mobilenetv3_small_050.lamb_in1k"),
        ("small_minimalistic", _SMALL_PLAIN, 2_044_736, 52_288_448, "tf_mobilenetv3_small_minimal_100.in1k"),
    )
}
# A small network to learn from, without weights: one block for each width of table 1, with that row's kernel,
# squeeze-and-excitation and activation, and an expansion of 6 throughout.
SAMPLE = (
    (Row(3, 96, 16, False, RE),),  # 112
    (Row(3, 96, 24, False, RE, 2),),  # 56
    (Row(5, 144, 40, True, RE, 2),),  # 28
    (Row(3, 240, 80, False, HS, 2),),  # 14
    (Row(3, 480, 112, True, HS),),  # 14
    (Row(5, 672, 160, True, HS, 2),),  # 7
)
VARIANTS["mobilenet_v3_sample"] = Variant(
    {"stages": SAMPLE, "head": (960, 1280), "width": 1.0}, 224, 3_377_456, 164_025_056, None
)


@register(VARIANTS, prefix="mobilenet_v3_")
def MobileNetV3(
    images: KerasTensor,
    *,
    stages: tuple[tuple[Row, ...], ...],
    head: tuple[int, int],
    stem: int = STEM,
    activation: str = HS,
    reduced_tail: bool = False,
    output_stride: int = 32,
    width: float,
    drop_path: float = 0.0,
    style: ConvStyle = TORCH,
) -> Network:
    """Builds a MobileNetV3 image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the map before the pooling.

    Args:
        stages, head, activation: The variant's table, the widths of its last two convolutions (before and after the
            pooling), and the activation of these and of the stem.
        stem: Channels of the stem.
        reduced_tail: Whether the last stage and both convolutions after it have half of their channels, as in section
            6.3 for detection and segmentation. The first block of the stage keeps its expansion.
        output_stride: Stride of the last map: 8, 16 or 32. Below 32, later strides become dilations of the
            depthwise convolutions, with the same weights.
        width: Multiplier of the channels, above 0. Channels are rounded to multiples of 8. The stem's and those of the
            convolution after the pooling are only scaled above 1.
        drop_path: Drop path rate of the last residual block, in [0, 1), rising linearly from 0 over all blocks.
        style: Padding and batch normalization, as expected by the weights.
    """
    strides = OutputStride(output_stride, 2)
    if reduced_tail:
        stages, head = _reduced(stages), (head[0] // 2, head[1] // 2)
    channels = make_divisible(stem * max(width, 1.0))
    x = conv_bn(images, channels, 3, stride=2, activation=activation, style=style, name="stem")
    features, before = {"stride_2": x}, stem
    rates = drop_rates(drop_path, sum(map(len, stages)))
    for s, stage in enumerate(stages):
        for b, row in enumerate(stage):
            expanded, expand = x.shape[-1], row.expanded != before
            if expand:
                expanded = make_divisible(expanded * row.expanded / before)
            x = inverted_residual(
                x,
                make_divisible(row.channels * width),
                expanded=expanded,
                expand=expand,
                kernel=row.kernel,
                stride=strides.step(row.stride),
                dilation=strides.dilation,
                activation=row.activation,
                squeezed=make_divisible(expanded / 4) if row.squeeze else 0,
                drop_path=next(rates),
                style=style,
                name=f"stage{s}_block{b}",
            )
            before = row.channels
        features[f"stride_{strides.total}"] = x
    before_pooling, after_pooling = make_divisible(head[0] * width), make_divisible(head[1] * max(width, 1.0))
    x = conv_bn(x, before_pooling, 1, activation=activation, style=style, name="head_expand")

    def top(x: KerasTensor, head: Head) -> KerasTensor:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
        x = layers.Conv2D(after_pooling, 1, name="head")(x)
        return classifier(activate(x, activation, name="head_act"), head)

    return Network(features, x, top)


def _reduced(stages: tuple[tuple[Row, ...], ...]) -> tuple[tuple[Row, ...], ...]:
    """Halves the channels of the last stage; its first block still expands the previous stage's in full."""
    first, *others = stages[-1]
    rest = (row._replace(expanded=row.expanded // 2, channels=row.channels // 2) for row in others)
    return (*stages[:-1], (first._replace(channels=first.channels // 2), *rest))
