"""LeNet-5: gradient-based learning applied to document recognition.

Source: LeCun et al., Proceedings of the IEEE 1998, section II.B and table I. `lenet5_paper` is that network: C3 reads
only some of the maps (table I), S2 and S4 learn one factor and one bias per map, and the output compares F6 with a
fixed code for each class. It differs in three points: plain tanh instead of 1.7159 tanh(2/3 a), random codes (which the
paper offers as an alternative) instead of drawn characters, and S2 and S4 take the mean of four pixels instead of their
sum (the factor absorbs the difference).
`lenet5_modern` is the usual remake: C3 reads all maps, plain average pooling, a dense classifier.
"""

from keras import KerasTensor, layers

from keraslight.blocks.conv import activate
from keraslight.blocks.family import register
from keraslight.blocks.model import Head, Network, classifier, drop, fully_connected
from keraslight.blocks.shuffle import split_channels
from keraslight.layers import CodeDistance
from keraslight.registry import Variant

# The maps of S2 that each map of C3 reads: one run of maps, which wraps around, or several.
TABLE_I = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

VARIANTS = {  # arguments, input size, parameters, MACs, published checkpoint; channels, classes
    "lenet5_paper": Variant({"table": TABLE_I}, 32, 60_000, 328_096, None, 1, 10),
    "lenet5_modern": Variant({"table": None}, 32, 61_706, 416_520, None, 1, 10),
}


@register(VARIANTS, prefix="lenet5_", min_size=28)
def LeNet5(images: KerasTensor, *, table: tuple[tuple[int, ...], ...] | None, width: float = 1.0) -> Network:
    """Builds a LeNet-5 image classifier.

    On larger images, the output is averaged over all positions of F6. The features are the maps of S2 and S4.

    Args:
        table: Maps that each map of C3 reads, for the network with learned subsampling and a fixed output layer. None
            builds the usual remake.
        width: Multiplier of the channels, above 0. With a table, which names six maps, only of C5 and F6.
        input_shape: (height, width, channels), with sides of at least 28 pixels or None (at least 32), and at least 1
            channel. None uses 32 x 32 pixels and 1 channel. Below 32 pixels the first convolution pads by two pixels.
    """
    small = any(side is not None and side < 32 for side in images.shape[1:3])
    learned = table is not None

    def scaled(channels: int, fixed: bool = False) -> int:
        return channels if fixed else max(1, round(channels * width))

    x = layers.Conv2D(scaled(6, learned), 5, padding="same" if small else "valid", name="c1")(images)
    x = activate(x, "tanh", name="c1_act")
    x = _subsample(x, learned, name="s2")
    features = {"stride_2": x}
    x = layers.Conv2D(scaled(16), 5, name="c3")(x) if table is None else _table_conv(x, table, name="c3")
    x = activate(x, "tanh", name="c3_act")
    x = _subsample(x, learned, name="s4")
    features["stride_4"] = x

    def top(x: KerasTensor, head: Head) -> KerasTensor:
        x = fully_connected(x, scaled(120), side=5, activation="tanh", name="c5")
        x = fully_connected(x, scaled(84), activation="tanh", name="f6")
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        if not learned:
            return classifier(x, head)
        x = CodeDistance(head.classes, name="classifier")(drop(x, head.dropout, name="dropout"))
        return activate(x, head.activation, name="probabilities")

    return Network(features, x, top)


def _subsample(x: KerasTensor, learned: bool, *, name: str) -> KerasTensor:
    """(B, H, W, C) -> (B, H // 2, W // 2, C): averages 2x2 pixels; if learned, followed by factor, bias and tanh."""
    x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    if learned:
        x = layers.DepthwiseConv2D(1, depthwise_initializer="ones", name=name)(x)
        x = activate(x, "tanh", name=f"{name}_act")
    return x


def _table_conv(x: KerasTensor, table: tuple[tuple[int, ...], ...], *, name: str) -> KerasTensor:
    """5x5 convolutions with one output map each, which read only the channels that the table names."""
    maps = split_channels(x, name=f"{name}_input")
    outputs = []
    for i, row in enumerate(table):
        chosen = layers.Concatenate(name=f"{name}_map{i}_inputs")([maps[c] for c in row])
        outputs.append(layers.Conv2D(1, 5, name=f"{name}_map{i}")(chosen))
    return layers.Concatenate(name=f"{name}_concat")(outputs)
