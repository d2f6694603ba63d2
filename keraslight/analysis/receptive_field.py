"""The part of the image that an output value can depend on, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import layers

from keraslight.analysis._graph import ELEMENTWISE_OPS, Call, behaves_like, operation_name, trace
from keraslight.errors import InvalidArgumentError
from keraslight.graph.kinds import AUGMENTATIONS
from keraslight.layers import (
    GRN,
    BatchNorm,
    C4GroupConv2D,
    C4GroupPooling,
    C4LiftingConv2D,
    ChannelSlice,
    ChannelStatistics,
    CodeDistance,
    ConditionalConv2D,
    CoordinatePooling,
    CoordinateSplit,
    DeformableConv2D,
    GroupedConv2D,
    ImageNormalization,
    LayerNorm,
    LayerScale,
    LocalResponseNorm,
    MaxPoolWithIndices2D,
    MaxUnpool2D,
)


class ReceptiveField(NamedTuple):
    """The theoretical receptive field of a layer's outputs.

    Attributes:
        name: The layer's name, `inner/conv` inside a nested model.
        size: (height, width) in pixels of the image, padding included, so it may exceed the image. Once every output
            sees the whole image, it is the image's size; None where that is open.
        stride: (vertical, horizontal) pixels of the image between neighbouring outputs; 0 where the outputs have no
            places, as after global pooling.
        center: (y, x) of the first output's field, where the image's first pixel has its centre at (0, 0); output
            (i, j) has its own at `center + (i, j) * stride`. The middle of the image where the field is all of it; None
            where that is open.
        whole: Whether the field is the whole image wherever the output lies.
    """

    name: str
    size: tuple[int | None, int | None]
    stride: tuple[int, int]
    center: tuple[float | None, float | None]
    whole: bool


class _Axis(NamedTuple):
    """Output `i` sees the pixels from `first + i * stride` to `last + i * stride`."""

    first: int
    last: int
    stride: int


class _Reach(NamedTuple):
    """What a tensor's values see.

    Attributes:
        axes: Vertical and horizontal.
        whole: Every value sees the whole image.
        grid: (height, width) if axis 1 of the tensor is a list of this grid's pixels, row by row.
        lost: The tensor's axes are no grid of pixels any more, though its values may still differ in what they see.
    """

    axes: tuple[_Axis, _Axis]
    whole: bool = False
    grid: tuple[int, int] | None = None
    lost: bool = False


_PIXEL = _Axis(0, 0, 1)
_NOWHERE = _Axis(0, 0, 0)
_ALL = _Reach((_NOWHERE, _NOWHERE), whole=True)

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    GroupedConv2D,
    C4LiftingConv2D,
    C4GroupConv2D,
    ConditionalConv2D,
    DeformableConv2D,
)
# A conditional convolution's kernel is chosen by the mean of its map, a deformable one's window may lie anywhere.
_SEEING_ALL = (ConditionalConv2D, DeformableConv2D)
_POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D, MaxPoolWithIndices2D)
# The smallest rectangle around a row and a column is the whole image too.
_GLOBAL_POOLINGS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, CoordinatePooling)
_ADAPTIVE_POOLINGS = (layers.AdaptiveAveragePooling2D, layers.AdaptiveMaxPooling2D)
_MERGES = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
# Each output value depends on its own pixel alone (batch norm: as in inference).
_POINTWISE = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.Identity,
    layers.Rescaling,
    layers.Normalization,
    layers.BatchNormalization,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    *AUGMENTATIONS,
    BatchNorm,
    C4GroupPooling,
    ChannelSlice,
    ChannelStatistics,
    CoordinateSplit,  # of what `CoordinatePooling` made; of the other input it takes the size alone
    ImageNormalization,
    LayerNorm,
    LayerScale,
    LocalResponseNorm,
)
# Normalizations: over the channels alone, or over pixels too.
_BY_AXIS = (layers.Softmax, layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization)
_OVER_ALL_PIXELS = (layers.GroupNormalization, GRN)


def receptive_field(model: keras.Model, input_shape: Sequence[int | None] | None = None) -> list[ReceptiveField]:
    """The theoretical receptive field of every layer: what it can see, not how much it looks at each pixel.

    A window of `k` pixels, `d` apart, on a map whose neighbours lie `s` image pixels from each other adds
    `(k - 1) * d * s` pixels; a stride multiplies `s`. Where branches meet, the field is the smallest rectangle around
    theirs. From the first squeeze-and-excitation, GRN, attention or deformable convolution (its window may lie
    anywhere) on, every output sees the whole image; so does everything after `Flatten`, which gives up the pixels'
    places (edge pixels that no window reaches are not left out).
    Source: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019,
    https://distill.pub/2019/computing-receptive-fields, equations 2 to 5.

    Args:
        model: A functional model of one image (B, H, W, C), channels last. Nested models are opened.
        input_shape: (H, W, C) where the model leaves sides open. "same" padding with a stride depends on the size.

    Returns:
        A record for every call of a layer, in the graph's order; a shared layer has several.

    Raises:
        InvalidArgumentError: a layer's field is not known or not a rectangle that moves by whole pixels (transposed
            convolution, upsampling, unpooling, stock attention layers, ...), branches with different strides meet, a
            size is needed, or the model is not one as described.
    """
    graph = trace(model, input_shape)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise InvalidArgumentError(
            "`model` must have one input, an image (B, H, W, C). "
            f"Received: inputs of shape {[tuple(t.shape) for t in graph.inputs]}."
        )
    image = tuple(graph.inputs[0].shape[1:3])
    reaches = {id(graph.inputs[0]): _Reach((_PIXEL, _PIXEL))}
    fields = []
    for call in graph.calls:
        reach = _follow(call, [reaches[id(t)] for t in call.inputs]) if call.inputs else reaches[id(call.outputs[0])]
        reaches.update((id(t), reach) for t in call.outputs)
        fields.append(_field(call.name, reach, image))
    return fields


def _field(name: str, reach: _Reach, image: tuple[int | None, int | None]) -> ReceptiveField:
    if reach.whole or reach.lost:
        stride = (0, 0) if reach.lost else (reach.axes[0].stride, reach.axes[1].stride)
        center = tuple(None if side is None else (side - 1) / 2 for side in image)
        return ReceptiveField(name, image, stride, center, True)
    v, h = reach.axes
    center = ((v.first + v.last) / 2, (h.first + h.last) / 2)
    return ReceptiveField(name, (v.last - v.first + 1, h.last - h.first + 1), (v.stride, h.stride), center, False)


def _follow(call: Call, reaches: list[_Reach]) -> _Reach:
    """What the outputs of a call see."""
    layer, reach = call.layer, reaches[0]
    shape, made = tuple(call.inputs[0].shape), tuple(call.outputs[0].shape)
    if getattr(layer, "data_format", None) == "channels_first":
        raise _refused(call, "Fields are followed through channels-last maps only")
    if behaves_like(layer, (*_CONVOLUTIONS, *_POOLINGS, layers.ZeroPadding2D, layers.Cropping2D, *_ADAPTIVE_POOLINGS)):
        if reach.lost or reach.grid:
            raise _refused(call, "A window needs a grid of pixels")
        axes = tuple(_windowed(call, axis, reach.axes[axis]) for axis in (0, 1))
        return reach._replace(axes=axes, whole=reach.whole or isinstance(layer, _SEEING_ALL))
    if behaves_like(layer, (*_GLOBAL_POOLINGS, layers.Dot)):
        return _ALL
    if behaves_like(layer, _OVER_ALL_PIXELS):
        return reach if reach.lost else reach._replace(whole=True)
    if behaves_like(layer, (layers.Flatten, layers.Reshape)):
        return _reshaped(call, reach, shape, made)
    if behaves_like(layer, (layers.Permute,)):
        kept = 1 if reach.grid else 2
        places = layer.dims[:kept] == tuple(range(1, kept + 1))
        return reach if places or _nowhere(reach) else reach._replace(lost=True)
    if behaves_like(layer, (layers.Dense, CodeDistance)):
        return _ALL if len(shape) == 2 else reach  # else every pixel on its own
    if behaves_like(layer, _BY_AXIS):
        axes = layer.axis if isinstance(layer.axis, (tuple, list)) else [layer.axis]
        if all(axis in (-1, len(shape) - 1) for axis in axes):
            return reach
        return reach if reach.lost else reach._replace(whole=True)
    if behaves_like(layer, _POINTWISE):
        return reach
    if behaves_like(layer, (layers.Concatenate,)):
        if layer.axis not in (-1, len(shape) - 1):
            raise _refused(call, "Maps must be concatenated along their channels")
        return _united(call, reaches)
    if behaves_like(layer, _MERGES) or operation_name(layer) in ELEMENTWISE_OPS:
        return _united(call, reaches)
    if isinstance(layer, (layers.Conv2DTranspose, layers.UpSampling2D, MaxUnpool2D)):
        raise _refused(call, "Fields that do not move by whole pixels of their map are not followed")
    raise _refused(call, "The receptive field of this type of layer is not known")


def _windowed(call: Call, axis: int, before: _Axis) -> _Axis:
    """The axis after a window, padding or cropping."""
    layer = call.layer
    side, after = call.inputs[0].shape[1 + axis], call.outputs[0].shape[1 + axis]
    if isinstance(layer, (layers.ZeroPadding2D, layers.Cropping2D)):
        margin = layer.padding[axis][0] if isinstance(layer, layers.ZeroPadding2D) else -layer.cropping[axis][0]
        return _Axis(before.first - margin * before.stride, before.last - margin * before.stride, before.stride)
    if isinstance(layer, _ADAPTIVE_POOLINGS):
        if side is None or side % after:
            raise _refused(call, "Adaptive pooling must divide its map evenly")
        span, stride, padding = side // after - 1, side // after, "valid"
    else:
        window = layer.pool_size if isinstance(layer, _POOLINGS) else layer.kernel_size
        kernel, stride, dilation = (
            value if isinstance(value, int) else value[axis]  # our own layers keep one number for both axes
            for value in (window, layer.strides, getattr(layer, "dilation_rate", 1))
        )
        span, padding = (kernel - 1) * dilation, layer.padding
    margin = padding if isinstance(padding, int) else 0
    if padding == "same":
        if side is None and stride > 1:
            raise _refused(call, "'same' padding with a stride needs a fixed input size: give `input_shape`")
        # What is missing for ceil(side / stride) windows; the odd pixel comes after the map.
        missing = span if stride == 1 else max((-(-side // stride) - 1) * stride + span + 1 - side, 0)
        margin = missing // 2
    first = before.first - margin * before.stride
    return _Axis(first, before.last + (span - margin) * before.stride, before.stride * stride)


def _nowhere(reach: _Reach) -> bool:
    """All values see all, and there are no places to lose."""
    return reach.whole and reach.axes == (_NOWHERE, _NOWHERE)


def _reshaped(call: Call, reach: _Reach, shape: tuple, made: tuple) -> _Reach:
    if _nowhere(reach):
        return reach
    if reach.lost:
        if len(made) > 3:
            raise _refused(call, "Pixels whose places were given up can't become a map again")
        return reach
    pixels = reach.grid or shape[1:3]
    if None in pixels:
        return reach._replace(grid=None, lost=True)
    # Rows of values stay together where the axes of the pixels are split off first.
    if len(made) > 3 and made[1:3] == pixels:
        return reach._replace(grid=None)
    if len(made) > 2 and made[1] == pixels[0] * pixels[1]:
        return reach._replace(grid=pixels)
    return reach._replace(grid=None, lost=True)


def _united(call: Call, reaches: list[_Reach]) -> _Reach:
    """The smallest rectangle around all fields."""
    if len(reaches) == 1:
        return reaches[0]
    placed = [(reach, t) for reach, t in zip(reaches, call.inputs, strict=True) if not _nowhere(reach)]
    if not placed:
        return _ALL
    if any(reach.lost for reach, _ in placed):
        return placed[0][0]._replace(grid=None, lost=True)
    some = placed[0][0]
    sizes = {tuple(t.shape[1 : 2 if reach.grid else 3]) for reach, t in placed}
    strides = {tuple(axis.stride for axis in reach.axes) for reach, _ in placed}
    if len(strides) > 1 or len(sizes) > 1 or len({reach.grid for reach, _ in placed}) > 1:
        raise _refused(
            call, f"Branches must meet with the same stride and size (strides {sorted(strides)}, sizes {sorted(sizes)})"
        )
    axes = tuple(
        _Axis(min(r.axes[i].first for r, _ in placed), max(r.axes[i].last for r, _ in placed), some.axes[i].stride)
        for i in (0, 1)
    )
    return _Reach(axes, whole=any(reach.whole for reach in reaches), grid=some.grid)


def _refused(call: Call, rule: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{rule}. Received: layer {call.name!r} of type {operation_name(call.layer)}.")
