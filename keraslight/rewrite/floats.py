"""Float32 images in place of uint8 ones."""

import dataclasses
from typing import Any

import keras

from keraslight.errors import InvalidArgumentError
from keraslight.graph import Graph, Node, Tensor

_WRAPS = ("Add", "Subtract", "Multiply", "Negative", "Square", "Power")  # layers and operations


def float_inputs(graph: Graph) -> Graph:
    """A graph that takes whole numbers in float32 where it took uint8.

    What follows computes the same of both: layers cast what they get, and operations promote it. Files have float
    inputs, and rewrites may fold a normalization into the layer behind it.

    Args:
        graph: The graph. It is not changed.

    Raises:
        InvalidArgumentError: A layer computes in uint8, beyond whose ends numbers wrap around.
    """
    if not any(call.outputs[0].dtype == "uint8" for call in graph.input_calls):
        return graph
    new: dict[Tensor, Tensor] = {}
    input_calls = []
    for call in graph.input_calls:
        (tensor,) = call.outputs
        if tensor.dtype == "uint8":
            new[tensor] = dataclasses.replace(tensor, dtype="float32")
            layer = keras.layers.InputLayer(batch_shape=call.layer.batch_shape, dtype="float32", name=call.name)
            call = dataclasses.replace(call, node=Node(layer, call.name), outputs=[new[tensor]])
        input_calls.append(call)

    def moved(structure: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: new.get(leaf, leaf) if isinstance(leaf, Tensor) else leaf, structure
        )

    copy = graph.copy()
    for call in copy.calls:
        call.args, call.kwargs = moved(call.args), moved(call.kwargs)
        if not new.keys().isdisjoint(call.inputs) and all(tensor.dtype == "uint8" for tensor in call.outputs):
            # It moves images, as cropping does, so that what reads it reads floats as well.
            if type(call.layer).__name__ in _WRAPS:
                raise InvalidArgumentError(
                    "A model must not compute in uint8, where 100 - 200 is 156: cast its images to float first, for "
                    f"example with a Rescaling layer. Received: layer {call.name!r} of uint8 images."
                )
            new.update((tensor, dataclasses.replace(tensor, dtype="float32")) for tensor in call.outputs)
            call.outputs = [new[tensor] for tensor in call.outputs]
    return dataclasses.replace(copy, inputs=moved(graph.inputs), outputs=moved(graph.outputs), input_calls=input_calls)
