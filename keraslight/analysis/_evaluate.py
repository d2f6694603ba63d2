"""A functional model run layer by layer on an image, so that what a layer makes can be looked at or replaced."""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keraslight.analysis._graph import _functional, trace
from keraslight.errors import InvalidArgumentError

Run = Callable[[int, keras.Operation, tuple, dict], Any]
"""Makes a call's outputs from its number (see `evaluate`), the layer, its arguments and keywords."""


def infer(step: int, layer: keras.Operation, args: tuple, kwargs: dict) -> Any:
    """Calls the layer as in inference."""
    if isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def call_names(model: keras.Model) -> list[str]:
    """The layers' names in the order in which `evaluate` numbers their calls; `inner/conv` inside a nested model.

    Raises:
        InvalidArgumentError: the model has no graph.
    """
    return [call.name for call in trace(model).calls if call.inputs]


def evaluate(model: keras.Model, inputs: list, run: Run = infer) -> list:
    """The model's outputs, each call of a layer made by `run`.

    Args:
        model: A model that `call_names` accepts. Models nested in it are opened where they are functional too.
        inputs: A tensor an input, with the batch.
        run: Makes the calls; they are numbered from 0, as in `call_names`.
    """
    return _through(_functional(model), inputs, run, itertools.count())


def _through(graph: keras.Model, inputs: list, run: Run, numbers: Iterator[int]) -> list:
    known = {id(own): given for own, given in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(known)
            if (nested := _functional(node.operation)) is not None:
                given = args[0] if args else kwargs["inputs"]
                if isinstance(given, dict) and not isinstance(nested.input, dict):
                    given = [given[t.name] for t in nested.inputs]  # Keras binds them by name too
                made = _through(nested, keras.tree.flatten(given), run, numbers)
            else:
                made = keras.tree.flatten(run(next(numbers), node.operation, args, kwargs))
            known.update((id(own), new) for own, new in zip(node.output_tensors, made, strict=True))
    return [known[id(t)] for t in graph.outputs]


def one_image(model: keras.Model, image: Any) -> np.ndarray:
    """The image as a batch of one, (1, H, W, C) float32, as the model takes it.

    Raises:
        InvalidArgumentError: it is no image, or not of the model's size; or the model does not take one image.
    """
    inputs = trace(model).inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise InvalidArgumentError(
            "`model` must have one input, an image (B, H, W, C). "
            f"Received: inputs of shape {[tuple(t.shape) for t in inputs]}."
        )
    pixels = np.asarray(image, "float32")
    shape = tuple(inputs[0].shape[1:])
    if pixels.ndim != 3 or any(own not in (None, given) for own, given in zip(shape, pixels.shape, strict=True)):
        raise InvalidArgumentError(
            f"`image` must be (height, width, channels) of the model's size, {shape}. Received: shape {pixels.shape}."
        )
    if not np.isfinite(pixels).all():
        raise InvalidArgumentError("`image` must have finite values. Received: some that are not.")
    return pixels[None]


class Map(NamedTuple):
    """What a call of a layer made.

    Attributes:
        step: The number of the call, as in `evaluate`.
        layer: The layer.
        tensor: (1, h, w, c), with more than one place.
    """

    step: int
    layer: keras.Operation
    tensor: Any


def feature_maps(model: keras.Model, batch: Any) -> tuple[dict[str, Map], list]:
    """All maps that layers make of a batch of one, and the model's outputs.

    Args:
        model: A functional model.
        batch: A tensor (1, H, W, C).

    Returns:
        Layer's name -> its map, in the graph's order; of a layer that is called several times, the last call's.

    Raises:
        InvalidArgumentError: no layer makes a map.
    """
    names = call_names(model)
    maps: dict[str, Map] = {}

    def run(step: int, layer: keras.Operation, args: tuple, kwargs: dict) -> Any:
        made = infer(step, layer, args, kwargs)
        flat = keras.tree.flatten(made)
        if len(flat) == 1 and len(flat[0].shape) == 4 and flat[0].shape[1] * flat[0].shape[2] > 1:
            maps.pop(names[step], None)  # the order is that of the last calls
            maps[names[step]] = Map(step, layer, flat[0])
        return made

    outputs = evaluate(model, [batch], run)
    if not maps:
        raise InvalidArgumentError(
            f"`model` must have layers that make maps (B, h, w, c) of more than one pixel. Received: {model.name!r}."
        )
    return maps, outputs


def find_map(name: str, maps: dict[str, Map]) -> Map:
    """The layer's map.

    Raises:
        InvalidArgumentError: it makes none; the text lists the nearest names.
    """
    if name not in maps:
        near = difflib.get_close_matches(name, maps, 3) or list(maps)[-3:]
        raise InvalidArgumentError(
            "A layer must be one that makes maps (B, h, w, c) of more than one pixel, "
            f"such as {', '.join(map(repr, near))}. Received: {name!r}."
        )
    return maps[name]


def to_numpy(tensor: Any) -> np.ndarray:
    """A float32 array of any float tensor."""
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))
