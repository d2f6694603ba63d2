"""Layer normalization over the channels of every pixel."""

from typing import Any, ClassVar

import keras
from keras import KerasTensor, ops

from keraslight.layers._convolution import Shape


@keras.saving.register_keras_serializable(package="keraslight")
class LayerNorm(keras.layers.Layer):
    """(..., C) -> (..., C): `(x - mean) / sqrt(variance + epsilon) * gamma + beta`, statistics over the last axis.

    The maths of `keras.layers.LayerNormalization`, written with the square of the centred values and a reciprocal root,
    which the converter turns into int8 completely; the stock layer leaves a float negation. In half precision the
    statistics are computed in float32.
    Source: Ba et al., "Layer Normalization", https://arxiv.org/abs/1607.06450, equation 3.

    Args:
        epsilon: Constant added to the variance.
    """

    checkpoint_names: ClassVar = {"gamma": "weight", "beta": "bias"}

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        half = self.compute_dtype in ("float16", "bfloat16")
        x = ops.cast(inputs, "float32") if half else inputs
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        if half:
            x = ops.cast(x, self.compute_dtype)
        return x * self.gamma + self.beta

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
