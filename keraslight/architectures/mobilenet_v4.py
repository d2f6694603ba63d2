"""MobileNetV4: universal models for the mobile ecosystem.

Source: Qin et al., ECCV 2024, https://arxiv.org/abs/2404.10518, tables 11 to 15 (the five networks, block by block).
The paper's totals are below those of both released codes (timm, TensorFlow Model Garden), which agree with each other
in every block: the rows below are theirs. Left open by the paper, taken from timm, whose weights are the published
ones: symmetric padding (the Model Garden pads "same"), batch-norm epsilon 1e-5, layer scale initialized to 1e-5. Layer
scale is also used in blocks without a residual (both codes). Dropout and drop path default to 0; the Model Garden
trains with dropout 0.3 (conv_small) or 0.2 and with a drop path rate of up to 0.35, rising linearly over the blocks.
The stride-32 feature map is the last block's, as in the Model Garden (timm returns the 960-channel map after it).
"""

from typing import NamedTuple

from keras import KerasTensor, layers

from keraslight.blocks.conv import conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.mobile_mqa import mobile_mqa
from keraslight.blocks.model import Head, Network, classifier
from keraslight.blocks.residual import drop_rates
from keraslight.blocks.uib import fused_inverted_bottleneck, universal_inverted_bottleneck
from keraslight.errors import InvalidArgumentError
from keraslight.registry import Variant


class Conv(NamedTuple):
    """Convolution, batch norm, activation; no residual."""

    kernel: int
    channels: int
    stride: int = 1


class Fused(NamedTuple):
    """Fused inverted bottleneck."""

    kernel: int
    expansion: float
    channels: int
    stride: int = 1


class UIB(NamedTuple):
    """Universal inverted bottleneck. A `start` or `middle` of 0 omits that depthwise convolution."""

    start: int
    middle: int
    expansion: float
    channels: int
    stride: int = 1


class MQA(NamedTuple):
    """Mobile MQA. The number of channels doesn't change."""

    heads: int
    key_dim: int
    kv_stride: int


Block = Conv | Fused | UIB | MQA

# Each stage halves the sides, except the last. The comments give the output sides at the reference size.
CONV_SMALL = (
    (Conv(3, 32, 2), Conv(1, 32)),  # 56
    (Conv(3, 96, 2), Conv(1, 64)),  # 28
    (  # 14
        UIB(5, 5, 3, 96, 2),
        *4 * (UIB(0, 3, 2, 96),),
        UIB(3, 0, 4, 96),
    ),
    (  # 7
        UIB(3, 3, 6, 128, 2),
        UIB(5, 5, 4, 128),
        UIB(0, 5, 4, 128),
        UIB(0, 5, 3, 128),
        UIB(0, 3, 4, 128),
        UIB(0, 3, 4, 128),
    ),
    (Conv(1, 960),),
)
CONV_MEDIUM = (
    (Fused(3, 4, 48, 2),),  # 64
    (UIB(3, 5, 4, 80, 2), UIB(3, 3, 2, 80)),  # 32
    (  # 16
        UIB(3, 5, 6, 160, 2),
        UIB(3, 3, 4, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 5, 4, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 0, 4, 160),
        UIB(0, 0, 2, 160),
        UIB(3, 0, 4, 160),
    ),
    (  # 8
        UIB(5, 5, 6, 256, 2),
        UIB(5, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(3, 0, 4, 256),
        UIB(3, 5, 2, 256),
        UIB(5, 5, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(0, 0, 4, 256),
        UIB(5, 0, 2, 256),
    ),
    (Conv(1, 960),),
)
CONV_LARGE = (
    (Fused(3, 4, 48, 2),),  # 96
    (UIB(3, 5, 4, 96, 2), UIB(3, 3, 4, 96)),  # 48
    (  # 24
        UIB(3, 5, 4, 192, 2),
        *3 * (UIB(3, 3, 4, 192),),
        UIB(3, 5, 4, 192),
        *5 * (UIB(5, 3, 4, 192),),
        UIB(3, 0, 4, 192),
    ),
    (  # 12
        UIB(5, 5, 4, 512, 2),
        *3 * (UIB(5, 5, 4, 512),),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 5, 4, 512),
        *3 * (UIB(5, 0, 4, 512),),
    ),
    (Conv(1, 960),),
)
HYBRID_MEDIUM = (
    (Fused(3, 4, 48, 2),),  # 64
    (UIB(3, 5, 4, 80, 2), UIB(3, 3, 2, 80)),  # 32
    (  # 16
        UIB(3, 5, 6, 160, 2),
        UIB(0, 0, 2, 160),
        UIB(3, 3, 4, 160),
        UIB(3, 5, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 3, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 0, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 3, 4, 160),
        MQA(4, 64, 2),
        UIB(3, 0, 4, 160),
    ),
    (  # 8
        UIB(5, 5, 6, 256, 2),
        UIB(5, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(3, 5, 4, 256),
        UIB(0, 0, 2, 256),
        UIB(3, 5, 2, 256),
        UIB(0, 0, 2, 256),
        UIB(0, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(3, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 5, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 0, 4, 256),
        MQA(4, 64, 1),
        UIB(5, 0, 4, 256),
    ),
    (Conv(1, 960),),
)
HYBRID_LARGE = (
    (Fused(3, 4, 48, 2),),  # 96
    (UIB(3, 5, 4, 96, 2), UIB(3, 3, 4, 96)),  # 48
    (  # 24
        UIB(3, 5, 4, 192, 2),
        *3 * (UIB(3, 3, 4, 192),),
        UIB(3, 5, 4, 192),
        UIB(5, 3, 4, 192),
        UIB(5, 3, 4, 192),
        *3 * (MQA(8, 48, 2), UIB(5, 3, 4, 192)),
        MQA(8, 48, 2),
        UIB(3, 0, 4, 192),
    ),
    (  # 12
        UIB(5, 5, 4, 512, 2),
        *3 * (UIB(5, 5, 4, 512),),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 0, 4, 512),
        UIB(5, 3, 4, 512),
        UIB(5, 5, 4, 512),
        *4 * (MQA(8, 64, 1), UIB(5, 0, 4, 512)),
    ),
    (Conv(1, 960),),
)

SMALL = {"stem": 32, "stages": CONV_SMALL}
MEDIUM = {"stem": 32, "stages": CONV_MEDIUM}
LARGE = {"stem": 24, "stages": CONV_LARGE}
MEDIUM_MQA = {"stem": 32, "stages": HYBRID_MEDIUM, "layer_scale": 1e-5}
LARGE_MQA = {"stem": 24, "stages": HYBRID_LARGE, "layer_scale": 1e-5, "activation": "gelu"}

VARIANTS = {
    f"mobilenet_v4_{name}": Variant(arguments, size, parameters, macs, f"timm/mobilenetv4_{name}.{recipe}_in1k")
    for name, arguments, size, parameters, macs, recipe in (
        ("conv_small", SMALL, 224, 3_774_024, 186_005_568, "e2400_r224"),
        ("conv_medium", MEDIUM, 256, 9_715_512, 1_080_244_224, "e500_r256"),
        ("conv_large", LARGE, 384, 32_590_864, 6_376_220_672, "e600_r384"),
        ("hybrid_medium", MEDIUM_MQA, 256, 11_074_648, 1_271_183_360, "ix_e550_r256"),
        ("hybrid_large", LARGE_MQA, 384, 37_764_624, 7_711_877_120, "ix_e600_r384"),
    )
}


@register(VARIANTS, prefix="mobilenet_v4_")
def MobileNetV4(
    images: KerasTensor,
    *,
    stem: int,
    stages: tuple[tuple[Block, ...], ...],
    head: int = 1280,
    activation: str = "relu",
    layer_scale: float | None = None,
    width: float = 1.0,
    drop_path: float = 0.0,
) -> Network:
    """Builds a MobileNetV4 image classifier.

    Feature maps are ceil(side / stride) pixels wide. Without the top, the model returns the map before
    the pooling, of 960 channels in all variants.

    Args:
        stem, stages, activation, layer_scale: Channels of the stem, the variant's table, the activation, and the
            initial value of the layer scales (None for none). The table's last stage keeps the sides.
        head: Channels of the convolution after the pooling.
        width: Multiplier of the channels of the stages, above 0. Channels are rounded to multiples of 8. The stem's are
            only scaled above 1, and the head's never, as in timm.
        input_shape: (height, width, channels), with sides of at least 32 pixels and at least 1 channel. None uses the
            variant's own size and channels. In variants without attention, a side may be None (any size).
        drop_path: Drop path rate of the last residual block, in [0, 1), rising linearly from 0 over all blocks.
    """
    x = conv_bn(images, make_divisible(stem * max(width, 1.0)), 3, stride=2, activation=activation, name="stem")
    features = {"stride_2": x}
    *body, head_rows = stages
    rates = drop_rates(drop_path, sum(map(len, body)))
    for s, stage in enumerate(body):
        for b, row in enumerate(stage):
            x = _block(x, row, width, activation, layer_scale, next(rates), name=f"stage{s}_block{b}")
        features[f"stride_{4 * 2**s}"] = x
    for b, row in enumerate(head_rows):
        x = _block(x, row, width, activation, None, 0.0, name=f"stage{len(body)}_block{b}")

    def top(x: KerasTensor, ends: Head) -> KerasTensor:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
        return classifier(conv_bn(x, head, 1, activation=activation, name="head"), ends)

    return Network(features, x, top)


def _block(
    x: KerasTensor, row: Block, width: float, activation: str, layer_scale: float | None, drop_path: float, *, name: str
) -> KerasTensor:
    """Builds one row of a table. Its fields have the names of the block's arguments."""
    if isinstance(row, Conv | Fused | UIB):
        row = row._replace(channels=make_divisible(row.channels * width))
    match row:
        case Conv(kernel, channels, stride):
            return conv_bn(x, channels, kernel, stride=stride, activation=activation, name=name)
        case Fused():
            return fused_inverted_bottleneck(x, activation=activation, name=name, **row._asdict())
        case UIB():
            settings = {**row._asdict(), "layer_scale": layer_scale, "drop_path": drop_path}
            return universal_inverted_bottleneck(x, activation=activation, name=name, **settings)
        case MQA():
            return mobile_mqa(x, layer_scale=layer_scale, drop_path=drop_path, name=name, **row._asdict())
    raise InvalidArgumentError(f"A row of `stages` must be a Conv, Fused, UIB or MQA. Received: {row!r}.")
