"""Runs a model on one image and keeps the feature maps that its layers make."""

import difflib
from typing import Any, NamedTuple

import keras
import numpy as np

from keraslight.errors import InvalidArgumentError
from keraslight.graph import Call, Graph, Tensor, infer, run


class Map(NamedTuple):
    """Output of a layer."""

    call: Call
    tensor: Any  # (1, h, w, c), with more than one pixel


def image_input(graph: Graph) -> Tensor:
    """Returns the graph's only input, an image (B, H, W, C)."""
    inputs = keras.tree.flatten(graph.inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise InvalidArgumentError(
            "`model` must have one input, an image (B, H, W, C). "
            f"Received: inputs of shape {[tensor.shape for tensor in inputs]}."
        )
    return inputs[0]


def one_image(graph: Graph, image: Any) -> np.ndarray:
    """Returns the image as a batch of one, (1, H, W, C) float32, if it has the size of the model's only input."""
    shape = image_input(graph).shape[1:]
    pixels = np.asarray(image, "float32")
    if pixels.ndim != 3 or any(own not in (None, given) for own, given in zip(shape, pixels.shape, strict=True)):
        raise InvalidArgumentError(
            f"`image` must be (height, width, channels) of the model's size, {shape}. Received: shape {pixels.shape}."
        )
    if not np.isfinite(pixels).all():
        raise InvalidArgumentError("`image` must have finite values. Received: some that are not.")
    return pixels[None]


def feature_maps(graph: Graph, batch: Any) -> tuple[dict[str, Map], list[Any]]:
    """Returns the maps that layers make of a batch of one, in the graph's order by path, and the model's outputs.

    Of a layer that is called several times, the last call counts.
    """
    maps: dict[str, Map] = {}

    def call_layer(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = infer(call, args, kwargs)
        flat = keras.tree.flatten(made)
        if len(flat) == 1 and len(flat[0].shape) == 4 and flat[0].shape[1] * flat[0].shape[2] > 1:
            maps.pop(call.path, None)  # so that the order is that of the last calls
            maps[call.path] = Map(call, flat[0])
        return made

    outputs = keras.tree.flatten(run(graph, [batch], call_layer))
    if not maps:
        raise InvalidArgumentError(
            f"`model` must have layers that make maps (B, h, w, c) of more than one pixel. Received: {graph.name!r}."
        )
    return maps, outputs


def find_map(path: str, maps: dict[str, Map]) -> Map:
    """Returns a layer's map. The error for a layer without one lists the nearest names."""
    if path not in maps:
        near = difflib.get_close_matches(path, maps, 3) or list(maps)[-3:]
        raise InvalidArgumentError(
            "A layer must be one that makes maps (B, h, w, c) of more than one pixel, "
            f"such as {', '.join(map(repr, near))}. Received: {path!r}."
        )
    return maps[path]


def to_numpy(tensor: Any) -> np.ndarray:
    """Converts a float tensor of any type to a float32 array."""
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))
