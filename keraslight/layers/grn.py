"""Global response normalization: channels compete by their norms over the whole map."""

from typing import Any, ClassVar

import keras
from keras import KerasTensor, ops

from keraslight.layers._convolution import Shape


@keras.saving.register_keras_serializable(package="keraslight")
class GRN(keras.layers.Layer):
    """(B, H, W, C) -> (B, H, W, C): `x + gamma * x * n + beta`, where `n` is each channel's norm over H and W, divided
    by the mean of these norms over C. `gamma` and `beta` start at 0, so the layer starts as the identity.

    In half precision the norms are computed in float32.
    Source: Woo et al., "ConvNeXt V2", CVPR 2023, https://arxiv.org/abs/2301.00808, equations 1 to 3 and algorithm 1.

    Args:
        epsilon: Constant added to the mean of the norms.
    """

    # A channel whose squares sum to less counts as dead: the root's gradient at 0 is infinite, and times 0 it is NaN.
    TINY = 1e-24

    checkpoint_names: ClassVar = {"gamma": "weight", "beta": "bias"}

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="zeros")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        half = self.compute_dtype in ("float16", "bfloat16")
        x = ops.cast(inputs, "float32") if half else inputs
        norms = ops.sqrt(ops.maximum(ops.sum(x * x, axis=(1, 2), keepdims=True), self.TINY))
        n = norms / (ops.mean(norms, axis=-1, keepdims=True) + self.epsilon)
        if half:
            n = ops.cast(n, self.compute_dtype)
        return inputs + self.gamma * (inputs * n) + self.beta

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
