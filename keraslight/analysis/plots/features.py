"""Feature maps that layers make of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keraslight._pictures import HEAT, StrPath, checked_path, draw_image, finished, new_figure
from keraslight.analysis._maps import Map, feature_maps, find_map, one_image, to_numpy
from keraslight.errors import InvalidArgumentError
from keraslight.graph import read
from keraslight.graph.kinds import kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_features(
    model: keras.Model,
    image: Any,
    *,
    layers: Sequence[str] | None = None,
    channels: int = 8,
    path: StrPath | None = None,
) -> Figure:
    """Draws what layers make of an image: one row per layer, one picture per channel.

    For each layer the channels that vary most over the image are shown, in descending order. Each picture is scaled
    from its own minimum (dark) to its own maximum (light). A constant channel is dark.

    Args:
        model: A functional or built Sequential model of one image (B, H, W, C), channels last.
        image: (H, W, C), as the model takes it.
        layers: Names of layers whose output is a map (B, h, w, c); `inner/conv` inside a nested model. None takes the
            last map of every resolution, ignoring padding and similar layers. If a layer is called several times, the
            last call is shown.
        channels: Largest number of channels per layer (at least 1).
        path: File to write the figure to, .png or .svg.

    Raises:
        InvalidArgumentError: A layer is unknown or makes no map, the image doesn't fit, or an argument is invalid.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    if channels < 1:
        raise InvalidArgumentError(f"`channels` must be at least 1. Received: channels={channels}.")
    graph = read(model, opaque=True)
    batch = one_image(graph, image)
    maps, _ = feature_maps(graph, keras.ops.convert_to_tensor(batch))
    if layers is None:
        made = {name: found for name, found in maps.items() if not _only_moves(found)} or maps
        layers = list({tuple(found.tensor.shape[1:3]): name for name, found in made.items()}.values())
    if not layers:
        raise InvalidArgumentError("`layers` must name at least one layer. Received: none.")
    shown = {name: to_numpy(find_map(name, maps).tensor)[0] for name in layers}

    columns = min(channels, max(found.shape[-1] for found in shown.values()))
    figure = new_figure(2.6 + 1.15 * columns, max(1.0 + 1.25 * len(shown), 2.6))
    grid = figure.add_gridspec(len(shown), columns + 1, width_ratios=[2.0, *[1] * columns])
    draw_image(figure.add_subplot(grid[:, 0]), batch[0], f"{model.name}\n{'×'.join(map(str, batch.shape[1:]))}")
    for number, (name, found) in enumerate(shown.items()):
        spread = found.std(axis=(0, 1))
        for place, channel in enumerate(np.argsort(-spread, kind="stable")[:columns]):
            axes = figure.add_subplot(grid[number, place + 1])
            axes.imshow(found[..., channel], cmap=HEAT, interpolation="nearest")
            axes.set_title(str(channel), fontsize="x-small", pad=2)
            axes.set(xticks=[], yticks=[])
            if place == 0:
                label = f"{name}\n{'×'.join(map(str, found.shape))}"
                axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    return finished(figure, target)


def _only_moves(found: Map) -> bool:
    """Whether a layer pads, crops, reshapes or slices, so that its map shows nothing new."""
    row = kind(found.call.layer)
    return row.field in ("margin", "reshape", "permute") or row.channels is not None
