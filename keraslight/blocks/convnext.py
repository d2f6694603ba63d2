"""ConvNeXt's parts: patches, downsampling, and the block of both versions.

Sources: Liu et al., "A ConvNet for the 2020s", CVPR 2022, https://arxiv.org/abs/2201.03545, figure 4; Woo et al.,
"ConvNeXt V2", CVPR 2023, https://arxiv.org/abs/2301.00808, figure 5.
"""

import keras
from keras import KerasTensor, layers

from keraslight.blocks.conv import activate
from keraslight.blocks.model import Head, classifier
from keraslight.blocks.residual import add_residual, scale_branch
from keraslight.layers import GRN, LayerNorm

EPSILON = 1e-6
"""Epsilon of all normalizations. Keras' own default is 1e-3."""


def patch_conv(x: KerasTensor, channels: int, side: int, *, name: str) -> KerasTensor:
    """Computes one value per channel from each patch: (B, H, W, C) -> (B, H // side, W // side, channels).

    Patches have `side` x `side` pixels. Remaining pixels that don't fill a patch are dropped.
    """
    return layers.Conv2D(channels, side, strides=side, kernel_initializer=_initializer(), name=name)(x)


def norm(x: KerasTensor, *, name: str) -> KerasTensor:
    """Layer normalization over the last axis."""
    return LayerNorm(EPSILON, name=name)(x)


def normalized_classifier(x: KerasTensor, head: Head) -> KerasTensor:
    """Applies global average pooling, layer normalization and a dense classifier: (B, H, W, C) -> (B, classes)."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    return classifier(norm(x, name="head_norm"), head)


def convnext_block(
    x: KerasTensor, *, grn: bool = False, layer_scale: float | None = None, drop_path: float = 0.0, name: str
) -> KerasTensor:
    """Depthwise 7x7, layer normalization, 1x1 to four times the channels, GELU, 1x1 back, residual.

    Args:
        x: (B, H, W, C).
        grn: Whether global response normalization follows the GELU (version 2).
        layer_scale: Initial value of a layer scale at the end of the branch (version 1). None for none.
        drop_path: Probability of dropping the branch, in [0, 1).

    Returns:
        (B, H, W, C).
    """
    inputs, channels = x, x.shape[-1]
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_initializer(), name=f"{name}_depthwise")(x)
    x = norm(x, name=f"{name}_norm")
    x = layers.Conv2D(4 * channels, 1, kernel_initializer=_initializer(), name=f"{name}_expand")(x)
    x = activate(x, "gelu", name=f"{name}_expand_act")
    if grn:
        x = GRN(EPSILON, name=f"{name}_grn")(x)
    x = layers.Conv2D(channels, 1, kernel_initializer=_initializer(), name=f"{name}_project")(x)
    x = scale_branch(x, layer_scale, name=name)
    return add_residual(inputs, x, drop_path=drop_path, name=name)


def _initializer() -> keras.Initializer:
    """Returns a uniform initializer with the papers' standard deviation of 0.02.

    The papers draw from a normal distribution, which would take a third of the time for building a model. Each layer
    gets its own object, since Keras warns about unseeded initializers that are used twice.
    """
    bound = 0.02 * 3**0.5
    return keras.initializers.RandomUniform(-bound, bound)
