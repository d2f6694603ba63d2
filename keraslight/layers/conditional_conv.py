"""Conditional convolution: each image mixes its own kernel from a few experts."""

from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.layers._convolution import Shape, check_convolution, known_channels, output_sides, saved, zero_padding


@keras.saving.register_keras_serializable(package="keraslight")
class ConditionalConv2D(keras.layers.Layer):
    """(B, H, W, C) -> (B, H', W', filters): a convolution with a different kernel for each image.

    `y = x * (r_1 W_1 + ... + r_n W_n) + (r_1 b_1 + ... + r_n b_n)` with `r = sigmoid(mean(x) R + c)`, the mean over H
    and W: as many parameters as `n` convolutions at the cost of one. The routing bias `c` is from the authors' code.
    The paper has `r = sigmoid(mean(x) R)`, which is what the layer starts with. `R` is initialized like a dense
    layer's kernel.

    n * (k * k * C * F + F) + (C + 1) * n parameters. An image costs H' * W' * k * k * C * F multiply-adds, like a plain
    convolution, plus n * k * k * C * F to mix the kernel, which is little if H' * W' is much larger than n.
    No backend convolves with one kernel per image, so k * k shifted copies of the map are multiplied with the mixed
    kernels (B matrix products). The layer therefore runs on every backend and converts to LiteRT with builtin operators
    (slices and BATCH_MATMUL). Int8 files quantize the mixed kernels with one scale for all channels, unlike those of a
    convolution. It needs memory for B * H' * W' * k * k * C values.
    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019,
    https://arxiv.org/abs/1904.04971, section 3, equations 1 and 2.

    Args:
        filters: Output channels F, at least 1.
        kernel_size: Side k of the square kernel, at least 1.
        experts: Number of kernels n, at least 1. The paper uses 4 to 32, usually 8.
        strides: Step in both directions, at least 1.
        padding: "same" (as TensorFlow pads) or "valid".
        use_bias: Whether each expert has a bias.
        kernel_initializer: Initializer of each expert's kernel (k, k, C, F), drawn one by one.
        kernel_regularizer: Regularizer of the kernels of all experts together, as in `keras.layers.Conv2D`.

    Raises:
        InvalidArgumentError: An argument is out of range, or the input is smaller than the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        experts: int = 8,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        kernel_regularizer: str | keras.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_convolution(padding, filters=filters, kernel_size=kernel_size, experts=experts, strides=strides)
        self.filters, self.kernel_size, self.experts = filters, kernel_size, experts
        self.strides, self.padding, self.use_bias = strides, padding, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)  # raises for an input that is too small
        channels = known_channels(input_shape)
        shape = (self.kernel_size, self.kernel_size, channels, self.filters)

        def one_by_one(whole: tuple[int, ...], dtype: str | None = None) -> KerasTensor:
            # In a single draw, the experts' axis would count as receptive field.
            return ops.stack([self._initializer(expert)(whole[1:], dtype=dtype) for expert in range(whole[0])])

        self.kernel = self.add_weight(
            name="kernel", shape=(self.experts, *shape), initializer=one_by_one, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.experts, self.filters), initializer="zeros")
        self.routing_kernel = self.add_weight(
            name="routing_kernel", shape=(channels, self.experts), initializer="glorot_uniform"
        )
        self.routing_bias = self.add_weight(name="routing_bias", shape=(self.experts,), initializer="zeros")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        routing = ops.sigmoid(ops.matmul(ops.mean(inputs, axis=(1, 2)), self.routing_kernel) + self.routing_bias)
        columns = self.kernel_size**2 * inputs.shape[-1]
        kernels = ops.matmul(routing, ops.reshape(self.kernel, (self.experts, columns * self.filters)))

        patches, sides = self._patches(inputs)
        patches = ops.reshape(patches, (-1, sides[0] * sides[1], columns))
        x = ops.matmul(patches, ops.reshape(kernels, (-1, columns, self.filters)))
        if self.use_bias:
            x = x + ops.expand_dims(ops.matmul(routing, self.bias), 1)
        return ops.reshape(x, (-1, *sides, self.filters))

    def _initializer(self, expert: int) -> keras.Initializer:
        """Returns the kernel's initializer with this expert's own seed: one initializer always draws the same."""
        initializer = self.kernel_initializer
        if not isinstance(initializer, keras.Initializer):
            return initializer  # a function
        config = initializer.get_config()
        if isinstance(config.get("seed"), int):
            config["seed"] += expert
        return type(initializer).from_config(config)

    def _patches(self, inputs: KerasTensor) -> tuple[KerasTensor, tuple[KerasTensor, KerasTensor]]:
        """Returns what each output pixel sees, (B, H', W', k * k * C), and (H', W'), which are numbers if known."""
        k, strides = self.kernel_size, self.strides
        pads = [zero_padding(side, k, strides, self.padding) for side in ops.shape(inputs)[1:3]]
        x = ops.pad(inputs, ((0, 0), *pads, (0, 0))) if self.padding == "same" else inputs
        height, width = ((side - k) // strides + 1 for side in ops.shape(x)[1:3])
        rows, columns = (height - 1) * strides + 1, (width - 1) * strides + 1
        shifted = [x[:, i : i + rows : strides, j : j + columns : strides] for i in range(k) for j in range(k)]
        return ops.concatenate(shifted, axis=-1), (height, width)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sides = output_sides(input_shape, self.kernel_size, self.strides, self.padding)
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "experts", "strides", "padding", "use_bias",
                 "kernel_initializer", "kernel_regularizer")  # fmt: skip
        return {**super().get_config(), **saved(self, *names)}
