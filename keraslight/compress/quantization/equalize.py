"""Prepares a float model for int8: equalizes the channels of consecutive layers and corrects rounding's bias."""

from typing import Any

import keras
import numpy as np

from keraslight import _batches as _data
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.graph import Call, Graph, build, infer, read, run
from keraslight.graph.kinds import exact_kind
from keraslight.rewrite import float_inputs, fused
from keraslight.rewrite.steps import Step, Steps

_ROUNDED = ("convolution", "depthwise", "dense")
_DEAD = 1e-4  # of the largest kernel of a layer's channels
_ROUNDS = 20
IMAGES = 32


def equalize(model: keras.Model, *, replace_relu6: bool = False) -> keras.Model:
    """Moves factors between consecutive layers until the channels of both need the same range.

    Int8 has one scale per tensor, so a channel of small values uses few of the 256 steps, which is why depthwise nets
    lose most. Where one layer's output goes only to the next one, through no more than a ReLU, padding or pooling,
    channel `i` can be divided by any `s > 0` in the first and multiplied by it in the second without changing the
    output; here `s = sqrt(r1 / r2)` of the largest magnitudes of the channel's two kernels, repeated along the net.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    https://arxiv.org/abs/1906.04721, section 4.1.

    Args:
        model: A functional or sequential model. It is not changed.
        replace_relu6: Also equalize over a ReLU6 by replacing it with a ReLU, as in the paper. This changes the outputs
            where an activation is above 6.

    Returns:
        A new model as `fuse` gives it, equalized.

    Raises:
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    return build(equalized(fused(read(model)), replace_relu6))


def equalized(graph: Graph, replace_relu6: bool = False) -> Graph:
    """Equalizes a fused graph; see `equalize`."""
    steps = Steps(graph)
    pairs = [(step, after) for step in steps if (after := _next(steps, step, replace_relu6)) is not None]
    for first, _ in pairs:
        if first.node.config["activation"] == "relu6":
            first.node.change(config={"activation": "relu"})
    for _ in range(_ROUNDS):
        largest = 0.0
        for first, second in pairs:
            ours, theirs = _output_range(first), _input_range(second)
            factor = np.ones_like(ours)
            # A channel that hardly anything goes into is its bias alone, which must not take all of the range.
            alive = (ours > _DEAD * ours.max()) & (theirs > 0)
            factor[alive] = np.sqrt(ours[alive] / theirs[alive])
            first.scale_outputs(1 / factor, np.zeros(()))
            second.scale_inputs(factor, np.zeros(()))
            largest = max(largest, float(np.abs(np.log(factor)).max()))
        if largest < 0.01:
            break
    return steps.graph


def correct_bias(model: keras.Model, data: Any, *, seed: int = 0) -> keras.Model:
    """Adds to every bias what rounding the kernels to 8 bits removes from its channel's mean.

    The returned kernels are not rounded; the model is meant to be converted next. Means are taken before the
    activation, over 32 images, layer by layer with all earlier corrections applied.

    Source: Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2 and appendix D (the empirical way).

    Args:
        model: A functional or sequential model. It is not changed.
        data: Images, with or without labels, in any form that `calibrate` takes.
        seed: Seed of the choice of images from arrays.

    Returns:
        A new model as `fuse` gives it, with other biases.

    Raises:
        InvalidArgumentError: `data` can't be used, has images of another shape, or the model has several inputs.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
    """
    graph = read(model)
    if len(graph.input_calls) != 1:
        raise InvalidArgumentError(f"A model to correct must have one input. Received: {len(graph.input_calls)}.")
    graph = fused(float_inputs(graph))
    return build(corrected(graph, first_images(model, data, IMAGES, seed)))


def corrected(graph: Graph, images: np.ndarray) -> Graph:
    """Corrects the biases of a fused graph; see `correct_bias`.

    Args:
        graph: The graph. It is not changed.
        images: (N, H, W, C) float32.
    """
    steps = Steps(graph)
    chosen = {step.call.name: step for step in steps if step.has_kernel and step.kernel_kind in _ROUNDED}
    means: dict[str, np.ndarray] = {}

    def call_float(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call.name not in chosen:
            try:
                return infer(call, args, kwargs)
            except Exception as error:
                raise CompressionError(
                    f"Every layer of a model to quantize must run on the images, a batch of {len(images)}. Received: "
                    f"layer {call.name!r}, which raised {type(error).__name__}: {error}"
                ) from error
        y = _linear(call, call.node.weights)(*args, **kwargs)
        means[call.name] = _channel_means(y)
        return call.layer.activation(y)

    def call_rounded(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call.name not in chosen:
            return infer(call, args, kwargs)
        step = chosen[call.name]
        y = _linear(call, [_rounded(step), *call.node.weights[1:]])(*args, **kwargs)
        missing = means[call.name] - _channel_means(y)
        activation = call.layer.activation
        step.set_kernel(step.kernel, step.bias + missing)
        return activation(y + missing.astype("float32"))

    run(steps.graph, [images], call_float)
    run(steps.graph, [images], call_rounded)
    return steps.graph


def first_images(model: keras.Model, data: Any, count: int, seed: int) -> np.ndarray:
    """The first images of a data set, or some of an array's, as float32, for a model that takes them."""
    parts: list[np.ndarray] = []
    for images in _data.image_batches(data, count, seed, rank=len(model.inputs[0].shape)):
        _data.check_images(images, model)
        parts.append(images)
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count].astype("float32")


def _next(steps: Steps, step: Step, replace_relu6: bool) -> Step | None:
    """The layer that alone reads what this one gives, if a factor can be moved between them."""
    activations = ("linear", "relu", "relu6") if replace_relu6 else ("linear", "relu")
    if not (step.has_kernel and step.kernel_kind in _ROUNDED and step.node.config["activation"] in activations):
        return None
    while True:
        readers = steps.readers(step)
        if len(readers) != 1 or readers[0] is None:
            return None
        step = readers[0]
        if step.has_kernel:
            return step if step.kernel_kind in _ROUNDED else None
        if not exact_kind(step.node.kind).scales_through or len(step.call.inputs) != 1:
            return None


def _output_range(step: Step) -> np.ndarray:
    """The largest magnitude that makes each output channel."""
    kernel = np.abs(step.kernel)
    if step.kernel_kind == "depthwise":
        return kernel.max(axis=tuple(range(kernel.ndim - 2))).reshape(-1)
    return kernel.max(axis=tuple(range(kernel.ndim - 1)))


def _input_range(step: Step) -> np.ndarray:
    """The largest magnitude that reads each input channel."""
    kernel = np.abs(step.kernel)
    kernel = kernel.max(axis=tuple(range(kernel.ndim - 2)))
    if step.kernel_kind == "depthwise":
        return kernel.max(axis=1)
    groups = step.node.config.get("groups", 1)
    # (inside, groups * outputs of one) -> (groups, inside): input channel g * inside + i is the i-th of group g.
    return kernel.reshape(len(kernel), groups, -1).max(axis=2).T.reshape(-1)


def _linear(call: Call, weights: list[np.ndarray]) -> keras.layers.Layer:
    """The layer with other weights and without its activation."""
    kind: Any = call.node.kind
    layer = kind.from_config({**call.node.config, "activation": "linear", "name": None})
    layer.build(call.inputs[0].shape)
    layer.set_weights(weights)
    return layer


def _rounded(step: Step) -> np.ndarray:
    """The kernel as an int8 file holds it: symmetric, -127..127, one scale per output channel."""
    kernel = step.kernel
    axes = tuple(range(kernel.ndim - (2 if step.kernel_kind == "depthwise" else 1)))
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127
    return np.round(kernel / np.where(scale > 0, scale, 1)) * scale


def _channel_means(y: Any) -> np.ndarray:
    y = np.asarray(y, np.float64)
    return y.mean(axis=tuple(range(y.ndim - 1)))
