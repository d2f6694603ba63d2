"""Global response normalization: channels compete by their norms over the whole map."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keraslight")
class GRN(keras.layers.Layer):
    """(B, H, W, C) -> (B, H, W, C): `x + gamma * x * n + beta`, where `n` is each channel's norm over H and W, divided
    by the mean of these norms over C. `gamma` and `beta` start at 0, so the layer starts as the identity.

    In half precision the norms are computed in float32.
    Source: Woo et al., "ConvNeXt V2", CVPR 2023, https://arxiv.org/abs/2301.00808, equations 1 to 3 and algorithm 1.

    Args:
        epsilon: Added to the mean of the norms.
    """

    # A channel whose squares sum up to less counts as dead: the root's gradient at 0 is infinite, times 0 not a number.
    TINY = 1e-24

    def __init__(self, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="zeros")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs):
        half = self.compute_dtype in ("float16", "bfloat16")
        x = ops.cast(inputs, "float32") if half else inputs
        norms = ops.sqrt(ops.maximum(ops.sum(x * x, axis=(1, 2), keepdims=True), self.TINY))
        n = norms / (ops.mean(norms, axis=-1, keepdims=True) + self.epsilon)
        if half:
            n = ops.cast(n, self.compute_dtype)
        return inputs + self.gamma * (inputs * n) + self.beta

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
