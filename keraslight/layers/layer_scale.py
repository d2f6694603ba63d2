"""Layer scale: one learned factor per channel at the end of a residual branch."""

from typing import Any, ClassVar

import keras
from keras import KerasTensor

from keraslight.layers._convolution import Shape


@keras.saving.register_keras_serializable(package="keraslight")
class LayerScale(keras.layers.Layer):
    """(..., C) -> (..., C): `y = x * gamma`, with one learned `gamma` per channel.

    Source: Touvron et al., "Going deeper with Image Transformers", https://arxiv.org/abs/2103.17239, equation 4.

    Args:
        init_values: Initial value of every `gamma`, small (1e-6 to 0.1) so that a deep network starts near the
            identity.
    """

    checkpoint_names: ClassVar = {"gamma": "gamma"}

    def __init__(self, init_values: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_values = init_values

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(
            name="gamma", shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.init_values)
        )

    def call(self, inputs: KerasTensor) -> KerasTensor:
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "init_values": self.init_values}
