"""LeNet-5's output layer."""

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, known_channels


@keras.saving.register_keras_serializable(package="keraslight")
class CodeDistance(keras.layers.Layer):
    """(B, C) -> (B, classes): minus the squared distance between `x` and the fixed code of each class.

    Codes consist of -1 and 1. The softmax of the output is what the paper's criterion compares (equation 9). Nothing is
    learned. The codes are random, which the paper offers as an alternative to its own drawings of characters.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, equation 7.

    Args:
        classes: Number of classes, at least 1.
        seed: Seed of the codes.

    Raises:
        InvalidArgumentError: `classes` is out of range.
    """

    def __init__(self, classes: int, seed: int = 0, **kwargs: Any) -> None:
        if classes < 1:
            raise InvalidArgumentError(f"`classes` must be at least 1. Received: classes={classes}.")
        super().__init__(**kwargs)
        self.classes, self.seed = classes, seed

    def build(self, input_shape: Shape) -> None:
        self.codes = np.random.default_rng(self.seed).choice([-1.0, 1.0], (known_channels(input_shape), self.classes))

    def call(self, inputs: KerasTensor) -> KerasTensor:
        codes = ops.convert_to_tensor(self.codes, inputs.dtype)
        return 2 * ops.matmul(inputs, codes) - ops.sum(inputs * inputs, axis=-1, keepdims=True) - self.codes.shape[0]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "seed": self.seed}
