"""Statistics over one axis of a map, from which attention gates are computed."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from keraslight.layers._convolution import Shape


@keras.saving.register_keras_serializable(package="keraslight")
class ChannelStatistics(keras.layers.Layer):
    """(B, H, W, C) -> (B, H, W, 2): every pixel's mean and maximum over the channels. No parameters.

    A LiteRT file is exact in float32. In int8 the mean loses a lot (0.13 on normally distributed values with 6
    channels, where the maximum loses 0.01), so keep CBAM's spatial half in float there.

    Source: Woo et al., "CBAM", ECCV 2018, https://arxiv.org/abs/1807.06521, the pooled maps of equation 3.
    """

    def call(self, inputs: KerasTensor) -> KerasTensor:
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        return ops.concatenate([mean, ops.max(inputs, axis=-1, keepdims=True)], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], 2)


@keras.saving.register_keras_serializable(package="keraslight")
class CoordinatePooling(keras.layers.Layer):
    """(B, H, W, C) -> (B, H + W, 1, C): the means of the H rows, then those of the W columns. No parameters.

    Source: Hou et al., "Coordinate Attention", CVPR 2021, https://arxiv.org/abs/2103.02907, equations 4 and 5.
    """

    def call(self, inputs: KerasTensor) -> KerasTensor:
        rows = ops.mean(inputs, axis=2, keepdims=True)
        columns = ops.expand_dims(ops.mean(inputs, axis=1), 2)
        return ops.concatenate([rows, columns], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        rows = None if height is None or width is None else height + width
        return (batch, rows, 1, channels)


@keras.saving.register_keras_serializable(package="keraslight")
class CoordinateSplit(keras.layers.Layer):
    """Undoes the joining of `CoordinatePooling`: [(B, H + W, 1, F), (B, H, W, C)] -> [(B, H, 1, F), (B, 1, W, F)].

    Only the height and width of the second input are used, so they may be unknown until the model runs. No parameters.
    Source: see `CoordinatePooling`; the split before equation 7.
    """

    def call(self, inputs: Sequence[KerasTensor]) -> list[KerasTensor]:
        joined, image = inputs
        height = ops.shape(image)[1]
        return [joined[:, :height], ops.transpose(joined[:, height:], (0, 2, 1, 3))]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        (batch, _, _, channels), (_, height, width, _) = input_shape
        return [(batch, height, 1, channels), (batch, 1, width, channels)]
