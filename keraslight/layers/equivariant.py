"""Rotation-equivariant convolutions over C4, the four rotations by 90 degrees.

A map on the group carries each feature in four orientations. It is stored in four dimensions, (B, H, W, 4 * F), with
channel `r * F + f` for feature `f` in orientation `r` (r quarter turns counterclockwise), so that one plain convolution
computes it, pooling works as usual and LiteRT can convert it. When the input turns by a quarter, the maps turn with it
and each orientation's features move on to the next one: with `turn(x) = rot90(x, axes=(1, 2))` and the orientations as
an axis, `y(turn(x))[r] = turn(y(x)[r - 1])`.

Weights that differ between orientations break this. To share the weights of a batch normalization between the layers,
put `Reshape((H, W, 4, F))` before it and `Reshape((H, W, 4 * F))` after it. Activations and pooling need no care.

Source: Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016, https://arxiv.org/abs/1602.07576,
equations 10 (lifting) and 11 (group convolution); section 6.3 (pooling).
"""

from typing import Any

import keras
from keras import KerasTensor, ops

from keraslight.errors import InvalidArgumentError
from keraslight.layers._convolution import Shape, check_convolution, known_channels, output_sides, saved

ORIENTATIONS = 4


def _turn(kernel: KerasTensor, quarters: int) -> KerasTensor:
    """Turns a kernel (k, k, ...) counterclockwise, like `numpy.rot90`. Transposes and flips fold into a constant."""
    if quarters % 2:
        kernel = ops.flip(ops.swapaxes(kernel, 0, 1), axis=0)
    return ops.flip(kernel, axis=(0, 1)) if quarters >= 2 else kernel


class _C4Conv2D(keras.layers.Layer):
    """Arguments and convolution shared by lifting and group convolution."""

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        kernel_regularizer: str | keras.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_convolution(padding, filters=filters, kernel_size=kernel_size, strides=strides)
        if padding == "same" and kernel_size % 2 == 0:
            raise InvalidArgumentError(
                "`kernel_size` must be odd with `padding='same'`, which pads an even kernel unevenly. "
                f"Received: kernel_size={kernel_size}."
            )
        self.filters, self.kernel_size, self.strides, self.padding = filters, kernel_size, strides, padding
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, self._kernel_inputs(input_shape), self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:  # one for all orientations
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def _kernel_inputs(self, input_shape: Shape) -> int:
        return known_channels(input_shape)

    def _oriented_kernel(self, quarters: int) -> KerasTensor:
        return _turn(self.kernel, quarters)

    def call(self, inputs: KerasTensor) -> KerasTensor:
        strides = self.strides
        if self.kernel_size == 1 and strides > 1:
            # oneDNN's gradient of such a convolution crashes with few channels: see GroupedConv2D.
            inputs, strides = inputs[:, ::strides, ::strides], 1
        kernel = ops.concatenate([self._oriented_kernel(quarters) for quarters in range(ORIENTATIONS)], axis=-1)
        x = ops.conv(inputs, kernel, strides=strides, padding=self.padding, data_format="channels_last")
        return x + ops.tile(self.bias, (ORIENTATIONS,)) if self.use_bias else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._kernel_inputs(input_shape)
        sides = output_sides(input_shape, self.kernel_size, self.strides, self.padding)
        return (input_shape[0], *sides, ORIENTATIONS * self.filters)

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "strides", "padding", "use_bias",
                 "kernel_initializer", "kernel_regularizer")  # fmt: skip
        return {**super().get_config(), **saved(self, *names)}


@keras.saving.register_keras_serializable(package="keraslight")
class C4LiftingConv2D(_C4Conv2D):
    """(B, H, W, C) -> (B, H', W', 4 * filters): convolves an image with each kernel in four orientations.

    Orientation `r` of feature `f` is channel `r * filters + f`. Its kernel is turned by `r` quarters counterclockwise.
    This is the first layer of an equivariant network; `C4GroupConv2D` follows. It has k * k * C * F + F parameters,
    like a plain convolution to F channels, and costs four times as much.
    Source: Cohen and Welling 2016, https://arxiv.org/abs/1602.07576, equation 10.

    With strides, the equivariance is exact if the kernel's positions are symmetric on the map: H and W odd for an odd
    kernel at stride 2 (an even side works with an even kernel and "valid"). Otherwise it holds up to a shift of one
    pixel. A 2x2 pooling of even sides is exact.

    Args:
        filters: Number of features F, at least 1. The output has four times as many channels.
        kernel_size: Side k of the square kernel in pixels, at least 1, and odd for "same".
        strides: Step in both directions, at least 1.
        padding: "same" (zeros) or "valid".
        use_bias: Whether each feature has a bias, the same in all orientations.
        kernel_initializer: Initializer of the kernel, as in `keras.layers.Conv2D`.
        kernel_regularizer: Regularizer of the kernel, as in `keras.layers.Conv2D`.

    Raises:
        InvalidArgumentError: An argument is out of range, or the input is smaller than the kernel.
    """


@keras.saving.register_keras_serializable(package="keraslight")
class C4GroupConv2D(_C4Conv2D):
    """(B, H, W, 4 * C) -> (B, H', W', 4 * filters): convolves a map on the group, over position and orientation.

    For output orientation `r` the kernel is turned by `r` quarters, and its four input orientations move on by `r`.
    It has k * k * 4 * C * F + F parameters, and costs four times as much as a plain convolution of that size.
    Source: Cohen and Welling 2016, https://arxiv.org/abs/1602.07576, equation 11.

    Args:
        filters, kernel_size, strides, padding, use_bias, kernel_initializer, kernel_regularizer: See
            `C4LiftingConv2D`, which also says when strides are exact.

    Raises:
        InvalidArgumentError: The number of channels is not a multiple of 4, an argument is out of range, or the
            input is smaller than the kernel.
    """

    def _kernel_inputs(self, input_shape: Shape) -> int:
        return ORIENTATIONS * _features(input_shape)

    def _oriented_kernel(self, quarters: int) -> KerasTensor:
        kernel = _turn(self.kernel, quarters)
        start = (ORIENTATIONS - quarters) * (kernel.shape[2] // ORIENTATIONS)
        return ops.concatenate([kernel[:, :, start:], kernel[:, :, :start]], axis=2) if quarters else kernel


@keras.saving.register_keras_serializable(package="keraslight")
class C4GroupPooling(keras.layers.Layer):
    """(B, H, W, 4 * F) -> (B, H, W, F): each feature's maximum or mean over the four orientations.

    The result turns with the input. Also pooled over H and W, it is invariant to quarter turns. No parameters.
    Source: Cohen and Welling 2016, https://arxiv.org/abs/1602.07576, section 6.3.

    Args:
        mode: "max" or "mean".

    Raises:
        InvalidArgumentError: The mode is unknown, or the number of channels is not a multiple of 4.
    """

    def __init__(self, mode: str = "max", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("max", "mean"):
            raise InvalidArgumentError(f"`mode` must be 'max' or 'mean'. Received: mode={mode!r}.")
        self.mode = mode

    def build(self, input_shape: Shape) -> None:
        _features(input_shape)

    def call(self, inputs: KerasTensor) -> KerasTensor:
        first, second, third, fourth = ops.split(inputs, ORIENTATIONS, axis=-1)
        if self.mode == "max":
            return ops.maximum(ops.maximum(first, second), ops.maximum(third, fourth))
        return (first + second + third + fourth) / ORIENTATIONS

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], _features(input_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}


def _features(input_shape: Shape) -> int:
    channels = known_channels(input_shape)
    if channels % ORIENTATIONS:
        raise InvalidArgumentError(
            f"A map on C4 must have a multiple of 4 channels (lift an image first). Received: {channels} channels."
        )
    return channels // ORIENTATIONS
