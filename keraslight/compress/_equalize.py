"""Prepares a float model for int8: equalizes the channels of consecutive layers and corrects rounding's bias."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keraslight.compress import _data, _graph
from keraslight.compress._fuse import fuse
from keraslight.compress._rewriter import CONVOLUTIONS, DEPTHWISE, Rewriter, Step
from keraslight.errors import InvalidArgumentError

# Layers that may lie between two equalized ones: a factor a channel goes through them unchanged.
_THROUGH = (
    *(keras.layers.ZeroPadding2D, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
)
_ROUNDED = (keras.layers.Dense, *CONVOLUTIONS, *DEPTHWISE)
_ROUNDS = 20
_IMAGES = 32


def equalize(model: keras.Model, *, replace_relu6: bool = False) -> keras.Model:
    """Moves factors between consecutive layers until the channels of both need the same range.

    Int8 gives a whole tensor one scale, so a channel of small values keeps few of its 256 steps: what makes depthwise
    nets lose most. Where one layer's output goes only to the next one, through nothing but a ReLU, padding or pooling,
    channel `i` can be divided by any `s > 0` in the first and multiplied by it in the second without a change of the
    output; here `s = sqrt(r1 / r2)` of the largest magnitudes of the channel's two kernels, repeated along the net.
    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    https://arxiv.org/abs/1906.04721, section 4.1.

    Args:
        model: A functional or sequential model. It is not changed.
        replace_relu6: Also equalize over a ReLU6, by making it a ReLU as the paper does. This changes the outputs where
            an activation is above 6; the others stay as they are.

    Returns:
        A new model as `fuse` gives it, equalized.

    Raises:
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    fused = fuse(model)
    rewriter = Rewriter(_graph.read(fused))
    pairs = [(step, after) for step in rewriter.steps if (after := _next(rewriter, step, replace_relu6)) is not None]
    for first, _ in pairs:
        if first.config["activation"] == "relu6":
            first.config["activation"] = "relu"
    for _ in range(_ROUNDS):
        largest = 0.0
        for first, second in pairs:
            ours, theirs = _output_range(first), _input_range(second)
            factor = np.ones_like(ours)
            alive = (ours > 0) & (theirs > 0)
            factor[alive] = np.sqrt(ours[alive] / theirs[alive])
            rewriter.put_out(first, 1 / factor, np.zeros(()))
            rewriter.take_in(second, factor, np.zeros(()))
            largest = max(largest, np.abs(np.log(factor)).max())
        if largest < 0.01:
            break
    return rewriter.model(model.name)


def correct_bias(model: keras.Model, data: Any, *, seed: int = 0) -> keras.Model:
    """Adds to every bias what rounding the kernels to 8 bits takes from its channel's mean.

    The kernels that come out are not rounded; the model is meant to be converted next. Means are taken before the
    activation, over 32 images, layer after layer with all corrections before it in place.
    Source: Nagel et al., https://arxiv.org/abs/1906.04721, section 4.2 and appendix D (the empirical way).

    Args:
        model: A functional or sequential model. It is not changed.
        data: A tf.data.Dataset of batches of images or of (images, labels), an array of images, or a pair of arrays.
        seed: Seed of the choice of images from arrays.

    Returns:
        A new model as `fuse` gives it, with other biases.

    Raises:
        InvalidArgumentError: `data` can't be used, has images of another shape, or the model has several inputs.
        CompressionError: the model is subclassed, or a layer's configuration does not make it again.
    """
    fused = fuse(model)
    if len(fused.inputs) != 1:
        raise InvalidArgumentError(f"A model to correct must have one input. Received: {len(fused.inputs)}.")
    images = first_images(fused, data, _IMAGES, seed)
    rewriter = Rewriter(_graph.read(fused))
    steps = {step.call.name: step for step in rewriter.steps}
    chosen = {name for name, step in steps.items() if step.has_kernel and step.kind in _ROUNDED}
    means: dict[str, np.ndarray] = {}

    def call_float(call, args, kwargs):
        if call.name not in chosen:
            return call.layer(*args, **kwargs)
        y = _linear(steps[call.name], steps[call.name].weights)(*args, **kwargs)
        means[call.name] = _channel_means(y)
        return call.layer.activation(y)

    def call_rounded(call, args, kwargs):
        if call.name not in chosen:
            return call.layer(*args, **kwargs)
        step = steps[call.name]
        y = _linear(step, [_rounded(step, step.kernel), *step.weights[1:]])(*args, **kwargs)
        missing = means[call.name] - _channel_means(y)
        step.set_kernel(step.kernel, np.broadcast_to(step.bias, missing.shape) + missing)
        return call.layer.activation(y + missing.astype("float32"))

    rewriter.graph.rebuild([images], call_float)
    rewriter.graph.rebuild([images], call_rounded)
    return rewriter.model(model.name)


def first_images(model: keras.Model, data: Any, count: int, seed: int) -> np.ndarray:
    """The first images of a data set, or some of an array's, as float32, for a model that takes them."""
    parts: list[np.ndarray] = []
    for images in _data.image_batches(data, count, seed):
        _data.check_images(images, model)
        parts.append(images.numpy())
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count].astype("float32")


def _next(rewriter: Rewriter, step: Step, replace_relu6: bool) -> Step | None:
    """The layer that alone reads what this one gives, if a factor can be moved between them."""
    activations = ("linear", "relu", "relu6") if replace_relu6 else ("linear", "relu")
    if not (step.has_kernel and step.kind in _ROUNDED and step.config["activation"] in activations):
        return None
    while True:
        readers = rewriter.readers.get(step.call.outputs[0], [])
        if len(readers) != 1 or readers[0] is None:
            return None
        (step,) = readers
        if step.has_kernel:
            return step if step.kind in _ROUNDED else None
        if step.kind not in _THROUGH or len(step.call.inputs) != 1:
            return None


def _output_range(step: Step) -> np.ndarray:
    """The largest magnitude that makes each output channel."""
    kernel = np.abs(step.kernel)
    if step.kind in DEPTHWISE:
        return kernel.max(axis=tuple(range(kernel.ndim - 2))).reshape(-1)
    return kernel.max(axis=tuple(range(kernel.ndim - 1)))


def _input_range(step: Step) -> np.ndarray:
    """The largest magnitude that reads each input channel."""
    kernel = np.abs(step.kernel)
    kernel = kernel.max(axis=tuple(range(kernel.ndim - 2)))
    if step.kind in DEPTHWISE:
        return kernel.max(axis=1)
    groups = step.config.get("groups", 1)
    # (inside, groups * outputs of one) -> (groups, inside): input channel g * inside + i is the i-th of group g.
    return kernel.reshape(len(kernel), groups, -1).max(axis=2).T.reshape(-1)


def _linear(step: Step, weights: list[np.ndarray]):
    """The step's layer with other weights and without its activation."""
    layer = step.kind.from_config({**step.config, "activation": "linear", "name": None})
    layer.build(step.call.layer.get_build_config()["input_shape"])
    layer.set_weights(weights)
    return layer


def _rounded(step: Step, kernel: np.ndarray) -> np.ndarray:
    """The kernel as an int8 file holds it: symmetric, -127..127, one scale for each output channel."""
    axes = tuple(range(kernel.ndim - (2 if step.kind in DEPTHWISE else 1)))
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127
    return np.round(kernel / np.where(scale > 0, scale, 1)) * scale


def _channel_means(y) -> np.ndarray:
    y = np.asarray(y, np.float64)
    return y.mean(axis=tuple(range(y.ndim - 1)))
