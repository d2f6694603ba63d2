"""GoogLeNet: going deeper with convolutions, the first Inception network.

Source: Szegedy et al., CVPR 2015, https://arxiv.org/abs/1409.4842, Table 1.
`googlenet` is torchvision's network, for which weights are published: its "5x5" branch is 3x3 (a slip that the weights
preserve, https://github.com/pytorch/vision/issues/906), the last max pool is 2x2, and batch norm follows every
convolution in place of biases and local response normalization. `googlenet_5x5` has the paper's 5x5 kernels and is
otherwise torchvision's. `googlenet_paper` has biases instead of batch norm, a last max pool of 3x3 and two local
response normalizations, whose constants the paper leaves open: they are those of Caffe's bvlc_googlenet. The auxiliary
heads average to 4x4 for every image size, as torchvision's do; the paper's average 5x5 windows with stride 3, which is
the same at 224 pixels and nowhere else. Max pools round odd sides up.
Dropout defaults to 0; the paper trains with 0.4, torchvision with 0.2, and both with 0.7 in the auxiliary heads, whose
losses the paper weights by 0.3.
"""

from typing import NamedTuple

from keras import KerasTensor

from keraslight.blocks.conv import PLAIN, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.family import register
from keraslight.blocks.inception import auxiliary_classifier, inception
from keraslight.blocks.model import Head, Network, pooled_classifier
from keraslight.blocks.pool import max_pool_ceil
from keraslight.layers import LocalResponseNorm
from keraslight.registry import Variant


class Row(NamedTuple):
    """A module of Table 1, column by column."""

    pointwise: int
    middle_reduced: int
    middle: int
    wide_reduced: int
    wide: int
    pooled: int


STAGES = (
    (Row(64, 96, 128, 16, 32, 32), Row(128, 128, 192, 32, 96, 64)),  # 28x28: 3a, 3b
    (  # 14x14: 4a to 4e
        Row(192, 96, 208, 16, 48, 64),
        Row(160, 112, 224, 24, 64, 64),
        Row(128, 128, 256, 24, 64, 64),
        Row(112, 144, 288, 32, 64, 64),
        Row(256, 160, 320, 32, 128, 128),
    ),
    (Row(256, 160, 320, 32, 128, 128), Row(384, 192, 384, 48, 128, 128)),  # 7x7: 5a, 5b
)
AUXILIARY = {"stage1_block0": "aux1", "stage1_block3": "aux2"}  # after 4a and 4d
AUXILIARY_DROPOUT = 0.7
STYLE = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.9)

VARIANTS = {  # arguments, input size, parameters, MACs (without the auxiliary heads), published checkpoint
    "googlenet": Variant({"wide_kernel": 3, "last_pool": 2}, 224, 6_624_904, 1_498_376_192, "torchvision/googlenet"),
    "googlenet_5x5": Variant({"wide_kernel": 5, "last_pool": 2}, 224, 7_005_832, 1_582_671_872, None),
    "googlenet_paper": Variant(
        {"wide_kernel": 5, "last_pool": 3, "style": PLAIN, "response_norms": True}, 224, 6_998_552, 1_582_671_872, None
    ),
}


@register(VARIANTS, prefix="googlenet_")
def GoogLeNet(
    images: KerasTensor,
    *,
    wide_kernel: int,
    last_pool: int,
    response_norms: bool = False,
    stages: tuple[tuple[Row, ...], ...] = STAGES,
    auxiliary: bool = False,
    width: float = 1.0,
    style: ConvStyle = STYLE,
) -> Network:
    """Builds a GoogLeNet image classifier.

    Args:
        wide_kernel, last_pool: Sides of the third branch's kernel and of the last max pool, in pixels.
        response_norms: Whether local response normalization sits at both ends of the stem.
        stages: Modules of each resolution.
        auxiliary: Whether to return two more outputs for training, `{"classifier": ..., "aux1": ..., "aux2": ...}`.
            For inference, build the model without them: the remaining weights are the same, by name.
        width: Multiplier of all channels except those of the auxiliary heads, above 0. Unless it is 1, channels are
            rounded to multiples of 8.
        style: Padding and batch normalization. With `PLAIN`, convolutions have biases instead.
    """

    def scaled(channels: int) -> int:
        return channels if width == 1 else make_divisible(channels * width)

    def response_norm(x: KerasTensor, name: str) -> KerasTensor:  # Caffe divides its alpha by the size
        return LocalResponseNorm(size=5, alpha=1e-4 / 5, beta=0.75, bias=1.0, name=name)(x) if response_norms else x

    inner = {}
    x = conv_bn(images, scaled(64), 7, stride=2, activation="relu", style=style, name="stem")
    features = {"stride_2": x}
    x = response_norm(max_pool_ceil(x, 3, name="stem_pool"), name="stem_norm")
    x = conv_bn(x, scaled(64), 1, activation="relu", style=style, name="stem_reduce")
    x = conv_bn(x, scaled(192), 3, activation="relu", style=style, name="stem_expand")
    x = response_norm(x, name="stem_expand_norm")
    features["stride_4"] = x
    for s, rows in enumerate(stages):
        x = max_pool_ceil(x, last_pool if s == len(stages) - 1 else 3, name=f"stage{s}_pool")
        for b, row in enumerate(rows):
            block = f"stage{s}_block{b}"
            pointwise, middle_reduced, middle, wide_reduced, wide, pooled = map(scaled, row)
            x = inception(
                x,
                pointwise,
                middle=(middle_reduced, middle),
                wide=(wide_reduced, wide),
                pooled=pooled,
                wide_kernel=wide_kernel,
                style=style,
                name=block,
            )
            if block in AUXILIARY:
                inner[AUXILIARY[block]] = x
        features[f"stride_{8 * 2**s}"] = x

    def top(x: KerasTensor, head: Head) -> KerasTensor | dict[str, KerasTensor]:
        output = pooled_classifier(x, head)
        if not auxiliary:
            return output
        head = head._replace(dropout=AUXILIARY_DROPOUT)
        others = {name: auxiliary_classifier(y, head, style=style, name=name) for name, y in inner.items()}
        return {"classifier": output, **others}

    return Network(features, x, top, needs_top="auxiliary" if auxiliary else "")
