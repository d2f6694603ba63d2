"""Layers that do `scale * x + shift` channel by channel at inference."""

from __future__ import annotations

import keras
import numpy as np

from keraslight.layers import BatchNorm, LayerScale

Affine = tuple[np.ndarray, np.ndarray]


def read(layer) -> Affine | None:
    """The scale and the shift of such a layer over the last axis, in float64, each (C,) or (); None for another layer.

    The exact classes only: a subclass may compute something else. So keraslight's `ImageNormalization` is none.
    """
    kind = type(layer)
    if kind in (keras.layers.BatchNormalization, BatchNorm):
        return scale_and_shift(layer) if layer.axis in (-1, rank(layer) - 1) else None
    if kind is LayerScale:
        return np.asarray(layer.gamma, np.float64), np.zeros(())
    if kind is keras.layers.Rescaling:
        scale, shift = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
        return (scale, shift) if max(scale.ndim, shift.ndim) < 2 else None
    if kind is keras.layers.Normalization and not layer.invert and tuple(layer.axis) in ((-1,), (rank(layer) - 1,)):
        mean, variance = (np.asarray(value, np.float64).reshape(-1) for value in (layer.mean, layer.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
        return scale, -mean * scale
    return None


def scale_and_shift(norm: keras.layers.BatchNormalization) -> Affine:
    """What a batch norm does at inference, `scale * x + shift`, in float64.

    `scale = gamma / sqrt(variance + epsilon)`, `shift = beta - scale * mean`.
    """
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    return scale, (np.asarray(norm.beta) if norm.center else 0) - mean * scale


def rank(layer) -> int:
    """The number of dimensions of a layer's input."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    return len(shape) if shape is not None else 0  # 0: a Normalization that was built by hand; only axis -1 counts
