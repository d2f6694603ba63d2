"""Slices of a map that are concatenated again, in a form that int8 can take."""

from __future__ import annotations

import keras
import numpy as np

from keraslight.compress import _graph
from keraslight.layers import ChannelSlice


def join_slices(model: keras.Model) -> keras.Model:
    """Replaces every concatenation of channel slices of one map by a constant 1x1 convolution of zeros and ones.

    Int8 gives all that a concatenation joins its output's scale, and a slice its input's. Where several concatenations
    read the same slices (LeNet-5's table of maps), TFLite's converter contradicts itself: "violate the same scale
    constraint". A convolution may have another scale on each side, and picks channels without an error.

    Args:
        model: A functional or sequential model. It is not changed.

    Returns:
        A copy with the same outputs and layer names, or the model itself where there is nothing to replace.
    """
    if not _joins(_graph.read(model)):
        return model
    graph = _graph.read(_graph.copy(model))
    joins, maps = _joins(graph), {}  # maps: a slice's output in the graph -> what it is a slice of

    def call_layer(call, args, kwargs):
        if type(call.layer) is ChannelSlice and call.outputs:
            maps[call.outputs[0]] = args[0]
        if id(call) in joins and len(args[0][0].shape) == 4:
            source = maps[call.inputs[0]]
            parts = [slice(layer.start, layer.stop, layer.step) for layer in joins[id(call)]]
            channels = [c for part in parts for c in range(source.shape[-1])[part]]
            return _selection(source, channels, call.name)
        return call.layer(*args, **kwargs)

    return graph.model(model.name, call_layer)


def _joins(graph: _graph.Graph) -> dict[int, list[ChannelSlice]]:
    """Id of each call that concatenates channel slices of one tensor -> the slices."""
    makers = {tensor: call for call in graph.calls for tensor in call.outputs}
    found = {}
    for call in graph.calls:
        if type(call.layer) is not keras.layers.Concatenate or call.layer.axis not in (-1, 3):
            continue
        parts = [makers.get(tensor) for tensor in call.inputs]
        if all(part is not None and type(part.layer) is ChannelSlice for part in parts) and (
            len({part.inputs[0] for part in parts}) == 1
        ):
            found[id(call)] = [part.layer for part in parts]
    return found


def _selection(source: keras.KerasTensor, channels: list[int], name: str) -> keras.KerasTensor:
    """(B, H, W, C) -> (B, H, W, len(channels))."""
    layer = keras.layers.Conv2D(len(channels), 1, use_bias=False, trainable=False, name=name)
    output = layer(source)
    layer.set_weights([np.eye(source.shape[-1], dtype=np.float32)[:, channels][None, None]])
    return output
