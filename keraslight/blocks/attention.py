"""Channel attention.

Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507, figure 1.
"""

from __future__ import annotations

import keras
from keras import layers

from keraslight.blocks.conv import activate
from keraslight.errors import InvalidArgumentError


def squeeze_excite(
    x: keras.KerasTensor, squeezed: int, *, activation: str = "relu", gate: str = "sigmoid", name: str
) -> keras.KerasTensor:
    """Scales every channel by a gate in 0..1 that is computed from the means of all channels.

    The means stay 4-D and the two dense layers are 1x1 convolutions with bias: the form that converters quantize.

    Args:
        x: (B, H, W, C).
        squeezed: Width of the layer between, at least 1. Families count it from different widths (the block's input in
            EfficientNet, the expanded one in MobileNetV3) and round differently, so the caller computes it.
        activation: After the first convolution; see `keraslight.blocks.conv.activate`.
        gate: After the second one, `"sigmoid"` or `"hard_sigmoid"` (`relu6(x + 3) / 6`).
        name: The layers are called `{name}_mean`, `_reduce`, `_reduce_act`, `_expand`, `_gate` and `_scale`.

    Returns:
        (B, H, W, C).

    Raises:
        InvalidArgumentError: `squeezed` is below 1.
    """
    if squeezed < 1:
        raise InvalidArgumentError(f"`squeezed` must be at least 1. Received: squeezed={squeezed}.")
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = layers.Conv2D(squeezed, 1, name=f"{name}_reduce")(y)
    y = activate(y, activation, name=f"{name}_reduce_act")
    y = layers.Conv2D(x.shape[-1], 1, name=f"{name}_expand")(y)
    y = activate(y, gate, name=f"{name}_gate")
    return layers.Multiply(name=f"{name}_scale")([x, y])
