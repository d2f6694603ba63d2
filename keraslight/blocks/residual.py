"""The end of a residual branch: layer scale, drop path, add."""

from __future__ import annotations

import keras
from keras import layers

from keraslight.layers import DropPath, LayerScale


def scale_branch(x: keras.KerasTensor, layer_scale: float | None, *, name: str) -> keras.KerasTensor:
    """Applies a layer scale that starts at `layer_scale`; None leaves `x` as it is. The shape stays."""
    return x if layer_scale is None else LayerScale(layer_scale, name=f"{name}_layer_scale")(x)


def add_residual(
    x: keras.KerasTensor, branch: keras.KerasTensor, *, drop_path: float = 0.0, name: str
) -> keras.KerasTensor:
    """`x + drop_path(branch)`, both (B, H, W, C). `drop_path` is the probability to leave the branch out, in [0, 1)."""
    if drop_path:
        branch = DropPath(drop_path, name=f"{name}_drop_path")(branch)
    return layers.Add(name=f"{name}_add")([x, branch])
