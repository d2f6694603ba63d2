"""Forms of layers in .tflite files, where LiteRT computes the layer's own operations slowly or otherwise than Keras.

Each form computes what the layer does by other operations. `in_forms` puts them into a graph that is about to be
converted; the quantization-aware twins use the same functions.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keraslight.graph import Call, Graph, Tensor
from keraslight.graph.kinds import (
    INT8_ACTIVATIONS,
    JUMPS,
    activation_of,
    base_kind,
    exact_kind,
    function_name,
    kind,
    operation_name,
)
from keraslight.layers import GRN
from keraslight.rewrite._pieces import MAX_TAPS, cut, is_cut

Form = Callable[..., Any]
_TINY = 1e-37  # above 0 by all that float32 can be
FLOAT_SCOPE = "in_float"
"""Part of the names of the operations that an int8 file computes in float."""


def in_forms(graph: Graph, *, int8: bool, xnnpack: bool = True) -> Graph:
    """Gives calls a form that a .tflite file computes as Keras does, and that XNNPACK has kernels for.

    - L2 normalizations take the root of a number above 0: of zeros XNNPACK's reciprocal root makes NaN.
    - In int8, what needs float gets names with `FLOAT_SCOPE`, and activations with a kernel before them that need float
      become calls of their own; see also `unrounded_calls`.

    XNNPACK runs .tflite files on CPUs; LiteRT's own kernels are many times slower. For it:

    - Depthwise convolutions of more than 25 taps, such as ConvNeXt's, are sums of smaller ones.
    - Every other channel, as ShuffleNetV2 takes it, is half of a transposed map: slices with steps are unsupported.

    In int8 also:

    - Hard swish is ADD, MUL and MUL; see `hard_silu`.
    - A ReLU that no operation before it can take in, as in front of Xception's blocks, is the end of a MUL by nearly 1.
      Int8's own RELU takes 3 ns per number, half of an Xception's time.
    - Average pooling without padding is a depthwise convolution.
    - GRN multiplies where it divides: the interpreter stops at an int8 division by what rounds to 0.

    Args:
        graph: The graph. It is not changed.
        int8: Whether the file is quantized.
        xnnpack: Whether to give calls the forms that are there for XNNPACK's sake.

    Returns:
        A graph to run; `keraslight.graph.build` makes no model of it.
    """
    copy = graph.copy()
    makers, readers, uses = copy.makers(), copy.readers(), copy.uses()

    def is_lone_relu(call: Call) -> bool:
        """Whether a ReLU or ReLU6 becomes an operator of its own."""
        if activation_of(call.layer) not in ("relu", "relu6") or uses[call.node] > 1 or not call.inputs:
            return False
        before = makers.get(call.inputs[0])
        if before is None or len(readers[call.inputs[0]]) > 1 or uses[before.node] > 1:
            return True
        row = base_kind(before.node.kind)
        sums = keras.layers.Add | keras.layers.Subtract | keras.layers.Multiply
        return row.kernel is None and not row.batch_norm and not isinstance(before.layer, sums)

    unrounded = unrounded_calls(copy) if int8 else set()
    # Before any layer is changed: a shared one has several calls.
    activations = {call.node: getattr(call.layer, "activation", None) for call in copy.calls}
    calls = []
    for call in copy.calls:
        calls.append(call)
        layer, row = call.layer, exact_kind(call.node.kind)
        activation = activations[call.node]
        swish = int8 and xnnpack and activation is keras.activations.hard_silu
        call.form = safe_form(layer)
        if call.name in unrounded:
            call.form = in_float(call.form or layer)
        elif xnnpack and call.inputs and is_cut(layer, call.inputs[0]):
            call.form = _in_pieces(layer, hard_silu if swish else layer.activation)
        elif xnnpack and row.channels is not None:
            call.form = functools.partial(channel_slice, channels=row.channels(layer))
        elif swish and type(layer) is keras.layers.Activation:
            call.form = hard_silu
        elif row.kernel is not None and (swish or (int8 and not _in_int8(activation))):
            made, linear = call.outputs, copy.new_tensor(call.outputs[0].shape, call.outputs[0].dtype)
            call.node.change(config={"activation": "linear"})
            call.outputs = [linear]
            form = hard_silu if swish or activation is None else in_float(activation)
            calls.append(dataclasses.replace(call, args=(linear,), kwargs={}, outputs=made, form=form))
        elif int8 and (needs_float(layer) or _is_steep(call)):
            call.form = in_float(call.form or layer)
        elif int8 and xnnpack and is_lone_relu(call):
            call.form = _as_product(keras.activations.get(activation_of(layer)))
        elif int8 and xnnpack and type(layer) is keras.layers.AveragePooling2D and is_convolution(layer):
            call.form = functools.partial(_average, size=tuple(layer.pool_size), strides=layer.strides)
        elif int8 and xnnpack and type(layer) is GRN:
            call.form = functools.partial(
                grn_without_division, gamma=layer.gamma, beta=layer.beta, epsilon=layer.epsilon
            )
    copy.calls = calls
    return copy


def safe_form(layer: Any) -> Form | None:
    """What computes the same as a layer or bare operation and is safe in LiteRT; None where the layer itself is."""
    if type(layer) is keras.layers.UnitNormalization:
        return functools.partial(unit_norm, axis=layer.axis, epsilon=1e-12)
    if operation_name(layer) == "ops.Normalize" and layer.order == 2:
        epsilon = keras.config.epsilon() if layer.epsilon is None else layer.epsilon
        return functools.partial(unit_norm, axis=layer.axis, epsilon=epsilon)
    if _is_cosine(layer):
        return functools.partial(_cosine, axes=layer.axes)
    return None


def needs_float(layer: Any) -> bool:
    """Whether an int8 file computes a layer or bare operation in float."""
    if kind(layer).needs_float or _is_cosine(layer):
        return True
    if type(layer) is keras.layers.AveragePooling2D:
        return not is_convolution(layer)
    return type(layer) is keras.layers.Activation and not _in_int8(layer.activation)


def unrounded_calls(graph: Graph) -> set[str]:
    """Names of the calls that an int8 file computes in float because a steep call reads their outputs.

    A divisor near 0, or a vector that is short for its range, is only a few steps of 8 bits: the quotient, or the
    normalized vector, would be wrong by a large share of its range. So the calls before it stay float, back to the
    last kernel or pooling.
    """
    makers = graph.makers()
    found: set[str] = set()

    def trace(tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            call = makers.get(tensor)
            if call is None or call.name in found:
                continue
            found.add(call.name)
            row = kind(call.layer)
            bare = not isinstance(call.layer, keras.layers.Layer) and not row.multiplies
            if bare or row.elementwise or row.view or row.int8 == "moves":
                trace(call.inputs)

    for call in graph.calls:
        if kind(call.layer).multiplies and _jumps(call.layer):
            found.add(call.name)  # a convolution with its activation in it
        elif _is_steep(call):
            trace(call.inputs)
    return found


def _is_cosine(layer: Any) -> bool:
    return type(layer) is keras.layers.Dot and bool(layer.normalize)


def unit_norm(x: Any, axis: Any, epsilon: float) -> Any:
    """`x / max(norm(x), epsilon)` along an axis or axes."""
    squares = ops.sum(x * x, axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, max(epsilon * epsilon, _TINY)))


def _cosine(inputs: Sequence[Any], axes: int | Sequence[int]) -> Any:
    """`keras.layers.Dot(axes, normalize=True)`."""
    sides = (axes, axes) if isinstance(axes, int) else axes
    epsilon = keras.config.epsilon()
    return keras.layers.Dot(axes)([unit_norm(x, axis, epsilon) for x, axis in zip(inputs, sides, strict=True)])


def hard_silu(x: Any) -> Any:
    """(...) -> (...): `x * relu6(x + 3) / 6`.

    Of the plain formula the converter makes HARD_SWISH, for which XNNPACK has float kernels only: LiteRT's own took
    over half of an int8 MobileNetV3's time and cut its graph into 23 parts. With the sixth at the other factor, or
    after the product, it would be the form that is recognized.
    """
    return ops.relu6(x + 3.0) * (x * (1 / 6))


def channel_slice(x: Any, channels: slice) -> Any:
    """(..., C) -> every `step`-th channel of a range, as a row of the transposed matrix of `step` columns.

    XNNPACK has no slices with steps.
    """
    count, start, step = x.shape[-1], channels.start, channels.step
    if step == 1 or start >= step or channels.stop is not None or count % step or None in x.shape[1:]:
        return x[..., channels]
    rows = ops.transpose(ops.reshape(x, (-1, step)))[start : start + 1]
    return ops.reshape(rows, (-1, *x.shape[1:-1], count // step))


def grn_without_division(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """GRN with `1 / mean` as the root of its square: int8's root of what rounds to 0 is the largest number."""
    norms = ops.sqrt(ops.maximum(ops.sum(x * x, axis=(1, 2), keepdims=True), GRN.TINY))
    mean = ops.mean(norms, axis=-1, keepdims=True) + epsilon
    return x + gamma * (x * (norms * ops.rsqrt(mean * mean))) + beta


def average_kernel(size: tuple[int, int], channels: int) -> np.ndarray:
    """The depthwise kernel (h, w, C, 1) that averages."""
    return np.full((*size, channels, 1), 1 / math.prod(size), np.float32)


def _is_steep(call: Call) -> bool:
    """Whether small errors in a call's input become large errors in its output; see `Kind.steep`."""
    name = operation_name(call.layer)
    other = call.args[1] if len(call.args) > 1 else call.kwargs.get("x2")
    if name in ("ops.Divide", "ops.TrueDivide"):  # also, the interpreter stops at an int8 division by what rounds to 0
        return isinstance(other, Tensor)
    if name == "ops.Power":
        return not (isinstance(other, int | float) and other >= 1)
    if _jumps(call.layer) or _is_cosine(call.layer):
        return True
    steep = kind(call.layer).steep
    return steep is not None and bool(call.inputs) and steep(call.layer, call.inputs[0].shape)


def _jumps(layer: Any) -> bool:
    """Whether an activation, on its own or of a layer with a kernel, jumps."""
    if type(layer) is keras.layers.ReLU:
        return bool(layer.threshold)
    activation = getattr(layer, "activation", None)
    if isinstance(activation, keras.layers.Layer):
        return _jumps(activation)
    return callable(activation) and function_name(activation) in JUMPS


def _in_int8(activation: Form | None) -> bool:
    if activation is None or isinstance(activation, keras.Layer):
        return activation is None or not needs_float(activation)
    return function_name(activation) in INT8_ACTIVATIONS


def in_float(function: Form) -> Form:
    """A function whose operations stay float in an int8 file.

    Two leaky ReLUs with slopes of 2 and 1/2 begin it, which leave every value as it is and which the converter folds
    into nothing. Without them it would take an operation, such as the exponential in softplus, for the same one of an
    int8 function of that tensor, or would average int8 values in their own steps. A product by nearly 1 ends it.
    Without it, where the function ends by choosing among its inputs' values, the converter would give the int8 tensor
    before the function the scale of the one behind it.
    """

    def begun(x: Any) -> Any:
        return ops.leaky_relu(ops.leaky_relu(x, 2.0), 0.5) if _is_float(x) else x

    def form(*args: Any, **kwargs: Any) -> Any:
        with keras.name_scope(FLOAT_SCOPE):
            args, kwargs = keras.tree.map_structure(begun, (args, kwargs))
            outputs = function(*args, **kwargs)
            return keras.tree.map_structure(lambda y: y * (1 + 2**-23) if _is_float(y) else y, outputs)

    return form


def _is_float(x: Any) -> bool:
    return bool(ops.is_tensor(x) and keras.backend.is_float_dtype(x.dtype))


def is_convolution(pooling: keras.layers.AveragePooling2D) -> bool:
    """Whether an average pooling is a depthwise convolution for which XNNPACK has a kernel.

    With padding it isn't: pixels at the border are divided by the number of those that are there.
    """
    sized = math.prod(pooling.pool_size) <= MAX_TAPS
    return sized and pooling.padding == "valid" and pooling.data_format == "channels_last"


def _average(x: Any, size: tuple[int, int], strides: Any) -> Any:
    return ops.depthwise_conv(x, average_kernel(size, x.shape[-1]), strides, "valid")


def _as_product(activation: Form) -> Form:
    """A product takes a ReLU in, as a convolution does."""
    return lambda x: activation(x * (1 + 2**-20))  # the converter drops a product with 1


def _in_pieces(layer: Any, activation: Form | None) -> Form:
    """A depthwise or separable convolution as a sum of smaller depthwise ones."""
    separable = isinstance(layer, keras.layers.SeparableConv2D)
    kernel = ops.convert_to_numpy(layer.depthwise_kernel if separable else layer.kernel)

    def form(x: Any) -> Any:
        pieces = cut(x.shape[1:3], kernel, layer.strides, layer.padding)
        padded = ops.pad(x, [(0, 0), *pieces.padding, (0, 0)]) if np.any(pieces.padding) else x
        parts = [
            ops.depthwise_conv(padded[:, *maps], kernel[taps], layer.strides, "valid")
            for taps, maps in zip(pieces.kernels, pieces.maps, strict=True)
        ]
        if layer.use_bias and not separable:
            parts[-1] = parts[-1] + layer.bias
        outputs = functools.reduce(operator.add, parts)
        if separable:
            outputs = ops.conv(outputs, layer.pointwise_kernel, 1, "valid")
            outputs = outputs + layer.bias if layer.use_bias else outputs
        return outputs if activation is None else activation(outputs)

    return form
