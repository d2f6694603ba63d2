"""The part of the image that an output value really depends on, pixel by pixel."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keraslight.analysis._gradient import gradient
from keraslight.analysis._maps import image_input
from keraslight.errors import InvalidArgumentError
from keraslight.graph import Graph, Tensor, read, run

_IMAGES = 8  # random images, if none are given


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """How much the center of a map depends on each pixel of the image.

    Attributes:
        layer: Layer whose output was measured.
        map: (H, W) of the image, 0 to 1: mean magnitude of the gradient, divided by the largest. All 0 if nothing
            depends on the image, such as after a ReLU that is off everywhere.
    """

    layer: str
    map: np.ndarray

    def extent(self, share: float = 0.95) -> tuple[int, int]:
        """Returns height and width in pixels of the shortest run of rows, and of columns, that holds most of the map.

        Args:
            share: Share of the map's sum that the run holds, in (0, 1].

        Returns:
            (0, 0) for a map of zeros.

        Raises:
            InvalidArgumentError: `share` is out of range.
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
    """Measures how much the center of a layer's map depends on each pixel, by the gradient, with the current weights.

    `receptive_field` says what a value can see, but most of that hardly counts. In a stack of `n` convolutions, many
    paths lead from a central pixel to the value and few from a pixel at the border. The map is therefore close to a
    Gaussian whose width grows with the square root of `n`, while the theoretical field grows with `n`. Training widens
    it.
    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NeurIPS
    2016, https://arxiv.org/abs/1701.04128, section 2 and figure 1.

    The measured value is the sum over the channels at the center (on even sides, the pixel after the center), in
    inference. The map is the mean of its absolute gradient over the images and their channels.

    Args:
        model: A functional model of one image (B, H, W, C), channels last, on a backend with gradients.
        layer: Name of a layer with an output (B, H', W', C'). Of a shared layer, the last call is used. None takes the
            last layer whose map has more than one pixel.
        size: Side of the random images in pixels, or (height, width), if the model leaves it open. None takes the
            model's own.
        images: (N, H, W, C) to average over, normalized as the model expects. None draws 8 from a standard normal
            distribution.
        seed: Seed of the random images.

    Raises:
        InvalidArgumentError: There is no such layer or map, a side is open, or the images don't fit the model.
    """
    graph = read(model, open_nested=False)
    own = image_input(graph).shape[1:]
    name, tensor = _map_of(graph, layer)
    if images is None:
        images = np.random.default_rng(seed).normal(size=(_IMAGES, *_image_shape(own, size)))
    images = np.asarray(images, "float32")
    if (
        images.ndim != 4
        or not len(images)
        or any(a not in (None, b) for a, b in zip(own, images.shape[1:], strict=True))
    ):
        raise InvalidArgumentError(
            f"`images` must be (N, H, W, C) of the model's size {own}. Received: shape {images.shape}."
        )
    part = dataclasses.replace(graph, outputs=tensor)
    part.drop_unused()

    def center(image: Any) -> Any:
        values = run(part, [image])
        return values[:, values.shape[1] // 2, values.shape[2] // 2]

    # One at a time: the maps of a whole batch would stay in memory until the backward pass.
    strength = np.zeros(images.shape[1:3], "float32")
    for image in images:
        strength += np.abs(gradient(center, image[None])[1][0]).sum(axis=-1)
    largest = strength.max()
    return EffectiveReceptiveField(name, strength / largest if largest else strength)


def _map_of(graph: Graph, layer: str | None) -> tuple[str, Tensor]:
    outputs = {call.path: call.outputs[0] for call in graph.calls}
    maps = {name: tensor for name, tensor in outputs.items() if len(tensor.shape) == 4}
    if layer is None:
        for name, tensor in reversed(maps.items()):
            if tensor.shape[1:3] != (1, 1):
                return name, tensor
        raise InvalidArgumentError(
            f"`model` must have a layer whose map (B, H, W, C) has more than one place. Received: {graph.name!r}."
        )
    if layer not in maps:
        what = f"an output of shape {outputs[layer].shape}" if layer in outputs else "no such layer"
        raise InvalidArgumentError(
            f"`layer` must name a layer of the model with an output (B, H, W, C). Received: {layer!r}, {what}."
        )
    return layer, maps[layer]


def _image_shape(own: tuple[int | None, ...], size: int | tuple[int, int] | None) -> tuple[int, ...]:
    sides = own[:2] if size is None else (size, size) if isinstance(size, int) else tuple(size)
    given = [side for side in (*sides, own[2]) if side is not None]
    if len(given) < len(sides) + 1:
        raise InvalidArgumentError(
            f"Random images need a fixed size: give `size`, or `images`. Received: images {own}, size={size}."
        )
    if len(sides) != 2 or min(given) < 1 or any(a not in (None, b) for a, b in zip(own, given, strict=True)):
        raise InvalidArgumentError(
            f"`size` must be a side or (height, width) that fits the model's images {own}. Received: size={size}."
        )
    return tuple(given)


def _shortest(values: np.ndarray, share: float) -> int:
    """Returns the length of the shortest run that holds a share of the sum."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype="float64")])
    if not sums[-1]:
        return 0
    # Reduced, so that rounding of the total doesn't push the run to the array's ends.
    ends = np.searchsorted(sums, sums[:-1] + sums[-1] * share * (1 - 1e-9))
    return int(min(end - start for start, end in enumerate(ends) if end < len(sums)))
