"""Conditional convolution: each image mixes its own kernel from a few experts."""

import keras
from keras import ops

from keraslight.layers._convolution import check_convolution, output_sides, zero_padding


@keras.saving.register_keras_serializable(package="keraslight")
class ConditionalConv2D(keras.layers.Layer):
    """(B, H, W, C) -> (B, H', W', filters): a convolution with a kernel of each image's own.

    `y = x * (r_1 W_1 + ... + r_n W_n) + (r_1 b_1 + ... + r_n b_n)` with `r = sigmoid(mean(x) R + c)`, the mean over H
    and W: as many parameters as `n` convolutions, but one convolution's work. The routing bias `c` is the authors'
    code's; the paper prints `r = sigmoid(mean(x) R)`, which it starts as. `R` is drawn as a dense layer's kernel.

    n * (k * k * C * F + F) + (C + 1) * n parameters. An image costs H' * W' * k * k * C * F multiply-adds as a plain
    convolution, and n * k * k * C * F to mix the kernel: little if H' * W' is much more than n.
    The map's k * k shifted copies are multiplied with the mixed kernels (B matrix products), as no backend convolves
    with a kernel per image. So the layer runs on each of them and converts to LiteRT with builtin operators (slices and
    BATCH_MATMUL); int8 files quantize the mixed kernels with one scale for all channels, unlike a convolution's.
    It needs memory for B * H' * W' * k * k * C values.
    Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019,
    https://arxiv.org/abs/1904.04971, section 3, equations 1 and 2.

    Args:
        filters: Output channels F, at least 1.
        kernel_size: Side k of the square kernel, at least 1.
        experts: Number of kernels n, at least 1; 4 to 32 in the paper, 8 mostly.
        strides: Step in both directions, at least 1.
        padding: "same" (as TensorFlow pads) or "valid".
        use_bias: Whether each expert has a bias.
        kernel_initializer: Of each expert's kernel (k, k, C, F), drawn one by one.
        kernel_regularizer: As in `keras.layers.Conv2D`; of the kernels of all experts together.

    Raises:
        InvalidArgumentError: an argument is out of its range, or the input is smaller than the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        experts: int = 8,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_convolution(padding, filters=filters, kernel_size=kernel_size, experts=experts, strides=strides)
        self.filters, self.kernel_size, self.experts = filters, kernel_size, experts
        self.strides, self.padding, self.use_bias = strides, padding, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.compute_output_shape(input_shape)  # refuses an input that is too small
        channels = input_shape[-1]
        shape = (self.kernel_size, self.kernel_size, channels, self.filters)

        def one_by_one(whole, dtype=None):  # in one draw the experts' axis would count as receptive field
            return ops.stack([self._initializer(expert)(whole[1:], dtype=dtype) for expert in range(whole[0])])

        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.experts, *shape),
            initializer=one_by_one,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.experts, self.filters), initializer="zeros")
        self.routing_kernel = self.add_weight(
            name="routing_kernel", shape=(channels, self.experts), initializer="glorot_uniform"
        )
        self.routing_bias = self.add_weight(name="routing_bias", shape=(self.experts,), initializer="zeros")

    def call(self, inputs):
        routing = ops.sigmoid(ops.matmul(ops.mean(inputs, axis=(1, 2)), self.routing_kernel) + self.routing_bias)
        columns = self.kernel_size**2 * inputs.shape[-1]
        kernels = ops.matmul(routing, ops.reshape(self.kernel, (self.experts, columns * self.filters)))

        patches, sides = self._patches(inputs)
        patches = ops.reshape(patches, (-1, sides[0] * sides[1], columns))
        x = ops.matmul(patches, ops.reshape(kernels, (-1, columns, self.filters)))
        if self.use_bias:
            x = x + ops.expand_dims(ops.matmul(routing, self.bias), 1)
        return ops.reshape(x, (-1, *sides, self.filters))

    def _initializer(self, expert: int):
        """The kernel's initializer with a seed of this expert's own: one initializer draws the same each time."""
        initializer = self.kernel_initializer
        if not isinstance(initializer, keras.Initializer):
            return initializer  # a function
        config = initializer.get_config()
        if isinstance(config.get("seed"), int):
            config["seed"] += expert
        return type(initializer).from_config(config)

    def _patches(self, inputs) -> tuple:
        """What each output pixel sees, (B, H', W', k * k * C), and (H', W'): numbers where they are known."""
        k, strides = self.kernel_size, self.strides
        pads = [zero_padding(side, k, strides, self.padding) for side in ops.shape(inputs)[1:3]]
        x = ops.pad(inputs, ((0, 0), *pads, (0, 0))) if self.padding == "same" else inputs
        height, width = ((side - k) // strides + 1 for side in ops.shape(x)[1:3])
        rows, columns = (height - 1) * strides + 1, (width - 1) * strides + 1
        shifted = [x[:, i : i + rows : strides, j : j + columns : strides] for i in range(k) for j in range(k)]
        return ops.concatenate(shifted, axis=-1), (height, width)

    def compute_output_shape(self, input_shape):
        sides = output_sides(input_shape, self.kernel_size, self.strides, self.padding)
        return (input_shape[0], *sides, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "experts": self.experts,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
