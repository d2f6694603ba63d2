"""The part of the image that an output value can depend on, layer by layer."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import keras

from keraslight.analysis._maps import image_input
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, Graph, Tensor, read
from keraslight.graph.kinds import base_kind, kind, operation_name


class ReceptiveField(NamedTuple):
    """The theoretical receptive field of a layer's outputs.

    Attributes:
        name: Name of the layer, `inner/conv` inside a nested model.
        size: (height, width) in pixels of the image, including padding, so that it may exceed the image. Once every
            output sees the whole image, it is the image's size; None for sides that are open. If outputs between
            pixels differ, as after a resizing, the largest.
        stride: (vertical, horizontal) pixels of the image between neighboring outputs, possibly a fraction after a
            transposed convolution or resizing; 0 if the outputs have no position, as after global pooling.
        center: (y, x) of the first output's field; the image's first pixel has its center at (0, 0). The field of
            output (i, j) has its center at `center + (i, j) * stride`, on average if outputs differ. If the field is
            the whole image, the center of the image; None for sides that are open.
        whole: Whether the field is the whole image, whatever the position of the output.
    """

    name: str
    size: tuple[int | None, int | None]
    stride: tuple[float, float]
    center: tuple[float | None, float | None]
    whole: bool


class _Axis(NamedTuple):
    """Output `r + n * q` of `n` fields sees the pixels between the ends `fields[r]`, both moved by `q * step`.

    There are several fields after what makes maps larger: then neighboring outputs may see the same pixels.
    """

    fields: tuple[tuple[int, int], ...]
    step: int

    @property
    def stride(self) -> Fraction:
        """Pixels of the image between neighboring outputs, on average."""
        return Fraction(self.step, len(self.fields))

    @property
    def size(self) -> int:
        return max(last - first + 1 for first, last in self.fields)

    @property
    def center(self) -> float:
        """Center of output 0's field."""
        middles = (Fraction(first + last, 2) - r * self.stride for r, (first, last) in enumerate(self.fields))
        return float(sum(middles) / len(self.fields))

    def at(self, output: int) -> tuple[int, int]:
        """First and last pixel that an output sees."""
        turns, place = divmod(output, len(self.fields))
        first, last = self.fields[place]
        return first + turns * self.step, last + turns * self.step

    def seen_by(self, window: "_Window") -> "_Axis":
        """The axis after a window over this one."""
        times = len(self.fields) // math.gcd(len(self.fields), window.moved)  # until both repeat themselves
        reach = [window.ends(output) for output in range(window.outputs * times)]
        fields = tuple((self.at(first)[0], self.at(last)[1]) for first, last in reach)
        return _Axis(fields, self.step * (window.moved * times) // len(self.fields))


class _Window(NamedTuple):
    """Which places of its input a layer's output sees on one axis.

    Attributes:
        ends: Function of the output's place that returns the first and the last one.
        outputs, moved: That many outputs later, the ends have moved by so many places.
    """

    ends: Callable[[int], tuple[int, int]]
    outputs: int = 1
    moved: int = 1


class _Reach(NamedTuple):
    """What a tensor's values see."""

    axes: tuple[_Axis, _Axis]  # vertical and horizontal
    whole: bool = False  # whether every value sees the whole image
    grid: tuple[int, int] | None = None  # (height, width) if axis 1 lists the pixels of this grid, row by row
    lost: bool = False  # whether the axes are no longer a grid of pixels; values may still see different pixels


_PIXEL = _Axis(((0, 0),), 1)
_NOWHERE = _Axis(((0, 0),), 0)
_WINDOWS = ("window", "margin", "adaptive", "transposed", "resized")
_ALL = _Reach((_NOWHERE, _NOWHERE), whole=True)


def receptive_field(model: keras.Model, input_shape: Sequence[int | None] | None = None) -> list[ReceptiveField]:
    """Computes the theoretical receptive field of every layer: what it can see, not how much each pixel counts.

    A window of `k` pixels, `d` apart, on a map whose pixels are `s` image pixels apart adds `(k - 1) * d * s` pixels; a
    stride multiplies `s`. Where branches meet, the field is the smallest rectangle around theirs. After the first
    squeeze-and-excitation, global response normalization, attention or deformable convolution (whose window may lie
    anywhere), every output sees the whole image. So does everything after `Flatten`, which gives up the positions of
    pixels (border pixels that no window reaches are not excluded). What makes maps larger, a transposed
    convolution or a resizing, divides `s`.
    Source: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019,
    https://distill.pub/2019/computing-receptive-fields, equations 2 to 5.

    Args:
        model: A functional model of one image (B, H, W, C), channels last. Nested models are opened.
        input_shape: (H, W, C) if the model leaves sides open. "same" padding with a stride depends on the size.

    Returns:
        One record per call of a layer, in the graph's order; a shared layer has several.

    Raises:
        InvalidArgumentError: A layer's field is unknown or is not a rectangle that moves with the output (unpooling,
            stock attention layers, ...), branches with different strides meet, a size is needed, or the model is not
            as described.
    """
    graph = read(model, input_shape, opaque=True)
    start, reaches = _reaches(graph)
    outputs = [(graph.input_calls[0].path, start), *((call.path, call.outputs[0]) for call in graph.calls)]
    return [_field(path, reaches[tensor], start.shape[1:3]) for path, tensor in outputs]


def backward_receptive_field(
    model: keras.Model, input_shape: Sequence[int | None] | None = None
) -> list[tuple[int | None, int | None]]:
    """Computes the sizes of the receptive fields a second time, from each layer back to the image.

    `receptive_field` goes through the layers once, from the image on. Here every layer is a starting point: one output
    sees `r = 1` place of its own map, and `r = s * r + (k - s)` places of the map before a window of `k` places and
    stride `s`. Where branches part, what all of them see counts. That takes longer, and checks the other way.
    Source: Araujo et al., equation 1 (see `receptive_field`).

    Args:
        model, input_shape: See `receptive_field`.

    Returns:
        (height, width) for each record of `receptive_field`, to whose `size` they are equal.

    Raises:
        InvalidArgumentError: As for `receptive_field`.
    """
    graph = read(model, input_shape, opaque=True)
    start, reaches = _reaches(graph)
    image = (start.shape[1], start.shape[2])
    windows = [
        None if kind(call.layer).field not in _WINDOWS else (_window(call, 0), _window(call, 1)) for call in graph.calls
    ]

    def traced(last: int, axis: int, place: int) -> int:
        """Pixels on an axis of the image that one output of the call `last` sees."""
        seen = {graph.calls[last].outputs[0]: (place, place)}
        for call, window in zip(graph.calls[last::-1], windows[last::-1], strict=True):
            ends = [seen[tensor] for tensor in call.outputs if tensor in seen]
            if not ends:
                continue
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
            if window is not None:
                low, high = window[axis].ends(low)[0], window[axis].ends(high)[1]
            for tensor in call.inputs:
                if not _nowhere(reaches[tensor]):
                    before = seen.get(tensor, (low, high))
                    seen[tensor] = min(low, before[0]), max(high, before[1])
        low, high = seen[start]
        return high - low + 1

    sizes: list[tuple[int | None, int | None]] = [(1, 1)]
    for place, call in enumerate(graph.calls):
        reach = reaches[call.outputs[0]]
        if reach.whole or reach.lost:
            sizes.append(image)
        else:
            height, width = (
                max(traced(place, axis, output) for output in range(len(reach.axes[axis].fields))) for axis in (0, 1)
            )
            sizes.append((height, width))
    return sizes


def _reaches(graph: Graph) -> tuple[Tensor, dict[Tensor, _Reach]]:
    """The image, and what the values of each tensor see of it."""
    start = image_input(graph)
    reaches = {start: _Reach((_PIXEL, _PIXEL))}
    for call in graph.calls:
        reach = _follow(call, [reaches[tensor] for tensor in call.inputs])
        reaches.update((tensor, reach) for tensor in call.outputs)
    return start, reaches


def _field(name: str, reach: _Reach, image: Sequence[int | None]) -> ReceptiveField:
    v, h = reach.axes
    if reach.whole or reach.lost:
        middle_y, middle_x = (None if side is None else (side - 1) / 2 for side in image)
        stride = (0, 0) if reach.lost else (_number(v.stride), _number(h.stride))
        return ReceptiveField(name, (image[0], image[1]), stride, (middle_y, middle_x), True)
    stride = (_number(v.stride), _number(h.stride))
    return ReceptiveField(name, (v.size, h.size), stride, (v.center, h.center), False)


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _follow(call: Call, reaches: list[_Reach]) -> _Reach:
    layer, reach, rank, row = call.layer, reaches[0], len(call.inputs[0].shape), kind(call.layer)
    seeing_all = reach if reach.lost else reach._replace(whole=True)
    if getattr(layer, "data_format", None) == "channels_first":
        raise _refused(call, "Fields are followed through channels-last maps only")
    match row.field:
        case "window" | "margin" | "adaptive" | "transposed" | "resized":
            if reach.lost or reach.grid:
                raise _refused(call, "A window needs a grid of pixels")
            axes = (reach.axes[0].seen_by(_window(call, 0)), reach.axes[1].seen_by(_window(call, 1)))
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
    if base_kind(type(layer)).field == "values":
        raise _refused(call, "Fields that depend on the map's values are not followed")
    raise _refused(call, "The receptive field of this type of layer is not known")


def _window(call: Call, axis: int) -> _Window:
    """Returns what a window, padding, cropping or resizing does on an axis."""
    layer, field = call.layer, kind(call.layer).field
    side, after = call.inputs[0].shape[1 + axis], call.outputs[0].shape[1 + axis]
    if field == "margin":
        margin = layer.padding[axis][0] if hasattr(layer, "padding") else -layer.cropping[axis][0]
        return _Window(lambda output: (output - margin, output - margin))
    if field == "resized":
        return _resized(call, axis)
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
    if field == "transposed":
        if layer.output_padding is not None:
            raise _refused(call, "Transposed convolutions are followed without `output_padding`")
        # What a convolution of the same padding and stride sees of an output of this one, turned around.
        margin = max(span + 1 - stride, 0) // 2 if padding == "same" else 0
        return _Window(lambda output: (-((span - margin - output) // stride), (output + margin) // stride), stride)
    margin = padding if isinstance(padding, int) else 0
    if padding == "same" and stride == 1:
        margin = span // 2
    elif padding == "same":
        if side is None:
            raise _refused(call, "'same' padding with a stride needs a fixed input size: give `input_shape`")
        # What is missing for ceil(side / stride) windows, halved: an odd pixel comes after the map.
        margin = max((-(-side // stride) - 1) * stride + span + 1 - side, 0) // 2
    return _Window(lambda output: (output * stride - margin, output * stride - margin + span), moved=stride)


def _resized(call: Call, axis: int) -> _Window:
    """The pixels between which an output is interpolated, away from the map's borders."""
    layer, side, after = call.layer, call.inputs[0].shape[1 + axis], call.outputs[0].shape[1 + axis]
    if isinstance(layer, keras.layers.UpSampling2D):
        side, after = 1, layer.size[axis]
    if side is None or after is None:
        raise _refused(call, "Resizing needs a fixed input size: give `input_shape`")
    if getattr(layer, "crop_to_aspect_ratio", False) or getattr(layer, "pad_to_aspect_ratio", False):
        raise _refused(call, "Resizing is followed without cropping and padding to an aspect ratio")
    if getattr(layer, "antialias", False) and after < side:
        raise _refused(call, "Resizing is followed without anti-aliasing")
    before = {"nearest": 0, "bilinear": 0, "bicubic": 1}.get(layer.interpolation)
    if before is None:
        raise _refused(call, "Resizing must be nearest, bilinear or bicubic")
    shared = math.gcd(side, after)
    side, after = side // shared, after // shared

    def ends(output: int) -> tuple[int, int]:
        place = Fraction((2 * output + 1) * side, 2 * after)  # pixels' edges are at whole numbers, centers between
        if layer.interpolation == "nearest":
            return math.floor(place), math.floor(place)
        place -= Fraction(1, 2)
        if place.denominator == 1:
            return int(place), int(place)
        return math.floor(place) - before, math.ceil(place) + before

    return _Window(ends, after, side)


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
    strides = {tuple(_number(axis.stride) for axis in reach.axes) for reach, _ in placed}
    if len(strides) > 1 or len(sizes) > 1 or len({reach.grid for reach, _ in placed}) > 1:
        raise _refused(
            call, f"Branches must meet with the same stride and size (strides {sorted(strides)}, sizes {sorted(sizes)})"
        )
    v, h = (_hull(axes) for axes in zip(*(reach.axes for reach, _ in placed), strict=True))
    return _Reach((v, h), whole=any(reach.whole for reach in reaches), grid=some.grid)


def _hull(axes: Sequence[_Axis]) -> _Axis:
    """What outputs see that see all of this. The strides are equal."""
    count = math.lcm(*(len(axis.fields) for axis in axes))
    ends = [[axis.at(output) for axis in axes] for output in range(count)]
    fields = tuple((min(first for first, _ in each), max(last for _, last in each)) for each in ends)
    return _Axis(fields, int(axes[0].stride * count))


def _refused(call: Call, rule: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{rule}. Received: layer {call.path!r} of type {operation_name(call.layer)}.")
