"""GoogLeNet: going deeper with convolutions, the first Inception network.

Source: Szegedy et al., CVPR 2015, https://arxiv.org/abs/1409.4842, Table 1.
`googlenet` is torchvision's net, whose weights are the published ones: its "5x5" branch is 3x3 (a slip that the weights
keep, https://github.com/pytorch/vision/issues/906), the last max pool is 2x2, and batch norm stands after every
convolution in place of biases and local response normalization. `googlenet_5x5` has the paper's 5x5 kernels and is
torchvision's otherwise. `googlenet_paper` has no batch norm either, but biases, a last max pool of 3x3 and two local
response normalizations, whose constants the paper leaves open: they are those of Caffe's bvlc_googlenet. The auxiliary
heads average to 4x4 whatever the image size. Max pools round odd sides up.
Dropout defaults to 0; the paper trains with 0.4, torchvision with 0.2, and both with 0.7 in the auxiliary heads, whose
losses the paper weighs by 0.3.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import layers

from keraslight.blocks.conv import PLAIN, ConvStyle, conv_bn, make_divisible
from keraslight.blocks.inception import auxiliary_classifier, inception
from keraslight.blocks.model import backbone, classifier, feature_model, image_input
from keraslight.blocks.pool import max_pool_ceil
from keraslight.errors import InvalidArgumentError
from keraslight.layers import LocalResponseNorm
from keraslight.registry import Variant, register


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
AUXILIARY = {"stage1_block0": "aux1", "stage1_block3": "aux2"}  # behind 4a and 4d
AUXILIARY_DROPOUT = 0.7
STYLE = ConvStyle(padding="symmetric", epsilon=1e-3, momentum=0.9)

VARIANTS = {  # keywords, input size, parameters, MACs (without the auxiliary heads), published checkpoint
    "googlenet": Variant({"wide_kernel": 3, "last_pool": 2}, 224, 6_624_904, 1_498_376_192, "torchvision/googlenet"),
    "googlenet_5x5": Variant({"wide_kernel": 5, "last_pool": 2}, 224, 7_005_832, 1_582_671_872, None),
    "googlenet_paper": Variant(
        {"wide_kernel": 5, "last_pool": 3, "style": PLAIN, "response_norms": True}, 224, 6_998_552, 1_582_671_872, None
    ),
}


@register(VARIANTS, prefix="googlenet_")
def GoogLeNet(
    *,
    wide_kernel: int,
    last_pool: int,
    response_norms: bool = False,
    stages: tuple[tuple[Row, ...], ...] = STAGES,
    auxiliary: bool = False,
    width: float = 1.0,
    style: ConvStyle = STYLE,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float = 0.0,
    name: str,
) -> keras.Model:
    """Builds a GoogLeNet image classifier.

    Args:
        wide_kernel, last_pool: Sides of the third branch's kernel and of the last max pool; given by `variant`.
        response_norms: Whether local response normalization stands at the stem's two ends; given by `variant`.
        stages: The modules of each resolution.
        auxiliary: Give two more outputs for training, `{"classifier": ..., "aux1": ..., "aux2": ...}`. For inference,
            build without them: the weights of the rest are the same, by name.
        width: Multiplier of all channels but the auxiliary heads', above 0; other than 1, rounded to multiples of 8.
        style: Padding and batch normalization; with `PLAIN`, convolutions have biases instead.
        input_shape: (height, width, channels): sides of at least 32 pixels, 1+ channels; None leaves a side open.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives the last map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the last map of each resolution, `{"stride_2": ..., ..., "stride_32": ...}`.
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes), or three of these with `auxiliary`.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    if auxiliary and (features_only or not include_top):
        raise InvalidArgumentError(
            "`auxiliary` needs a model with its top. "
            f"Received: auxiliary={auxiliary}, include_top={include_top}, features_only={features_only}."
        )

    def scaled(channels: int) -> int:
        return channels if width == 1 else make_divisible(channels * width)

    def response_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:  # Caffe divides its alpha by the size
        return LocalResponseNorm(size=5, alpha=1e-4 / 5, beta=0.75, bias=1.0, name=name)(x)

    images = image_input(input_shape, input_tensor)
    features, inner = {}, {}
    x = conv_bn(images, scaled(64), 7, stride=2, activation="relu", style=style, name="stem")
    features["stride_2"] = x
    x = max_pool_ceil(x, 3, name="stem_pool")
    if response_norms:
        x = response_norm(x, name="stem_norm")
    x = conv_bn(x, scaled(64), 1, activation="relu", style=style, name="stem_reduce")
    x = conv_bn(x, scaled(192), 3, activation="relu", style=style, name="stem_expand")
    if response_norms:
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
    if features_only:
        return feature_model(images, features, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    head = {"classes": classes, "classifier_activation": classifier_activation}
    model = classifier(images, x, dropout=dropout, name=name, **head)
    if not auxiliary:
        return model
    outputs = {"classifier": model.output}
    for key, x in inner.items():
        outputs[key] = auxiliary_classifier(x, dropout=AUXILIARY_DROPOUT, style=style, name=key, **head)
    return keras.Model(model.input, outputs, name=name)
