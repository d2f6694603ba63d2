"""`keraslight plot ...`: figures about the cost and the behavior of models."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from keraslight.cli._common import Source, Sources, SourceSize, SourceWeights, load_source
from keraslight.cli.models import Grouping
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

Image = Annotated[Path, Argument(help="Image file.", metavar="IMAGE")]
To = Annotated[Path, Option(help="Figure to write, .png or .svg.")]


def costs(
    models: Sources,
    to: To,
    size: SourceSize = None,
    by: Annotated[Grouping, Option(help="Unit shown as one bar.")] = Grouping.stage,
) -> None:
    """Plot how MACs, parameters and memory are distributed over models."""
    from keraslight.analysis import plot_costs

    plot_costs([load_source(model, size=size, normalize=False).model for model in models], by=by.value, path=to)
    typer.echo(f"Wrote {to}.")


def tradeoff(
    to: To,
    pattern: Annotated[str, Argument(help='Shell-style pattern of names, such as "mobilenet*".')] = "*",
    x: Annotated[str, Option(help="Cost: macs, parameters, or a column of --records.")] = "macs",
    y: Annotated[str, Option(help="Score: top1, or a column of --records.")] = "top1",
    records: Annotated[
        Path | None, Option(help="CSV file with your own figures: a column `name` and the columns of --x and --y.")
    ] = None,
) -> None:
    """Plot accuracy against cost, with the Pareto frontier.

    Without --records, uses the reported figures of keraslight's models and
    omits those without a reported accuracy.

    Examples:

      keraslight plot tradeoff "mobilenet*" --x parameters --to mobile.png
      keraslight plot tradeoff --records mine.csv --x ms --y top1 --to mine.svg
    """
    import fnmatch

    import keraslight
    from keraslight.analysis import plot_tradeoff

    if records is None:
        rows: list[Any] = [keraslight.model_info(name) for name in keraslight.list_models(pattern)]
    else:
        rows = [row for row in _read(records, x, y) if fnmatch.fnmatch(str(row.get("name")), pattern)]
    plot_tradeoff(rows, x=x, y=y, group="family" if records is None else None, path=to)
    typer.echo(f"Wrote {to}.")


def architecture(
    model: Source,
    to: To,
    size: SourceSize = None,
    by: Annotated[Grouping, Option(help="Unit shown as one box.")] = Grouping.stage,
) -> None:
    """Plot a model's stages to scale: resolution, channels, share of MACs."""
    from keraslight.analysis import plot_architecture

    plot_architecture(load_source(model, size=size, normalize=False).model, by=by.value, path=to)
    typer.echo(f"Wrote {to}.")


def features(
    model: Source,
    image: Image,
    to: To,
    layer: Annotated[
        list[str] | None, Option(help="Layer name; repeatable.", show_default="the last layer of each resolution")
    ] = None,
    channels: Annotated[int, Option(help="Largest number of channels to show per layer.", min=1)] = 8,
    weights: SourceWeights = None,
    size: SourceSize = None,
) -> None:
    """Plot the feature maps of a model's layers for an image."""
    from keraslight.analysis import plot_features

    net = load_source(model, weights, size).model
    plot_features(net, _decode(net, image), layers=layer or None, channels=channels, path=to)
    typer.echo(f"Wrote {to}.")


def grad_cam(
    model: Source,
    image: Image,
    to: To,
    class_index: Annotated[
        int | None, Option("--class", help="Index of the class to explain.", show_default="predicted class")
    ] = None,
    layer: Annotated[str | None, Option(help="Layer name.", show_default="last feature map")] = None,
    weights: SourceWeights = None,
    size: SourceSize = None,
) -> None:
    """Plot which regions of an image determine a prediction (Grad-CAM)."""
    from keraslight.analysis import plot_grad_cam

    net, labels, *_ = load_source(model, weights, size)
    plot_grad_cam(net, _decode(net, image), class_index=class_index, layer=layer, labels=labels, path=to)
    typer.echo(f"Wrote {to}.")


def receptive_field(
    model: Source,
    image: Image,
    to: To,
    layer: Annotated[list[str] | None, Option(help="Layer name; repeatable.", show_default="up to six sizes")] = None,
    effective: Annotated[
        bool, Option(help="Also plot the effective receptive field of the last feature map, computed from gradients.")
    ] = False,
    size: SourceSize = None,
) -> None:
    """Plot the receptive fields of a model's layers on an image."""
    from keraslight.analysis import effective_receptive_field, plot_receptive_field

    net = load_source(model, size=size, normalize=False).model
    pixels = _decode(net, image)
    heat = effective_receptive_field(net, images=pixels[None]).map if effective else None
    plot_receptive_field(net, pixels, layers=layer or None, effective=heat, path=to)
    typer.echo(f"Wrote {to}.")


def _decode(model: keras.Model, image: Path) -> NDArray[np.float32]:
    """Decodes an image file to the model's input: raw pixels, 0 to 255."""
    import tensorflow as tf

    from keraslight.graph import own_preprocessing
    from keraslight.preprocessing import Preprocessing

    height, width, channels = model.input_shape[1:]
    spec = (own_preprocessing(model) or Preprocessing((224, 224))).with_channels(channels)
    spec = spec.replace(size=(height or spec.size[0], width or spec.size[1]))
    try:
        return spec.decode(image.read_bytes()).numpy()
    except (OSError, tf.errors.OpError) as error:
        raise InvalidArgumentError(f"IMAGE must be a readable image file. Received: {image}: {error}") from error


def _read(path: Path, *numbers: str) -> list[dict[str, Any]]:
    """Reads the rows of a CSV file, with some columns as numbers; an empty cell becomes None."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        for row in rows:
            row.update({column: float(row[column]) if row[column] else None for column in numbers if column in row})
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"--records must be a CSV file with numbers. Received: {path}: {error}.") from error
    return rows
