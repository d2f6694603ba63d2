"""LeNet-5: gradient-based learning applied to document recognition.

Source: LeCun et al., Proceedings of the IEEE 1998, section II.B and table I. `lenet5_paper` is that network: C3 reads
only some of the maps (table I), S2 and S4 learn a factor and a bias a map, the output compares F6 with a fixed code of
each class. Its departures: plain tanh for 1.7159 tanh(2/3 a), random codes (which the paper offers) for
drawn characters, and S2 and S4 take the mean of four pixels, where the paper has the sum (the factor takes that up).
`lenet5_modern` is the usual remake: C3 reads all maps, plain average pooling, a dense classifier.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import activate
from keraslight.blocks.model import backbone, classifier, drop, feature_model, fully_connected, image_input
from keraslight.layers import ChannelSlice, CodeDistance
from keraslight.registry import Variant, register

# The maps of S2 that each map of C3 reads: a run of maps, which wraps around, or several.
TABLE_I = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

VARIANTS = {  # keywords, input size, parameters, MACs, published checkpoint; channels, classes
    "lenet5_paper": Variant({"table": TABLE_I}, 32, 60_000, 328_096, None, 1, 10),
    "lenet5_modern": Variant({"table": None}, 32, 61_706, 416_520, None, 1, 10),
}


@register(VARIANTS, prefix="lenet5_")
def LeNet5(
    *,
    table: tuple[tuple[int, ...], ...] | None,
    width: float = 1.0,
    input_shape: tuple[int | None, int | None, int],
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    classes: int = 10,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    features_only: bool = False,
    dropout: float = 0.0,
    name: str,
) -> keras.Model:
    """Builds a LeNet-5 image classifier.

    Args:
        table: The maps that each map of C3 reads, with learned subsampling and a fixed output layer; None builds the
            usual remake. Given by `variant`.
        width: Multiplier of the channels, more than 0; with a table, which names six maps, of C5 and F6 only.
        input_shape: (height, width, channels): sides of at least 28 pixels or None (at least 32), 1+ channels. None
            is 32 x 32 with 1 channel. Below 32 pixels the first convolution pads by two pixels.
        input_tensor: A Keras tensor to build on instead of a new input.
        include_top: Whether to end in the classifier; otherwise the model gives S4's map.
        classes: Number of classes.
        classifier_activation: None returns logits.
        pooling: Without the top: None, "avg" or "max".
        features_only: Return the maps of S2 and S4, `{"stride_2": ..., "stride_4": ...}`.
        dropout: Before the classifier, in [0, 1).
        name: The model's name.

    Returns:
        A model (B, H, W, C) float32 -> (B, classes). Larger images are averaged over all places of F6.

    Raises:
        InvalidArgumentError: an argument is out of its range.
    """
    images = image_input(input_shape, input_tensor, min_size=28)
    small = any(side is not None and side < 32 for side in images.shape[1:3])

    def scaled(channels: int, fixed: bool = False) -> int:
        return channels if fixed else max(1, round(channels * width))

    learned = table is not None
    x = layers.Conv2D(scaled(6, learned), 5, padding="same" if small else "valid", name="c1")(images)
    x = activate(x, "tanh", name="c1_act")
    x = _subsample(x, learned, name="s2")
    features = {"stride_2": x}
    x = _table_conv(x, table, name="c3") if learned else layers.Conv2D(scaled(16), 5, name="c3")(x)
    x = activate(x, "tanh", name="c3_act")
    x = _subsample(x, learned, name="s4")
    features["stride_4"] = x
    if features_only:
        return feature_model(images, features, name=name)
    if not include_top:
        return backbone(images, x, pooling=pooling, name=name)
    x = fully_connected(x, scaled(120), side=5, activation="tanh", name="c5")
    x = fully_connected(x, scaled(84), activation="tanh", name="f6")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if not learned:
        return classifier(
            images, x, classes=classes, classifier_activation=classifier_activation, dropout=dropout, name=name
        )
    x = CodeDistance(classes, name="classifier")(drop(x, dropout, name="dropout"))
    return backbone(images, activate(x, classifier_activation, name="probabilities"), name=name)


def _subsample(x: keras.KerasTensor, learned: bool, *, name: str) -> keras.KerasTensor:
    """(B, H, W, C) -> (B, H // 2, W // 2, C): means of 2x2 pixels; where learned, times a factor plus a bias, tanh."""
    x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    if learned:
        x = layers.DepthwiseConv2D(1, depthwise_initializer="ones", name=name)(x)
        x = activate(x, "tanh", name=f"{name}_act")
    return x


def _table_conv(x: keras.KerasTensor, table: tuple[tuple[int, ...], ...], *, name: str) -> keras.KerasTensor:
    """5x5 convolutions of one map each, which read only the channels that the table names."""
    maps = [ChannelSlice(c, c + 1, name=f"{name}_input{c}")(x) for c in range(x.shape[-1])]
    outputs = []
    for i, row in enumerate(table):
        chosen = layers.Concatenate(name=f"{name}_map{i}_inputs")([maps[c] for c in row])
        outputs.append(layers.Conv2D(1, 5, name=f"{name}_map{i}")(chosen))
    return layers.Concatenate(name=f"{name}_concat")(outputs)
