"""Parameters and multiply-adds of a functional model, counted as the reference tables count them."""

from __future__ import annotations

import math

import keras
from keras import layers

from keraslight.errors import InvalidArgumentError
from keraslight.layers import C4GroupConv2D, C4LiftingConv2D, CodeDistance, ConditionalConv2D, DeformableConv2D


def count_parameters(model: keras.Model) -> int:
    """The number of learned parameters, frozen ones too, without batch normalization's moving statistics.

    `model.count_params()` counts the statistics too; PyTorch's tables and papers do not.
    """
    return sum(math.prod(w.shape) for w in learned_weights(model))


def learned_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer or model without batch normalization's statistics and the state of random numbers."""
    statistics = {
        id(variable)
        for part in layer._flatten_layers()
        if isinstance(part, layers.BatchNormalization)
        for variable in (part.moving_mean, part.moving_variance)
    }
    return [w for w in layer.weights if id(w) not in statistics and "seed" not in w.path]


def count_macs(model: keras.Model) -> int:
    """Multiply-adds of one image through convolutions, dense layers and matrix products (`Dot`).

    Element-wise work, pooling and normalization are not counted, as usual. Nor is a type of layer that is not known
    here: `profile(model).unknown` lists these.

    Args:
        model: A functional model with a fixed input size.

    Raises:
        InvalidArgumentError: a layer's output size is unknown, since an input side is None.
    """
    # Nodes, not layers: a shared layer costs once a call. Keras has no public list of them.
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its graph there
    nodes = [node for depth in graph._nodes_by_depth.values() for node in depth]
    return sum(
        _macs(node.operation, [t.shape for t in node.input_tensors], [t.shape for t in node.output_tensors])
        for node in nodes
    )


def _macs(operation: keras.Operation, inputs: list[tuple], outputs: list[tuple]) -> int:
    size = outputs[0][1:]
    match operation:
        case layers.Conv1D() | layers.Conv2D() | layers.Conv3D() | layers.Dense() | C4LiftingConv2D() | C4GroupConv2D():
            # One output value costs a kernel's worth of products: (kh, kw, C_in / groups, F) or (C_in, F).
            each = math.prod(operation.kernel.shape[:-1])
        case layers.DepthwiseConv2D():
            each = math.prod(operation.kernel.shape[:2])  # (kh, kw, C, multiplier): a window in one channel
        case layers.Conv2DTranspose():
            # One input value is spread over a window of all filters: (kh, kw, F, C_in).
            size, each = inputs[0][1:], math.prod(operation.kernel.shape[:-1])
        case layers.SeparableConv2D():
            # Not the same for each output value, so for each pixel: both kernels once.
            size = [None if None in size else math.prod(size) // operation.filters]
            each = math.prod(operation.depthwise_kernel.shape) + math.prod(operation.pointwise_kernel.shape)
        case ConditionalConv2D():
            # Pixels by one kernel, and once an image the routing and the mix of the experts' kernels.
            kernel = operation.kernel.shape[1:-1]
            once = math.prod(operation.kernel.shape) + math.prod(operation.routing_kernel.shape)
            size = [None if None in size else once + math.prod(size) * math.prod(kernel)]
            each = 1
        case DeformableConv2D():
            # The offsets' convolution at the same places, then the kernel; the sampling is element-wise work.
            offsets, kernel = operation.offset_conv.kernel.shape, operation.kernel.shape
            size = [None if None in size else math.prod(size) // operation.filters]
            each = math.prod(offsets) + math.prod(kernel)
        case CodeDistance():
            each = inputs[0][-1]  # the product with the codes
        case layers.Dot():
            each = inputs[0][operation.axes[0] if isinstance(operation.axes, (tuple, list)) else operation.axes]
        case keras.Model():
            return count_macs(operation)  # a nested model
        case _:
            return 0
    if None in size or each is None:
        raise InvalidArgumentError(
            f"Counting needs a fixed input size. Received: layer {operation.name!r} with output {outputs[0]}."
        )
    return each * math.prod(size)
