"""The feature maps that layers make of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.layers import Cropping2D, Permute, Reshape, ZeroPadding2D

from keraslight._pictures import HEAT, checked_path, draw_image, finished, new_figure
from keraslight.analysis._evaluate import feature_maps, find_map, one_image, to_numpy
from keraslight.analysis._graph import behaves_like
from keraslight.errors import InvalidArgumentError
from keraslight.layers import ChannelSlice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Layers that show nothing new.
_MOVES = (ZeroPadding2D, Cropping2D, Reshape, Permute, ChannelSlice)


def plot_features(
    model: keras.Model,
    image: Any,
    *,
    layers: Sequence[str] | None = None,
    channels: int = 8,
    path: str | Path | None = None,
) -> Figure:
    """Draws what layers make of an image: a row a layer, a picture a channel.

    Of each layer the channels that vary most over the image are shown, the most varied first; each picture is scaled
    from its own least to its own greatest value, dark to light. A channel that is the same everywhere is dark.

    Args:
        model: A functional or built Sequential model of one image (B, H, W, C), channels last.
        image: (H, W, C), as the model takes it.
        layers: Names of layers whose output is a map (B, h, w, c); `inner/conv` inside a nested model. None takes the
            last map of every resolution, padding and the like aside. Of a layer that is called several times, the last
            call is shown.
        channels: How many channels of a layer to show at most; at least 1.
        path: Also write the figure here, .png or .svg.

    Raises:
        InvalidArgumentError: a layer is unknown or makes no map, the image does not fit, or an argument breaks these
            rules.
        MissingDependencyError: matplotlib is not installed.
    """
    target = checked_path(path)
    if channels < 1:
        raise InvalidArgumentError(f"`channels` must be at least 1. Received: channels={channels}.")
    batch = one_image(model, image)
    maps, _ = feature_maps(model, keras.ops.convert_to_tensor(batch))
    if layers is None:
        made = {name: found for name, found in maps.items() if not behaves_like(found.layer, _MOVES)} or maps
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
            axes.set_xticks([])
            axes.set_yticks([])
            if place == 0:
                axes.set_ylabel(
                    f"{name}\n{'×'.join(map(str, found.shape))}",
                    rotation=0, ha="right", va="center", fontsize="small",
                )  # fmt: skip
    return finished(figure, target)
