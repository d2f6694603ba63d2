"""From a detector's raw outputs to boxes and scores: one decoder per kind of head, read off the model."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keraslight.detection import boxes as box_maths
from keraslight.detection.anchors import Grid, places, ssd_anchors
from keraslight.detection.boxes import Array
from keraslight.detection.suppression import Suppression
from keraslight.errors import InvalidArgumentError

SSD, NANODET = Suppression(0.05, 0.55, 300, 100), Suppression(0.05, 0.6, 1000, 100)
"""How boxes are chosen by default: as in the authors' codes, but with a threshold for users in the first."""


@dataclasses.dataclass(frozen=True)
class AnchorDecoder:
    """Decodes SSDLite's `class_logits` (B, N, K + 1) and `box_deltas` (B, N, 4).

    Args:
        image_size: Height and width of the network's input, in pixels.
        grids: Rows and columns of each map, largest map first.
        suppression: How boxes are chosen by default.
    """

    image_size: tuple[int, int]
    grids: tuple[Grid, ...]
    suppression: Suppression = SSD

    @functools.cached_property
    def anchors(self) -> np.ndarray:
        """float32 (N, 4), in pixels of the network's input."""
        return ssd_anchors(self.image_size, self.grids)

    def __call__(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Returns boxes (B, N, 4) in pixels of the network's input, clipped to it, and scores (B, N, K)."""
        decoded = box_maths.decode(outputs["box_deltas"], self.anchors)
        return box_maths.clip(decoded, *self.image_size), box_maths.softmax(outputs["class_logits"])[..., 1:]


@dataclasses.dataclass(frozen=True)
class DistanceDecoder:
    """Decodes NanoDet-Plus' `class_logits` (B, N, K) and `box_distances` (B, N, 4 * (reg_max + 1)).

    Source: Li et al., "Generalized Focal Loss", NeurIPS 2020, https://arxiv.org/abs/2006.04388, equation 4: a distance
    is the mean of its distribution.

    Args:
        image_size: Height and width of the network's input, in pixels.
        reg_max: Largest distance, in strides.
        strides: Strides of the maps in pixels.
        suppression: How boxes are chosen by default.
    """

    image_size: tuple[int, int]
    reg_max: int = 7
    strides: tuple[int, ...] = (8, 16, 32, 64)
    suppression: Suppression = NANODET

    @functools.cached_property
    def places(self) -> np.ndarray:
        """float32 (N, 3): x, y and stride in pixels."""
        return places(self.image_size, self.strides)

    def boxes(self, distances: Array) -> Array:
        """Logits of distances (B, N, 4 * (reg_max + 1)) -> boxes (B, N, 4) in pixels, not clipped."""
        xp = box_maths.namespace(distances)
        shape = (-1, distances.shape[1], 4, self.reg_max + 1)
        shares = box_maths.softmax(xp.reshape(distances, shape))
        means = xp.sum(shares * np.arange(self.reg_max + 1, dtype=np.float32), axis=-1) * self.places[:, 2:]
        centers = self.places[:, :2]
        return xp.concatenate([centers - means[..., :2], centers + means[..., 2:]], axis=-1)

    def __call__(self, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Returns boxes (B, N, 4) in pixels of the network's input, clipped to it, and scores (B, N, K)."""
        decoded = box_maths.clip(self.boxes(outputs["box_distances"]), *self.image_size)
        return decoded, box_maths.sigmoid(outputs["class_logits"])


Decoder = AnchorDecoder | DistanceDecoder
"""What turns a detector's raw outputs into boxes and scores."""


def decoder_of(model: keras.Model) -> Decoder:
    """Returns the decoder of a detector, from its outputs and the sizes of its maps.

    Raises:
        InvalidArgumentError: The model is not a detector, or its input has no fixed size.
    """
    outputs: Any = model.output
    names = set(outputs) if isinstance(outputs, dict) else set()
    size = tuple(model.input_shape[1:3]) if len(model.inputs) == 1 else (None, None)
    if not names & {"box_deltas", "box_distances"} or "class_logits" not in names:
        raise InvalidArgumentError(
            "`model` must be a detector, with outputs `class_logits` and `box_deltas` or `box_distances`. "
            f"Received: {model.name!r} with {', '.join(sorted(names)) or 'one output'}."
        )
    if None in size:
        raise InvalidArgumentError(f"A detector needs images of one size. Received: input_shape={model.input_shape}.")
    if "box_distances" in names:
        return DistanceDecoder(size, outputs["box_distances"].shape[-1] // 4 - 1)
    maps = {layer.name: layer.output for layer in model.layers if layer.name.endswith("_classifier")}
    grids = tuple(tuple(maps[f"level{i}_classifier"].shape[1:3]) for i in range(len(maps)))
    return AnchorDecoder(size, grids)
