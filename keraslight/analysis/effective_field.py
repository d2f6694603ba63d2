"""The part of the image that an output value does depend on, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keraslight.analysis._gradient import gradient
from keraslight.analysis._graph import graph_of
from keraslight.errors import InvalidArgumentError

_IMAGES = 8  # random images, where none are given


@dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """How much the middle of a map depends on each pixel of the image.

    Attributes:
        layer: The layer whose output it is.
        map: (H, W) of the image, from 0 to 1: the mean size of the gradient, divided by the largest. All 0 where
            nothing depends on the image, such as behind a ReLU that is off everywhere.
    """

    layer: str
    map: np.ndarray

    def extent(self, share: float = 0.95) -> tuple[int, int]:
        """Height and width in pixels: the shortest run of rows, and of columns, that holds a share of the map's sum.

        Args:
            share: In (0, 1].

        Returns:
            (0, 0) for a map of zeros.

        Raises:
            InvalidArgumentError: `share` is out of its range.
        """
        if not 0 < share <= 1:
            raise InvalidArgumentError(f"`share` must be in (0, 1]. Received: share={share}.")
        return _shortest(self.map.sum(axis=1), share), _shortest(self.map.sum(axis=0), share)


def effective_receptive_field(
    model: keras.Model,
    layer: str | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    images: Any = None,
    seed: int = 0,
) -> EffectiveReceptiveField:
    """How much the middle of a layer's map depends on each pixel, by the gradient, with the weights as they are.

    `receptive_field` says what a value can see; most of it hardly counts. In a stack of `n` convolutions the paths
    from a pixel to the value are many in the middle and few at the rim, so the map is nearly a Gaussian whose width
    grows with the square root of `n` while the theoretical field grows with `n`. Training widens it.
    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS
    2016, https://arxiv.org/abs/1701.04128, section 2 and figure 1.

    The measured value is the sum over the channels at the middle place (of an even side the one after the middle), in
    inference; the map is the mean of its absolute gradient over the images and their channels.

    Args:
        model: A functional model of one image (B, H, W, C), channels last, on a backend with gradients.
        layer: The name of a layer with an output (B, H', W', C'); of a shared one its last call counts. None is the
            last layer whose map has more than one place.
        size: Side of the random images in pixels, or (height, width), where the model leaves it open. None is the
            model's own.
        images: (N, H, W, C) to average over, normalized as the model wants them. None draws 8 from a standard normal
            distribution.
        seed: Of these.

    Raises:
        InvalidArgumentError: no such layer or map, an open size, or images that do not fit the model.
    """
    graph = graph_of(model)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise InvalidArgumentError(
            "`model` must have one input, an image (B, H, W, C). "
            f"Received: inputs of shape {[tuple(t.shape) for t in graph.inputs]}."
        )
    name, tensor = _map_of(graph, layer)
    if images is None:
        shape = _image_shape(tuple(graph.inputs[0].shape[1:]), size)
        images = np.random.default_rng(seed).normal(size=(_IMAGES, *shape))
    images = np.asarray(images, "float32")
    fits = (
        images.ndim == 4
        and len(images)
        and all(own in (None, side) for own, side in zip(graph.inputs[0].shape[1:], images.shape[1:], strict=True))
    )
    if not fits:
        raise InvalidArgumentError(
            f"`images` must be (N, H, W, C) of the model's size {tuple(graph.inputs[0].shape[1:])}. "
            f"Received: shape {images.shape}."
        )
    part = keras.Model(graph.inputs, tensor)

    def middle(image):
        values = part(image, training=False)
        return values[:, values.shape[1] // 2, values.shape[2] // 2]

    # One at a time: the maps of a batch would all stay in memory until the way back.
    strength = sum(np.abs(gradient(middle, image[None])[1][0]).sum(axis=-1) for image in images)
    largest = strength.max()
    return EffectiveReceptiveField(name, strength / largest if largest else strength)


def _map_of(graph: keras.Model, layer: str | None) -> tuple[str, keras.KerasTensor]:
    """The name and the output of the asked layer."""
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
    outputs = {node.operation.name: node.output_tensors[0] for node in nodes if not node.is_input}
    maps = {name: tensor for name, tensor in outputs.items() if len(tensor.shape) == 4}
    if layer is None:
        for name, tensor in reversed(maps.items()):
            if tuple(tensor.shape[1:3]) != (1, 1):
                return name, tensor
        raise InvalidArgumentError(
            f"`model` must have a layer whose map (B, H, W, C) has more than one place. Received: {graph.name!r}."
        )
    if layer not in maps:
        what = f"an output of shape {tuple(outputs[layer].shape)}" if layer in outputs else "no such layer"
        raise InvalidArgumentError(
            f"`layer` must name a layer of the model with an output (B, H, W, C). Received: {layer!r}, {what}."
        )
    return layer, maps[layer]


def _image_shape(own: tuple, size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    sides = own[:2] if size is None else (size, size) if isinstance(size, int) else tuple(size)
    given = (*sides, own[2])
    if None in given:
        raise InvalidArgumentError(
            f"Random images need a fixed size: give `size`, or `images`. Received: images {own}, size={size}."
        )
    if len(sides) != 2 or min(sides) < 1 or any(a not in (None, b) for a, b in zip(own, given, strict=True)):
        raise InvalidArgumentError(
            f"`size` must be a side or (height, width) that fits the model's images {own}. Received: size={size}."
        )
    return given


def _shortest(values: np.ndarray, share: float) -> int:
    """The length of the shortest run that holds the share of the sum."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype="float64")])
    if not sums[-1]:
        return 0
    # What rounding may take from the sum of all must not push the run to the array's ends.
    needed = sums[-1] * share * (1 - 1e-9)
    ends = np.searchsorted(sums, sums[:-1] + needed)
    return int(min(end - start for start, end in enumerate(ends) if end < len(sums)))
