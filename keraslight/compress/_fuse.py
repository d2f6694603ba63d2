"""Folds batch norms into the layer before them."""

from __future__ import annotations

import keras
import numpy as np

from keraslight.compress import _graph
from keraslight.layers import BatchNorm


def fuse(model: keras.Model) -> keras.Model:
    """Folds every batch norm that directly follows a Conv2D, DepthwiseConv2D or Dense into that layer.

    At inference a batch norm is `y = s * x + t` with `s = gamma / sqrt(variance + epsilon)` and
    `t = beta - s * mean`, so the layer before can do it: its kernel is multiplied by `s`, its bias becomes
    `s * bias + t`. TensorFlow's graph optimizer does not do this by itself. A batch norm is left as it is where that
    would change the result: after another kind of layer, after an activation, where something else reads the tensor
    between the two, on another axis than the last, and where either layer is used twice.

    Args:
        model: A functional or sequential model. It is not changed.

    Returns:
        A new functional model for inference with the same inputs, outputs and layer names less the folded batch
        norms. Models nested in it are opened up.

    Raises:
        CompressionError: the model is subclassed.
    """
    graph = _graph.read(model)
    folded = _foldable(graph)
    norms = {id(norm): layer for layer, norm in folded.values()}
    copies: dict[str, keras.Layer] = {}

    def call_layer(call, args, kwargs):
        if id(call.layer) in norms:
            return args[0]
        if call.name not in copies:
            config = {**call.layer.get_config(), "name": call.name}
            if call.name in folded:
                config["use_bias"] = True
            copies[call.name] = type(call.layer).from_config(config)
        return copies[call.name](*args, **kwargs)

    fused = graph.model(model.name, call_layer)
    for name, layer in graph.layers().items():
        if name in folded:
            copies[name].set_weights(_folded_weights(*folded[name]))
        elif name in copies and getattr(layer, "weights", ()):  # a bare operation has none
            copies[name].set_weights(layer.get_weights())
    return fused


def _foldable(graph: _graph.Graph) -> dict[str, tuple]:
    """Layer name -> (layer, the batch norm to fold into it)."""
    uses: dict[int, int] = {}
    for call in graph.calls:
        uses[id(call.layer)] = uses.get(id(call.layer), 0) + 1
    consumers = graph.consumers()
    pairs = {}
    for call in graph.calls:
        layer, readers = call.layer, consumers[call.outputs[0]]
        norm = readers[0].layer if len(readers) == 1 and readers[0] is not None else None
        if (
            isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense)
            and type(norm) in (keras.layers.BatchNormalization, BatchNorm)
            and layer.activation is keras.activations.linear
            and getattr(layer, "data_format", "channels_last") == "channels_last"
            and norm.axis in (-1, layer.output.ndim - 1)
            and uses[id(layer)] == uses[id(norm)] == 1
        ):
            pairs[call.name] = (layer, norm)
    return pairs


def scale_and_shift(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a batch norm does at inference, `scale * x + shift`, in float64."""
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    return scale, (np.asarray(norm.beta) if norm.center else 0) - mean * scale


def _folded_weights(layer, norm) -> list[np.ndarray]:
    scale, shift = scale_and_shift(norm)
    kernel = np.asarray(layer.kernel, np.float64)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0
    # A depthwise kernel is (h, w, channels, multiplier), and its output channel is channel * multiplier + m.
    shape = kernel.shape[-2:] if isinstance(layer, keras.layers.DepthwiseConv2D) else (-1,)
    return [kernel * scale.reshape(shape), bias * scale + shift]
