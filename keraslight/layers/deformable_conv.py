"""Deformable convolution: a kernel whose points move depending on the input."""

from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, check_convolution, output_sides, saved, zero_padding
from keraslight.layers.grouped_conv import GroupedConv2D


@keras.saving.register_keras_serializable(package="keraslight")
class DeformableConv2D(keras.layers.Layer):
    """(B, H, W, C) -> (B, H', W', filters): a convolution that reads each kernel point at an offset.

    `y(p) = sum over k of w_k * x(p + p_k + dp_k) * dm_k + bias`, where `p_k` is the kernel's regular grid. A second
    convolution of the same input, `offset_conv`, computes the offsets `dp_k` in pixels and, with `modulated`, the
    weights `dm_k = sigmoid(...)`. `x` is interpolated bilinearly between pixels and is 0 outside the map. `offset_conv`
    starts at 0, so the layer starts as a plain convolution (with `modulated` as half of one, since sigmoid(0) = 0.5).

    The channels of `offset_conv` are (dy, dx) of the first point, of the second and so on, row by row, then the
    weights, as for `torchvision.ops.deform_conv2d` with one offset group. The latter's kernels fit after transposing
    (F, C, kh, kw) -> (kh, kw, C, F). Positions are computed in float32 in half precision too. The layer runs on every
    Keras backend and converts to LiteRT with builtin operators (gather). It needs memory for B * H' * W' * k * k * C
    samples, and four times that for training.

    k * k * C * F + F parameters, and in `offset_conv` (k * k * C + 1) * 2 * k * k, or 3 * k * k with `modulated`.
    Sources: Dai et al., "Deformable Convolutional Networks", ICCV 2017, https://arxiv.org/abs/1703.06211, equations 2
    to 4; Zhu et al., "Deformable ConvNets v2", CVPR 2019, https://arxiv.org/abs/1811.11168, equation 1.

    Args:
        filters: Output channels F, at least 1.
        kernel_size: Side k of the square kernel, at least 1.
        strides: Step in both directions, at least 1.
        padding: "same" (as TensorFlow pads) or "valid".
        dilation_rate: Distance between the kernel's points in pixels, at least 1. Must be 1 with strides.
        modulated: Whether each point also has a weight (version 2).
        use_bias: Whether the output has a bias. `offset_conv` always has one.
        kernel_initializer: Initializer of `kernel`, as in `keras.layers.Conv2D`.
        kernel_regularizer: Regularizer of `kernel` alone, as in `keras.layers.Conv2D`.

    Raises:
        InvalidArgumentError: An argument is out of range, or the input is smaller than the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        dilation_rate: int = 1,
        modulated: bool = False,
        use_bias: bool = True,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        kernel_regularizer: str | keras.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_convolution(
            padding, filters=filters, kernel_size=kernel_size, strides=strides, dilation_rate=dilation_rate
        )
        if strides > 1 and dilation_rate > 1:  # the limit of keras.layers.Conv2D, which computes the offsets
            raise InvalidArgumentError(
                "`strides` and `dilation_rate` can't both be above 1. "
                f"Received: strides={strides}, dilation_rate={dilation_rate}."
            )
        self.filters, self.kernel_size, self.strides, self.padding = filters, kernel_size, strides, padding
        self.dilation_rate, self.modulated, self.use_bias = dilation_rate, modulated, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._reach = (kernel_size - 1) * dilation_rate + 1
        self.offset_conv = GroupedConv2D(  # Conv2D, except for a strided 1x1 kernel, whose gradient may crash there
            (3 if modulated else 2) * kernel_size**2,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            data_format="channels_last",
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="offset_conv",
        )

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)  # raises our own error for a small input
        self.offset_conv.build(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        points, channels = self.kernel_size**2, inputs.shape[-1]
        learned = self.offset_conv(inputs)
        batch, height, width, _ = ops.shape(inputs)  # numbers if they are known
        _, out_height, out_width, _ = ops.shape(learned)
        rows, columns = self._places(ops.cast(learned[..., : 2 * points], "float32"), height, width)

        # A frame of zeros for reads outside the map. A position at most one pixel outside has its upper left neighbor
        # there. Two more pixels at the end hold the lower right neighbors.
        framed = ops.pad(inputs, ((0, 0), (1, 2), (1, 2), (0, 0)))
        pixels = ops.reshape(framed, (-1, channels))
        first = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1, 1)) * ((height + 3) * (width + 3))

        top, left = ops.floor(rows), ops.floor(columns)
        down, right = rows - top, columns - left
        # Clipped again as integers, so that a NaN reads valid memory. Its weights are NaN, and so is the result.
        top, left = ops.clip(ops.cast(top, "int32"), -1, height), ops.clip(ops.cast(left, "int32"), -1, width)
        start = first + (top + 1) * (width + 3) + left + 1
        modulation = ops.cast(ops.sigmoid(learned[..., 2 * points :]), "float32") if self.modulated else 1.0
        samples = 0.0
        for step, share in (
            (0, (1 - down) * (1 - right)),
            (1, (1 - down) * right),
            (width + 3, down * (1 - right)),
            (width + 4, down * right),
        ):
            weights = ops.cast(ops.reshape(share * modulation, (-1, 1)), inputs.dtype)
            samples = samples + ops.take(pixels, ops.reshape(start + step, (-1,)), axis=0) * weights

        kernel = ops.reshape(self.kernel, (points * channels, self.filters))
        x = ops.matmul(ops.reshape(samples, (-1, points * channels)), kernel)
        if self.use_bias:
            x = x + self.bias
        return ops.reshape(x, (batch, out_height, out_width, self.filters))

    def _places(
        self, offsets: KerasTensor, height: int | KerasTensor, width: int | KerasTensor
    ) -> tuple[KerasTensor, KerasTensor]:
        """Returns the row and column at which each point (last axis) of each output pixel is read.

        Both are at most one pixel outside the map.
        """
        places = []
        for axis, side in ((0, height), (1, width)):
            k = self.kernel_size
            grid = [(n // k if axis == 0 else n % k) * self.dilation_rate for n in range(k * k)]
            starts = ops.arange(ops.shape(offsets)[axis + 1], dtype="float32") * self.strides
            before, _ = zero_padding(side, self._reach, self.strides, self.padding)
            starts = ops.reshape(starts - ops.cast(before, "float32"), (-1, 1, 1) if axis == 0 else (-1, 1))
            place = starts + ops.convert_to_tensor(grid, "float32") + offsets[..., axis::2]
            places.append(ops.clip(place, -1.0, ops.cast(side, "float32")))
        return places[0], places[1]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sides = output_sides(input_shape, self._reach, self.strides, self.padding)
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "modulated", "use_bias",
                 "kernel_initializer", "kernel_regularizer")  # fmt: skip
        return {**super().get_config(), **saved(self, *names)}
