"""ConvNeXt's pieces: patches, downsampling, and the block of both versions.

Sources: Liu et al., "A ConvNet for the 2020s", CVPR 2022, https://arxiv.org/abs/2201.03545, figure 4; Woo et al.,
"ConvNeXt V2", CVPR 2023, https://arxiv.org/abs/2301.00808, figure 5.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import activate
from keraslight.blocks.model import Head, classifier
from keraslight.blocks.residual import add_residual, scale_branch
from keraslight.layers import GRN, LayerNorm

EPSILON = 1e-6
"""Of every normalization; Keras' own default is 1e-3."""


def patch_conv(x: keras.KerasTensor, channels: int, side: int, *, name: str) -> keras.KerasTensor:
    """One value a channel from every patch of `side` x `side` pixels; (B, H, W, C) -> (B, H // side, W // side, F).

    A rest of pixels that fills no patch is left out.
    """
    return layers.Conv2D(channels, side, strides=side, kernel_initializer=_initializer(), name=name)(x)


def norm(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Layer normalization over the last axis; the shape stays."""
    return LayerNorm(EPSILON, name=name)(x)


def normalized_classifier(x: keras.KerasTensor, head: Head) -> keras.KerasTensor:
    """Applies global average pooling, layer normalization and a dense classifier: (B, H, W, C) -> (B, classes)."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    return classifier(norm(x, name="head_norm"), head)


def convnext_block(
    x: keras.KerasTensor,
    *,
    grn: bool = False,
    layer_scale: float | None = None,
    drop_path: float = 0.0,
    name: str,
) -> keras.KerasTensor:
    """Depthwise 7x7, layer normalization, 1x1 to four times the channels, GELU, 1x1 back, residual.

    Args:
        x: (B, H, W, C).
        grn: Whether global response normalization follows the GELU (version 2).
        layer_scale: Start value of a layer scale at the branch's end (version 1); None for none.
        drop_path: Probability to drop the branch, in [0, 1).

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
    """Uniform with the papers' standard deviation of 0.02; they draw from a normal distribution.

    That would take a third of the time in which a model is built. One object a layer, since Keras warns of an unseeded
    initializer that is used twice.
    """
    bound = 0.02 * 3**0.5
    return keras.initializers.RandomUniform(-bound, bound)
