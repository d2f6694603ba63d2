"""DenseNet's parts: the layer that appends channels to its input, and the transition between blocks.

Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, https://arxiv.org/abs/1608.06993,
equation 2 and section 3 (DenseNet-BC).
"""

from keras import KerasTensor, layers

from keraslight.blocks.conv import TORCH, ConvStyle, activate, batch_norm, conv_bn


def norm_act(x: KerasTensor, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Batch normalization and ReLU before a convolution, in layers named `{name}_norm` and `{name}_norm_act`."""
    return activate(batch_norm(x, style=style, name=f"{name}_norm"), "relu", name=f"{name}_norm_act")


def dense_layer(
    x: KerasTensor, growth: int, *, bottleneck: int = 4, style: ConvStyle = TORCH, name: str
) -> KerasTensor:
    """Appends `growth` new channels to the input: `[x, conv3x3(relu(bn(conv1x1(relu(bn(x))))))]`.

    With M = bottleneck * growth, it has C * M + 9 * M * growth weights and 2 * (C + M) for the normalizations. Every
    layer reads and normalizes its whole input again, so memory traffic is higher than the multiply-adds suggest.

    Args:
        x: (B, H, W, C).
        growth: Number of new channels, at least 1.
        bottleneck: Channels of the 1x1 convolution, as a multiple of `growth`.
        style: Padding and batch normalization.
        name: The layers are `{name}_norm`, `{name}_reduce`, `{name}_grow` and `{name}_concat`.

    Returns:
        (B, H, W, C + growth).
    """
    y = norm_act(x, style=style, name=name)
    y = conv_bn(y, bottleneck * growth, 1, activation="relu", style=style, name=f"{name}_reduce")
    y = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"{name}_grow")(y)
    return layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(x: KerasTensor, channels: int, *, style: ConvStyle = TORCH, name: str) -> KerasTensor:
    """Reduces channels and halves sides: batch normalization, ReLU, 1x1 convolution, 2x2 average pooling.

    It has C * F weights and 2 * C for the normalization.

    Args:
        x: (B, H, W, C), sides of at least 2 pixels.
        channels: Output channels F. The paper uses C / 2.
        style: Batch normalization.
        name: The layers are `{name}_norm`, `{name}` and `{name}_pool`.

    Returns:
        (B, H // 2, W // 2, F).
    """
    x = norm_act(x, style=style, name=name)
    x = layers.Conv2D(channels, 1, use_bias=False, name=name)(x)
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)
