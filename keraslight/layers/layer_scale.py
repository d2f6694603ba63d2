"""Layer scale: one learned factor a channel at the end of a residual branch."""

import keras


@keras.saving.register_keras_serializable(package="keraslight")
class LayerScale(keras.layers.Layer):
    """(..., C) -> (..., C): `y = x * gamma`, with one learned `gamma` a channel.

    Source: Touvron et al., "Going deeper with Image Transformers", https://arxiv.org/abs/2103.17239, equation 4.

    Args:
        init_values: Start value of every `gamma`; small (1e-6 to 0.1), so that a deep net starts near the identity.
    """

    def __init__(self, init_values: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.init_values = init_values

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma", shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.init_values)
        )

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "init_values": self.init_values}
