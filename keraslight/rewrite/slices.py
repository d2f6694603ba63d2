"""Slices of a map that are concatenated again, in a form that int8 can take."""

import keras
import numpy as np

from keraslight.graph import Graph, Tensor
from keraslight.graph.kinds import exact_kind


def joined_slices(graph: Graph) -> Graph:
    """Replaces every concatenation of channel slices of one map by a constant 1x1 convolution of zeros and ones.

    Int8 gives all that a concatenation joins its output's scale, and a slice its input's. Where several concatenations
    read the same slices (LeNet-5's table of maps), TFLite's converter contradicts itself: "violate the same scale
    constraint". A convolution may have another scale on each side, and picks channels without an error.

    Args:
        graph: The graph. It is not changed.

    Returns:
        A graph with the same outputs and layer names, or the graph itself where there is nothing to replace.
    """
    makers, uses = graph.makers(), graph.uses()
    joins: dict[int, tuple[Tensor, list[int]]] = {}  # number of a concatenation -> the map and its channels
    for number, call in enumerate(graph.calls):
        parts = [makers.get(tensor) for tensor in call.inputs]
        if call.node.kind is not keras.layers.Concatenate or call.layer.axis not in (-1, 3) or uses[call.node] > 1:
            continue
        slices = [
            (part.inputs[0], read(part.layer))
            for part in parts
            if part is not None and (read := exact_kind(part.node.kind).channels) is not None
        ]
        sources = {source for source, _ in slices}
        if len(slices) == len(parts) and len(sources) == 1 and len(call.outputs[0].shape) == 4:
            source = sources.pop()
            numbers = range(source.shape[-1] or 0)
            joins[number] = source, [c for _, channels in slices for c in numbers[channels]]
    if not joins:
        return graph
    copy = graph.copy()
    for number, (source, channels) in joins.items():
        call = copy.calls[number]
        convolution = keras.layers.Conv2D(len(channels), 1, use_bias=False, trainable=False, name=call.name)
        kernel = np.eye(source.shape[-1] or 0, dtype=np.float32)[:, channels][None, None]
        call.node.change(kind=keras.layers.Conv2D, config=convolution.get_config(), weights=[kernel])
        call.args, call.kwargs = (source,), {}
    copy.drop_unused()
    return copy
