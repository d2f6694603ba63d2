"""What analysis, rewrites, compression and export need to know of each kind of layer: one row per kind.

A new layer gets its row here. Three ways lead from a layer to a row:

- `kind` for what computes like a kind: of the class itself, or of a base class whose `call` it keeps. A derived layer
  with a `call` of its own may do anything.
- `base_kind` for what is stored like a kind, such as a kernel to prune: of the nearest base class in the table.
- `exact_kind` for rewrites, which replace a layer: of this very class.

Bare operations (`x + 1`, `keras.ops.relu(x)`) have rows by the name of their class, which is not public.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from keraslight import layers as own
from keraslight.graph.calls import Graph, Tensor, is_own_function

Shape = tuple[int | None, ...]
Macs = Callable[[Any, Sequence[Shape], Sequence[Shape]], int | None]
"""Multiply-adds of one image from a layer and the shapes that it reads and makes; None where a side is open. A bare
operation also reads constant arrays."""
Affine = tuple[np.ndarray, np.ndarray]

Field = Literal[
    "window",  # a window of neighbouring pixels: convolutions, poolings
    "margin",  # padding and cropping
    "transposed",  # a transposed convolution's
    "resized",  # interpolated between neighboring pixels
    "adaptive",  # a window of input size / output size pixels
    "all",  # every output depends on every pixel
    "image",  # values keep their places, but depend on every pixel too
    "pixel",  # each value depends on its own pixel
    "axis",  # each value depends on what lies along the layer's `axis`
    "features",  # vectors: on all of them; maps: each pixel on its own
    "merge",  # the smallest rectangle around all inputs' fields
    "concatenate",
    "reshape",
    "permute",
    "values",  # depends on the map's values: not followed
]
"""How a layer's receptive field follows from its inputs'; see `keraslight.analysis.receptive_field`."""

Kernel = Literal["convolution", "depthwise", "separable", "transposed", "dense"]
"""Layout of a kernel that rewrites can change: which axes are input and output channels."""

Flow = Literal[
    "each",  # every channel on its own; weights have one entry per channel
    "norm",  # the same, but divided by statistics that are taken over several channels
    "along",  # mixes what lies along its `axis`, and nothing else
    "window",  # every channel on its own: poolings, padding, resizing
    "reduce",  # sums or the like over its `axis`
    "merge",  # element-wise, of any number of inputs that are broadcast
    "move",  # moves values to other places
]
"""How channels go through a layer without a kernel; see `keraslight.compress.channel_groups`."""

MIXING = frozenset(("softmax", "log_softmax", "glu", "sparsemax"))
"""Keras' activations of which an output depends on other channels, too."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of a kind of layer.

    Attributes:
        macs: Multiply-adds; None where they are unknown.
        field: Receptive field; None where it is unknown.
        sees_all: Every output depends on every pixel, although the field is a window.
        kernel: Layout of the kernel; None without one that rewrites know.
        prunes: Attribute with the kernel to prune; None for a kind that is not pruned.
        affine: Function of the layer that returns scale and shift, float64 (C,) or (), if it computes
            `scale * x + shift` per channel at inference; see `affine`.
        channels: Function of the layer that returns which channels of its input, and nothing else, it gives.
        flow: How channels go through a layer without a kernel, including its weights; None where that is unknown,
            so that no channel of its inputs can be removed.
        width: Entry of the layer's configuration that is the number of channels; None where there is none.
        convolution: Slides a learned kernel over a map.
        pooling: Pools a map.
        batch_norm: Normalizes by the batch's statistics in training.
        elementwise: Each output value follows from the values at its own place, with hardly any arithmetic.
        view: Its output is its input's memory under another shape, or it does nothing in inference.
        training_only: Does nothing in inference.
        augmentation: Changes images at random in training.
        scales_through: A positive factor per channel goes through it unchanged.
        keeps_float32: Computes in float32 in a half-precision model: sums over many values, and variances as small as
            their epsilon, need more than 16 bits.
        needs_float: Computed with 8-bit steps inside, its outputs would be wrong: squares, roots, or differences of
            nearly equal values. An int8 file computes it in float, between int8 layers.
        steep: Tells from the layer and its input's shape whether small errors in its input become large errors in its
            output, because it is singular at 0 or jumps. An int8 file computes it, and what produces its input, in
            float.
        int8: In an int8 file `"moves"` values without changing their scale, or is `"converted"` by the converter where
            its ends are quantized, without quantizers inside. None: float unless it has a twin of its own.
        copies: Tells from the layer how many images it makes of each image of its input's batch; None for one.
    """

    macs: Macs | None = None
    field: Field | None = None
    sees_all: bool = False
    kernel: Kernel | None = None
    prunes: str | None = None
    affine: Callable[[Any], Affine | None] | None = None
    channels: Callable[[Any], slice] | None = None
    flow: Flow | None = None
    width: str | None = None
    convolution: bool = False
    pooling: bool = False
    batch_norm: bool = False
    elementwise: bool = False
    view: bool = False
    training_only: bool = False
    augmentation: bool = False
    scales_through: bool = False
    keeps_float32: bool = False
    needs_float: bool = False
    steep: Callable[[Any, Shape], bool] | None = None
    int8: Literal["moves", "converted"] | None = None
    copies: Callable[[Any], float] | None = None

    @property
    def multiplies(self) -> bool:
        """Whether it has multiply-adds: it is a convolution or a matrix product."""
        return self.macs not in (None, _none)


UNKNOWN = Kind()


def _none(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """No convolution and no matrix product counts as 0, as in the reference tables."""
    return 0


def _times(shape: Sequence[int | None], each: int | None) -> int | None:
    return None if each is None or None in shape else each * math.prod(shape)  # type: ignore[arg-type]  # no None in it


def _always(layer: Any, shape: Shape) -> bool:
    return True


def _of_few(layer: Any, shape: Shape) -> bool:
    """Whether it normalizes so few values together that some lie far closer to each other than values elsewhere do.

    Of 16 normal values the standard deviation is below 0.4 of the true one once in 10,000 times; of 6, once in 44.
    """
    axis = getattr(layer, "axis", -1)  # our own has no other
    sides = [shape[place] for place in ((axis,) if isinstance(axis, int) else axis)]
    return None not in sides and math.prod(sides) < 16  # type: ignore[arg-type]  # no None in it


def _per_output(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """One output value costs a kernel's worth of products: (kh, kw, C_in / groups, F) or (C_in, F)."""
    return _times(outputs[0][1:], math.prod(layer.kernel.shape[:-1]))


def _depthwise(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """(kh, kw, C, multiplier): a window in one channel."""
    return _times(outputs[0][1:], math.prod(layer.kernel.shape[:-2]))


def _transposed(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """One input value is spread over a window of all filters: (kh, kw, F, C_in)."""
    return _times(inputs[0][1:], math.prod(layer.kernel.shape[:-1]))


def _separable(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Both kernels once per pixel."""
    return _times(outputs[0][1:-1], math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape))


def _conditional(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Pixels by one kernel, and once per image the routing and the mix of the experts' kernels."""
    pixels = _times(outputs[0][1:], math.prod(layer.kernel.shape[1:-1]))
    once = math.prod(layer.kernel.shape) + math.prod(layer.routing_kernel.shape)
    return None if pixels is None else once + pixels


def _deformable(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """The offsets' convolution at the same places, then the kernel; the sampling is element-wise work."""
    return _times(outputs[0][1:-1], math.prod(layer.offset_conv.kernel.shape) + math.prod(layer.kernel.shape))


def _codes(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """The product with the codes."""
    return _times(outputs[0][1:], inputs[0][-1])


def _dot(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    return _times(outputs[0][1:], inputs[0][layer.axes[0] if isinstance(layer.axes, tuple | list) else layer.axes])


def _einsum(equation: str, shapes: Sequence[Shape], output: Shape) -> int | None:
    """Each output value costs a product for every combination of the places that are summed over."""
    terms, made = equation.replace(" ", "").split("->")
    summed: dict[str, int | None] = {}
    for term, shape in zip(terms.split(","), shapes, strict=True):
        before, _, after = term.partition("...")
        sides = (*zip(before, shape, strict=False), *zip(reversed(after), reversed(shape), strict=False))
        summed |= {letter: side for letter, side in sides if letter not in made}
    each = _times(tuple(summed.values()), 1)
    return _times(output[1:], None if each is None else each * max(len(shapes) - 1, 0))


def _einsum_dense(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    return _einsum(layer.equation, (inputs[0], layer.kernel.shape), outputs[0])


def _attention(
    inputs: Sequence[Shape], queries: int, keys: int, heads: int, widths: int, axes: Sequence[int] | None = None
) -> int | None:
    """Maps queries and keys, compares them in each head, and sums values. `axes`: those that are attended over.

    Args:
        inputs: Shapes of query and value; one if they are the same.
        queries, keys: Products for each place of a query, and of a key with its value.
        heads: Number of heads.
        widths: Width of a head's keys plus that of its values.
        axes: Axes that are attended over. None: all but the first and the last.
    """
    query, value = inputs[0], inputs[min(1, len(inputs) - 1)]
    attended = tuple(value[axis] for axis in axes) if axes else value[1:-1]
    places = _times(query[1:-1], 1)
    scores = _times(attended, heads * widths)
    if places is None or scores is None:
        return None
    return places * (queries + scores) + (_times(value[1:-1], keys) or 0)


def _multi_head_attention(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    query, key, value, out = (
        math.prod(part.kernel.shape)
        for part in (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense)
    )
    widths = layer.key_dim + layer.value_dim
    return _attention(inputs, query + out, key + value, layer.num_heads, widths, layer._attention_axes)


def _grouped_query_attention(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    query, key, value, out = (
        math.prod(part.kernel.shape)
        for part in (layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense)
    )
    return _attention(inputs, query + out, key + value, layer.num_query_heads, 2 * layer.head_dim)


def _plain_attention(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Compares widths of query and key, which are equal, and sums values. The additive one scales their sums."""
    return _attention(inputs, 0, 0, 1, (inputs[0][-1] or 0) + (inputs[1][-1] or 0))


def _recurrent(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Both kernels once per step."""
    return _times(inputs[0][1:2], math.prod(layer.cell.kernel.shape) + math.prod(layer.cell.recurrent_kernel.shape))


def _matmul(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    return _times(outputs[0][1:], inputs[0][-1])


def _tensordot(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    first, axes = inputs[0], layer.axes
    summed = first[len(first) - axes :] if isinstance(axes, int) else [first[axis] for axis in axes[0]]
    return _times(outputs[0][1:], _times(summed, 1))


def _convolved(kernel: Callable[[Shape], Shape]) -> Macs:
    """For `keras.ops` whose second argument is a kernel, of which `kernel` gives the sides that are summed over."""
    return lambda layer, inputs, outputs: _times(outputs[0][1:], _times(kernel(inputs[1]), 1))


def scale_and_shift(norm: keras.layers.BatchNormalization) -> Affine:
    """What a batch norm computes at inference, `scale * x + shift`, in float64.

    `scale = gamma / sqrt(variance + epsilon)`, `shift = beta - scale * mean`.
    """
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    return scale, (np.asarray(norm.beta) if norm.center else 0) - mean * scale


def rank(layer: Any) -> int:
    """Number of dimensions of a layer's input; 0 for a `Normalization` that was built by hand."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    return len(shape) if shape is not None else 0


def _batch_norm(layer: Any) -> Affine | None:
    return scale_and_shift(layer) if layer.axis in (-1, rank(layer) - 1) else None


def _layer_scale(layer: Any) -> Affine:
    return np.asarray(layer.gamma, np.float64), np.zeros(())


def _rescaling(layer: Any) -> Affine | None:
    scale, shift = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
    return (scale, shift) if max(scale.ndim, shift.ndim) < 2 else None


def _normalization(layer: Any) -> Affine | None:
    if layer.invert or tuple(layer.axis) not in ((-1,), (rank(layer) - 1,)):
        return None
    mean, variance = (np.asarray(value, np.float64).reshape(-1) for value in (layer.mean, layer.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
    return scale, -mean * scale


_ELEMENTWISE = Kind(_none, "pixel", elementwise=True, flow="each")
_MERGE = Kind(_none, "merge", elementwise=True, flow="merge")
_MARGIN = Kind(_none, "margin", flow="window")
_IDLE = Kind(_none, "pixel", view=True, training_only=True, flow="each")
_AUGMENTATION = Kind(_none, "pixel", view=True, training_only=True, augmentation=True, int8="moves")
_NORM = Kind(_none, "axis", elementwise=True, flow="norm", needs_float=True, steep=_of_few)
_BATCH_NORM = Kind(
    _none, "pixel", affine=_batch_norm, batch_norm=True, elementwise=True, keeps_float32=True, flow="each"
)
_CONV = Kind(_per_output, "window", kernel="convolution", prunes="kernel", convolution=True)
_POOL = Kind(_none, "window", pooling=True, scales_through=True, flow="window")
_GLOBAL_POOL = Kind(_none, "all", pooling=True, scales_through=True, flow="window")

KINDS: dict[type, Kind] = {
    # Convolutions and products
    layers.Conv1D: Kind(_per_output, kernel="convolution"),
    layers.Conv2D: _CONV,
    layers.Conv3D: Kind(_per_output, kernel="convolution"),
    layers.DepthwiseConv1D: Kind(_depthwise, kernel="depthwise"),
    layers.DepthwiseConv2D: Kind(_depthwise, "window", kernel="depthwise", prunes="kernel", convolution=True),
    layers.SeparableConv1D: Kind(_separable, kernel="separable"),
    layers.SeparableConv2D: Kind(_separable, "window", kernel="separable", prunes="pointwise_kernel", convolution=True),
    layers.Conv1DTranspose: Kind(_transposed, kernel="transposed"),
    layers.Conv2DTranspose: Kind(_transposed, "transposed", kernel="transposed", convolution=True),
    layers.Conv3DTranspose: Kind(_transposed, kernel="transposed"),
    layers.Dense: Kind(_per_output, "features", kernel="dense", prunes="kernel"),
    layers.Dot: Kind(_dot, "all"),
    layers.EinsumDense: Kind(_einsum_dense),
    layers.MultiHeadAttention: Kind(_multi_head_attention),
    layers.GroupQueryAttention: Kind(_grouped_query_attention),
    layers.Attention: Kind(_plain_attention),
    layers.AdditiveAttention: Kind(_plain_attention),
    # States go through many steps, so that rounding adds up.
    **dict.fromkeys((layers.SimpleRNN, layers.LSTM, layers.GRU), Kind(_recurrent, needs_float=True)),
    **dict.fromkeys((layers.RNN, layers.Bidirectional), Kind(needs_float=True)),
    own.GroupedConv2D: _CONV,
    own.C4LiftingConv2D: Kind(_per_output, "window", convolution=True, int8="converted"),
    own.C4GroupConv2D: Kind(_per_output, "window", convolution=True, int8="converted"),
    own.CodeDistance: Kind(_codes, "features"),
    own.ConditionalConv2D: Kind(_conditional, "window", sees_all=True, convolution=True),  # the mean chooses its kernel
    own.DeformableConv2D: Kind(_deformable, "window", sees_all=True, convolution=True),  # its window may lie anywhere
    # Poolings
    layers.MaxPooling1D: Kind(_none, int8="moves", flow="window"),
    layers.MaxPooling2D: _POOL,
    layers.MaxPooling3D: Kind(_none, int8="moves", flow="window"),
    # Int8 averages have the scale of what they read. (2D: as a convolution they don't.)
    layers.AveragePooling1D: Kind(_none, needs_float=True, flow="window"),
    layers.AveragePooling2D: _POOL,
    layers.AveragePooling3D: Kind(_none, needs_float=True, flow="window"),
    layers.GlobalAveragePooling1D: Kind(_none, flow="window"),
    layers.GlobalAveragePooling2D: _GLOBAL_POOL,
    layers.GlobalAveragePooling3D: Kind(_none, flow="window"),
    layers.GlobalMaxPooling1D: Kind(_none, int8="moves", flow="window"),
    layers.GlobalMaxPooling2D: _GLOBAL_POOL,
    layers.GlobalMaxPooling3D: Kind(_none, int8="moves", flow="window"),
    layers.AdaptiveAveragePooling2D: Kind(_none, "adaptive", pooling=True, needs_float=True, flow="window"),
    layers.AdaptiveMaxPooling2D: Kind(_none, "adaptive", pooling=True, int8="moves", flow="window"),
    own.C4GroupPooling: Kind(_none, "pixel"),
    # The smallest rectangle around a row and a column is the whole image too.
    own.CoordinatePooling: Kind(_none, "all", int8="converted", flow="window"),
    own.MaxPoolWithIndices2D: Kind(_none, "window", pooling=True, int8="converted"),
    own.MaxUnpool2D: Kind(_none, "values"),
    # Normalizations
    layers.BatchNormalization: _BATCH_NORM,
    layers.LayerNormalization: dataclasses.replace(_NORM, keeps_float32=True),
    layers.GroupNormalization: Kind(
        _none, "image", elementwise=True, keeps_float32=True, needs_float=True, flow="norm"
    ),
    layers.RMSNormalization: _NORM,
    layers.UnitNormalization: dataclasses.replace(_NORM, steep=_always),
    layers.Normalization: dataclasses.replace(_ELEMENTWISE, affine=_normalization, flow=None),
    layers.Rescaling: dataclasses.replace(_ELEMENTWISE, affine=_rescaling),
    own.BatchNorm: _BATCH_NORM,
    own.GRN: Kind(_none, "image", elementwise=True, keeps_float32=True, flow="norm"),
    own.ImageNormalization: dataclasses.replace(_ELEMENTWISE, keeps_float32=True, flow=None),  # export looks for it
    own.ImageStandardization: Kind(_none, "image", elementwise=True, keeps_float32=True, needs_float=True),
    own.LayerNorm: dataclasses.replace(_ELEMENTWISE, keeps_float32=True, steep=_of_few, flow="norm"),
    own.LayerScale: dataclasses.replace(_ELEMENTWISE, affine=_layer_scale),
    own.LocalResponseNorm: dataclasses.replace(_ELEMENTWISE, keeps_float32=True, flow=None),
    # Activations and sums
    layers.Activation: _ELEMENTWISE,
    layers.ReLU: _ELEMENTWISE,
    layers.LeakyReLU: _ELEMENTWISE,
    layers.PReLU: _ELEMENTWISE,
    layers.ELU: _ELEMENTWISE,
    layers.Softmax: Kind(_none, "axis", elementwise=True, flow="along"),
    layers.Add: _MERGE,
    layers.Subtract: _MERGE,
    layers.Multiply: _MERGE,
    layers.Average: _MERGE,
    layers.Maximum: _MERGE,
    layers.Minimum: _MERGE,
    # What moves values
    layers.InputLayer: Kind(_none, view=True),
    layers.Flatten: Kind(_none, "reshape", view=True, flow="move"),
    layers.Reshape: Kind(_none, "reshape", view=True, flow="move"),
    layers.Permute: Kind(_none, "permute", flow="move"),
    layers.Concatenate: Kind(_none, "concatenate", flow="move"),
    layers.RepeatVector: Kind(flow="move"),
    layers.Embedding: Kind(_none),
    layers.ZeroPadding1D: Kind(_none, int8="moves", flow="window"),
    layers.ZeroPadding2D: dataclasses.replace(_MARGIN, scales_through=True),
    layers.ZeroPadding3D: Kind(_none, int8="moves", flow="window"),
    layers.Cropping1D: Kind(_none, int8="moves", flow="window"),
    layers.Cropping2D: _MARGIN,
    layers.Cropping3D: Kind(_none, int8="moves", flow="window"),
    layers.UpSampling1D: Kind(_none, int8="moves", flow="window"),
    layers.UpSampling2D: Kind(_none, "resized", flow="window"),
    layers.UpSampling3D: Kind(_none, int8="moves", flow="window"),
    layers.Resizing: Kind(_none, "resized", int8="moves", flow="window"),
    layers.CenterCrop: Kind(_none, int8="moves", flow="window"),
    own.ChannelSlice: Kind(
        _none, "pixel", channels=lambda layer: slice(layer.start, layer.stop, layer.step), flow="move"
    ),
    own.ChannelStatistics: Kind(_none, "pixel", int8="converted"),
    own.CoordinateSplit: Kind(
        _none, "pixel", int8="converted", flow="window"
    ),  # of its second input it takes the size alone
    own.ResizeLike: Kind(_none, "resized", int8="converted", flow="window"),  # of its second input, the size alone
    own.ImageViews: Kind(_none, "all", keeps_float32=True, needs_float=True, copies=lambda layer: layer.count),
    own.MergeViews: Kind(_none, "features", keeps_float32=True, steep=_always, copies=lambda layer: 1 / layer.count),
    # What works in training alone
    layers.Identity: _IDLE,
    layers.Dropout: _IDLE,
    layers.SpatialDropout1D: Kind(training_only=True, flow="each"),
    layers.SpatialDropout2D: _IDLE,
    layers.AlphaDropout: _IDLE,
    layers.GaussianDropout: _IDLE,
    layers.GaussianNoise: _IDLE,
    layers.ActivityRegularization: Kind(_none, "pixel", view=True, flow="each"),
    own.DropPath: _IDLE,
}

# Keras' random layers for images, which people build into their models. In inference they return images as they are
# (not RandomCrop, which gives another size). Some are younger than the oldest Keras that is supported.
_RANDOM = (
    *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter"),
    *("RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation"),
    *("RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
)
AUGMENTATIONS: tuple[type, ...] = tuple(getattr(layers, name) for name in _RANDOM if hasattr(layers, name))
KINDS.update(dict.fromkeys(AUGMENTATIONS, _AUGMENTATION))

LAYER_SCALES = {
    ("keras.src.applications.convnext", "LayerScale"): dataclasses.replace(_ELEMENTWISE, width="projection_dim"),
    ("kimm._src.layers.layer_scale", "LayerScale"): _ELEMENTWISE,
}
"""Layer scales of other libraries by module and class, which are not public. The factors stand on the last axis."""

SCALED_ADDS = {("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): _MERGE}
"""The same for `inputs[0] + scale * inputs[1]`, with one number for the scale."""

ELSEWHERE = LAYER_SCALES | SCALED_ADDS
"""All rows of classes by module and name."""

_MOVES = Kind(_none, int8="moves", flow="move")
OPERATIONS: dict[str, Kind] = {  # `keras.ops` by the names of their classes
    **dict.fromkeys(
        (
            *("Abs", "Absolute", "Divide", "TrueDivide", "Negative", "Power", "Square"),
            *("Exp", "Maximum", "Minimum", "Clip", "Cast", "Erf", "Tanh"),
            *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu"),
            *("HardTanh", "Softplus", "Softsign", "LogSigmoid", "Celu"),
        ),
        _MERGE,
    ),
    **dict.fromkeys(
        (
            *("Sqrt", "Rsqrt", "Log", "Log2", "Log10", "Reciprocal"),
            *("Sign", "Floor", "Ceil", "Round", "Trunc", "FloorDivide", "Mod"),
        ),
        dataclasses.replace(_MERGE, steep=_always),
    ),
    **dict.fromkeys(("Norm", "Std"), Kind(steep=_always)),
    **dict.fromkeys(("Add", "Subtract", "Multiply"), dataclasses.replace(_MERGE, int8="converted")),
    **dict.fromkeys(("Reshape", "Transpose", "GetItem", "Squeeze", "ExpandDims", "Split"), _MOVES),
    **dict.fromkeys(("Concatenate",), Kind(_none, int8="converted", flow="move")),
    **dict.fromkeys(("Stack",), Kind(_none, flow="move")),
    **dict.fromkeys(("Flip", "Swapaxes", "Moveaxis", "Ravel", "Tile", "Repeat"), _MOVES),
    **dict.fromkeys(("Pad", "MaxPool"), dataclasses.replace(_MOVES, flow="window")),
    "Max": dataclasses.replace(_MOVES, flow="reduce"),
    "Softmax": dataclasses.replace(_MOVES, flow="along"),
    "Resize": Kind(_none, "resized", int8="moves", flow="window"),
    "Mean": Kind(_none, int8="converted", flow="reduce"),
    **dict.fromkeys(("Sum", "Min", "Var"), Kind(needs_float=True, flow="reduce")),
    "Matmul": Kind(_matmul, int8="converted"),
    "Dot": Kind(_matmul),
    "Inner": Kind(_matmul),
    "Tensordot": Kind(_tensordot),
    "Einsum": Kind(lambda layer, inputs, outputs: _einsum(layer.subscripts, inputs, outputs[0])),
    "Conv": Kind(_convolved(lambda kernel: kernel[:-1])),
    "DepthwiseConv": Kind(_convolved(lambda kernel: kernel[:-2])),
    **dict.fromkeys(("Selu", "Celu", "Softplus", "LogSigmoid"), dataclasses.replace(_MERGE, needs_float=True)),
    **dict.fromkeys(
        (
            *("Squareplus", "SparsePlus", "SparseSigmoid", "TanhShrink"),
            *("AveragePool", "AdaptiveAveragePool"),
        ),
        Kind(needs_float=True),
    ),
    **dict.fromkeys(("HardShrink", "Threshold", "Sparsemax"), Kind(needs_float=True, steep=_always)),
    **dict.fromkeys(("LayerNorm", "RMSNorm"), Kind(needs_float=True, steep=_of_few)),
    "Normalize": Kind(needs_float=True, steep=_always),
}


INT8_ACTIVATIONS = frozenset(
    (
        *("linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid", "tanh", "softmax", "log_softmax", "gelu", "silu"),
        *("hard_sigmoid", "hard_silu", "hard_tanh", "exponential", "softsign", "soft_shrink", "glu"),
    )
)
"""Keras' activations that the converter's int8 operators compute to the last step or nearly so."""

JUMPS = frozenset(("hard_shrink", "threshold", "sparsemax"))
"""Keras' activations that jump; sparsemax where the number of its outputs above 0 changes."""


def kind(layer: Any) -> Kind:
    """The row of what a layer or bare operation computes; `UNKNOWN` where it may compute anything."""
    if not isinstance(layer, keras.layers.Layer):
        return OPERATIONS.get(type(layer).__name__, UNKNOWN)
    for base in type(layer).__mro__:
        if base in KINDS:
            return KINDS[base]
        if (elsewhere := (base.__module__, base.__name__)) in ELSEWHERE:
            return ELSEWHERE[elsewhere]
        if "call" in vars(base):
            break
    return UNKNOWN


def base_kind(layer_class: type) -> Kind:
    """The row of the class or its nearest base class, even if its `call` is its own."""
    return next((KINDS[base] for base in layer_class.__mro__ if base in KINDS), UNKNOWN)


def exact_kind(layer_class: type) -> Kind:
    """The row of exactly this class."""
    return KINDS.get(layer_class, UNKNOWN)


def copies(graph: Graph) -> dict[Tensor, int]:
    """How many images of a tensor's batch stand for one image of the model's: of most tensors one."""
    found = {tensor: 1 for call in graph.input_calls for tensor in call.outputs}
    for call in graph.calls:
        row = exact_kind(type(call.layer))
        before = max((found[tensor] for tensor in call.inputs), default=1)
        after = before if row.copies is None else round(before * row.copies(call.layer))
        found.update(dict.fromkeys(call.outputs, after))
    return found


def affine(layer: Any) -> Affine | None:
    """Scale and shift over the last axis, float64 (C,) or (), of a layer that is affine per channel at inference.

    None for any other layer. The exact classes only: a subclass may compute something else.
    """
    read = exact_kind(type(layer)).affine
    return None if read is None else read(layer)


def activation_of(layer: Any) -> str | None:
    """The Keras name of the activation that a layer is, such as `"relu6"`; None if it is anything else.

    Exact classes only. None also for ReLUs with a slope, a threshold or another limit than 6, and for a function of the
    user's own.
    """
    if type(layer) is layers.ReLU:
        plain = not layer.negative_slope and not layer.threshold
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value) if plain else None
    return activation_name(layer) if type(layer) is layers.Activation else None


def activation_name(layer: Any) -> str | None:
    """The Keras name of a layer's `activation`; None for a function of the user's own."""
    return function_name(layer.activation)


def function_name(activation: Any) -> str | None:
    """The name of one of Keras' activation functions; None for a function of the user's own."""
    if is_own_function(activation):
        return None
    name = keras.activations.serialize(activation)
    if not isinstance(name, str):
        return None
    try:
        return name if keras.activations.get(name) is activation else None
    except ValueError:  # no activation of that name
        return None


def operation_name(layer: Any) -> str:
    """Name of a layer's class; of a `keras.ops` operation with `ops.` in front."""
    name = type(layer).__name__
    return name if isinstance(layer, keras.layers.Layer) else f"ops.{name}"
