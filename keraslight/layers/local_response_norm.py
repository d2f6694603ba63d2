"""AlexNet's normalization across neighbouring channels."""

from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape


@keras.saving.register_keras_serializable(package="keraslight")
class LocalResponseNorm(keras.layers.Layer):
    """(B, H, W, C) -> (B, H, W, C): `x / (bias + alpha * s) ** beta`, where `s` is the sum of `x * x` over the `size`
    channels around each channel (fewer at both ends).

    Source: Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NeurIPS 2012, section
    3.3. PyTorch and Caffe divide `alpha` by `size`; the paper and TensorFlow don't.

    Args:
        size: Number of channels in a window, odd.
        alpha, beta, bias: The paper's alpha, beta and k.

    Raises:
        InvalidArgumentError: `size` is not odd.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, bias: float = 2.0, **kwargs: Any
    ) -> None:
        if size < 1 or size % 2 == 0:
            raise InvalidArgumentError(f"`size` must be odd and at least 1. Received: size={size}.")
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def call(self, inputs: KerasTensor) -> KerasTensor:
        channels, side = inputs.shape[-1], self.size // 2
        squares = ops.pad(inputs * inputs, [[0, 0], [0, 0], [0, 0], [side, side]])
        total = sum(squares[..., start : start + channels] for start in range(self.size))
        return inputs * (self.bias + self.alpha * total) ** -self.beta

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.bias}
