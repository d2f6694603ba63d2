"""The part of the image that an output value can depend on, layer by layer."""

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keraslight.analysis._maps import image_input
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, read
from keraslight.graph.kinds import base_kind, kind, operation_name


class ReceptiveField(NamedTuple):
    """The theoretical receptive field of a layer's outputs.

    Attributes:
        name: Name of the layer, `inner/conv` inside a nested model.
        size: (height, width) in pixels of the image, including padding, so that it may exceed the image. Once every
            output sees the whole image, it is the image's size; None for sides that are open.
        stride: (vertical, horizontal) pixels of the image between neighboring outputs; 0 if the outputs have no
            position, as after global pooling.
        center: (y, x) of the first output's field; the image's first pixel has its center at (0, 0). The field of
            output (i, j) has its center at `center + (i, j) * stride`. If the field is the whole image, the center of
            the image; None for sides that are open.
        whole: Whether the field is the whole image, whatever the position of the output.
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
    """What a tensor's values see."""

    axes: tuple[_Axis, _Axis]  # vertical and horizontal
    whole: bool = False  # whether every value sees the whole image
    grid: tuple[int, int] | None = None  # (height, width) if axis 1 lists the pixels of this grid, row by row
    lost: bool = False  # whether the axes are no longer a grid of pixels; values may still see different pixels


_PIXEL = _Axis(0, 0, 1)
_NOWHERE = _Axis(0, 0, 0)
_ALL = _Reach((_NOWHERE, _NOWHERE), whole=True)


def receptive_field(model: keras.Model, input_shape: Sequence[int | None] | None = None) -> list[ReceptiveField]:
    """Computes the theoretical receptive field of every layer: what it can see, not how much each pixel counts.

    A window of `k` pixels, `d` apart, on a map whose pixels are `s` image pixels apart adds `(k - 1) * d * s` pixels; a
    stride multiplies `s`. Where branches meet, the field is the smallest rectangle around theirs. After the first
    squeeze-and-excitation, GRN, attention or deformable convolution (whose window may lie anywhere), every output sees
    the whole image. So does everything after `Flatten`, which gives up the positions of pixels (border pixels that no
    window reaches are not excluded).
    Source: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019,
    https://distill.pub/2019/computing-receptive-fields, equations 2 to 5.

    Args:
        model: A functional model of one image (B, H, W, C), channels last. Nested models are opened.
        input_shape: (H, W, C) if the model leaves sides open. "same" padding with a stride depends on the size.

    Returns:
        One record per call of a layer, in the graph's order; a shared layer has several.

    Raises:
        InvalidArgumentError: A layer's field is unknown or is not a rectangle that moves by whole pixels (transposed
            convolution, upsampling, unpooling, stock attention layers, ...), branches with different strides meet, a
            size is needed, or the model is not as described.
    """
    graph = read(model, input_shape, opaque=True)
    start = image_input(graph)
    reaches = {start: _Reach((_PIXEL, _PIXEL))}
    fields = [_field(graph.input_calls[0].path, reaches[start], start.shape[1:3])]
    for call in graph.calls:
        reach = _follow(call, [reaches[tensor] for tensor in call.inputs])
        reaches.update((tensor, reach) for tensor in call.outputs)
        fields.append(_field(call.path, reach, start.shape[1:3]))
    return fields


def _field(name: str, reach: _Reach, image: Sequence[int | None]) -> ReceptiveField:
    v, h = reach.axes
    if reach.whole or reach.lost:
        middle_y, middle_x = (None if side is None else (side - 1) / 2 for side in image)
        stride = (0, 0) if reach.lost else (v.stride, h.stride)
        return ReceptiveField(name, (image[0], image[1]), stride, (middle_y, middle_x), True)
    center = ((v.first + v.last) / 2, (h.first + h.last) / 2)
    return ReceptiveField(name, (v.last - v.first + 1, h.last - h.first + 1), (v.stride, h.stride), center, False)


def _follow(call: Call, reaches: list[_Reach]) -> _Reach:
    layer, reach, rank, row = call.layer, reaches[0], len(call.inputs[0].shape), kind(call.layer)
    seeing_all = reach if reach.lost else reach._replace(whole=True)
    if getattr(layer, "data_format", None) == "channels_first":
        raise _refused(call, "Fields are followed through channels-last maps only")
    match row.field:
        case "window" | "margin" | "adaptive":
            if reach.lost or reach.grid:
                raise _refused(call, "A window needs a grid of pixels")
            axes = (_windowed(call, 0, reach.axes[0]), _windowed(call, 1, reach.axes[1]))
            return reach._replace(axes=axes, whole=reach.whole or row.sees_all)
        case "all":
            return _ALL
        case "image":
            return seeing_all
        case "reshape":
            return _reshaped(call, reach)
        case "permute":
            kept = 1 if reach.grid else 2
            in_place = layer.dims[:kept] == tuple(range(1, kept + 1))
            return reach if in_place or _nowhere(reach) else reach._replace(lost=True)
        case "features":
            return _ALL if rank == 2 else reach
        case "axis":
            along = layer.axis if isinstance(layer.axis, tuple | list) else [layer.axis]
            return reach if all(axis in (-1, rank - 1) for axis in along) else seeing_all
        case "pixel":
            return reach
        case "concatenate" if layer.axis not in (-1, rank - 1):
            raise _refused(call, "Maps must be concatenated along their channels")
        case "merge" | "concatenate":
            return _united(call, reaches)
    if base_kind(type(layer)).field == "fraction":
        raise _refused(call, "Fields that do not move by whole pixels of their map are not followed")
    raise _refused(call, "The receptive field of this type of layer is not known")


def _windowed(call: Call, axis: int, before: _Axis) -> _Axis:
    """Returns the axis after a window, padding or cropping."""
    layer, field = call.layer, kind(call.layer).field
    side, after = call.inputs[0].shape[1 + axis], call.outputs[0].shape[1 + axis]
    if field == "margin":
        margin = layer.padding[axis][0] if hasattr(layer, "padding") else -layer.cropping[axis][0]
        return _Axis(before.first - margin * before.stride, before.last - margin * before.stride, before.stride)
    if field == "adaptive":
        if side is None or after is None or side % after:
            raise _refused(call, "Adaptive pooling must divide its map evenly")
        span, stride, padding = side // after - 1, side // after, "valid"
    else:
        window = layer.pool_size if hasattr(layer, "pool_size") else layer.kernel_size
        kernel, stride, dilation = (
            value if isinstance(value, int) else value[axis]  # our own layers keep one number for both axes
            for value in (window, layer.strides, getattr(layer, "dilation_rate", 1))
        )
        span, padding = (kernel - 1) * dilation, layer.padding
    margin = padding if isinstance(padding, int) else 0
    if padding == "same" and stride == 1:
        margin = span // 2
    elif padding == "same":
        if side is None:
            raise _refused(call, "'same' padding with a stride needs a fixed input size: give `input_shape`")
        # What is missing for ceil(side / stride) windows, halved: an odd pixel comes after the map.
        margin = max((-(-side // stride) - 1) * stride + span + 1 - side, 0) // 2
    first = before.first - margin * before.stride
    return _Axis(first, before.last + (span - margin) * before.stride, before.stride * stride)


def _nowhere(reach: _Reach) -> bool:
    """Whether all values see everything, and there are no positions to lose."""
    return reach.whole and reach.axes == (_NOWHERE, _NOWHERE)


def _reshaped(call: Call, reach: _Reach) -> _Reach:
    made = call.outputs[0].shape
    if _nowhere(reach):
        return reach
    if reach.lost:
        if len(made) > 3:
            raise _refused(call, "Pixels whose places were given up can't become a map again")
        return reach
    height, width = reach.grid or call.inputs[0].shape[1:3]
    if height is None or width is None:
        return reach._replace(grid=None, lost=True)
    # Rows of values stay together if the axes of the pixels are split off first.
    if len(made) > 3 and made[1:3] == (height, width):
        return reach._replace(grid=None)
    if len(made) > 2 and made[1] == height * width:
        return reach._replace(grid=(height, width))
    return reach._replace(grid=None, lost=True)


def _united(call: Call, reaches: list[_Reach]) -> _Reach:
    """Returns the smallest rectangle around all fields."""
    if len(reaches) == 1:
        return reaches[0]
    placed = [(reach, tensor) for reach, tensor in zip(reaches, call.inputs, strict=True) if not _nowhere(reach)]
    if not placed:
        return _ALL
    some = placed[0][0]
    if any(reach.lost for reach, _ in placed):
        return some._replace(grid=None, lost=True)
    sizes = {tensor.shape[1 : 2 if reach.grid else 3] for reach, tensor in placed}
    strides = {tuple(axis.stride for axis in reach.axes) for reach, _ in placed}
    if len(strides) > 1 or len(sizes) > 1 or len({reach.grid for reach, _ in placed}) > 1:
        raise _refused(
            call, f"Branches must meet with the same stride and size (strides {sorted(strides)}, sizes {sorted(sizes)})"
        )
    v, h = (
        _Axis(min(axis.first for axis in axes), max(axis.last for axis in axes), axes[0].stride)
        for axes in zip(*(reach.axes for reach, _ in placed), strict=True)
    )
    return _Reach((v, h), whole=any(reach.whole for reach in reaches), grid=some.grid)


def _refused(call: Call, rule: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{rule}. Received: layer {call.path!r} of type {operation_name(call.layer)}.")
