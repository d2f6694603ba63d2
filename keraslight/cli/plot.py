"""`keraslight plot ...`: pictures of what models cost and do."""

from __future__ import annotations

import csv
import enum
from pathlib import Path
from typing import Annotated, Any

import typer

plot_app = typer.Typer(help="Draw what models cost and do, as PNG or SVG.", no_args_is_help=True)

Model = Annotated[
    str, typer.Argument(help="A model's name or published id, a .keras file or a run folder.", metavar="MODEL")
]
Image = Annotated[Path, typer.Argument(help="An image file.", metavar="IMAGE")]
To = Annotated[Path, typer.Option(help="The picture to write, .png or .svg.")]
Size = Annotated[
    int | None, typer.Option(help="Side of the image in pixels. [default: the model's]", show_default=False)
]
Weights = Annotated[
    str | None, typer.Option(help='For a name: "imagenet" or a weights file. [default: random]', show_default=False)
]


class Grouping(enum.StrEnum):
    """What a row of a profile is."""

    layer = "layer"
    block = "block"
    stage = "stage"


@plot_app.command("costs")
def costs(
    models: Annotated[list[str], typer.Argument(help="Names, .keras files or run folders.", metavar="MODEL...")],
    to: To,
    size: Size = None,
    by: Annotated[Grouping, typer.Option(help="What a bar is.")] = Grouping.stage,
) -> None:
    """Draw where the multiply-adds, parameters and memory of models go."""
    from keraslight.analysis import plot_costs

    plot_costs([_load(model, size)[0] for model in models], by=by.value, path=to)
    _say(to)


@plot_app.command("tradeoff")
def tradeoff(
    to: To,
    pattern: Annotated[str, typer.Argument(help='Shell-style pattern of names, such as "mobilenet*".')] = "*",
    x: Annotated[str, typer.Option(help="The cost: macs, parameters, or a column of --records.")] = "macs",
    y: Annotated[str, typer.Option(help="The score: top1, or a column of --records.")] = "top1",
    records: Annotated[
        Path | None,
        typer.Option(help="CSV with your own figures, with a column `name` and those of --x and --y."),
    ] = None,
) -> None:
    """Draw accuracy against cost, and the models that no other one beats.

    Without --records it takes the zoo's figures; models without a published accuracy are left out.

      keraslight plot tradeoff "mobilenet*" --x parameters --to mobile.png
      keraslight plot tradeoff --records measured.csv --x latency_ms --y accuracy --to phone.svg
    """
    import fnmatch

    import keraslight
    from keraslight.analysis import plot_tradeoff

    if records is None:
        rows: list[Any] = [keraslight.model_info(name) for name in keraslight.list_models(pattern)]
    else:
        rows = [row for row in _read(records, x, y) if fnmatch.fnmatch(str(row.get("name")), pattern)]
    plot_tradeoff(rows, x=x, y=y, group="family" if records is None else None, path=to)
    _say(to)


@plot_app.command("architecture")
def architecture(
    model: Model,
    to: To,
    size: Size = None,
    by: Annotated[Grouping, typer.Option(help="What a box is.")] = Grouping.stage,
) -> None:
    """Draw a model's stages to scale: resolution, channels and share of the multiply-adds."""
    from keraslight.analysis import plot_architecture

    plot_architecture(_load(model, size)[0], by=by.value, path=to)
    _say(to)


@plot_app.command("features")
def features(
    model: Model,
    image: Image,
    to: To,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A layer's name; may be repeated. [default: the last of every resolution]"),
    ] = None,
    channels: Annotated[int, typer.Option(help="Channels of a layer at most.", min=1)] = 8,
    weights: Weights = None,
    size: Size = None,
) -> None:
    """Draw the maps that a model's layers make of an image."""
    from keraslight.analysis import plot_features

    net, _ = _load(model, size, weights, normalize=True)
    plot_features(net, _decode(net, image), layers=layer or None, channels=channels, path=to)
    _say(to)


@plot_app.command("grad-cam")
def grad_cam(
    model: Model,
    image: Image,
    to: To,
    class_index: Annotated[int | None, typer.Option("--class", help="Its number. [default: the answer]")] = None,
    layer: Annotated[str | None, typer.Option(help="A layer's name. [default: the last map]")] = None,
    weights: Weights = None,
    size: Size = None,
) -> None:
    """Draw where a classifier looks in an image."""
    from keraslight.analysis import plot_grad_cam

    net, labels = _load(model, size, weights, normalize=True)
    plot_grad_cam(net, _decode(net, image), class_index=class_index, layer=layer, labels=labels, path=to)
    _say(to)


@plot_app.command("receptive-field")
def receptive_field(
    model: Model,
    image: Image,
    to: To,
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer's name; may be repeated. [default: up to six sizes]")
    ] = None,
    effective: Annotated[
        bool, typer.Option(help="Also draw how much each pixel really counts, by gradients, for the last map.")
    ] = False,
    size: Size = None,
) -> None:
    """Draw what a model's layers can see of an image."""
    from keraslight.analysis import effective_receptive_field, plot_receptive_field

    net, _ = _load(model, size)
    pixels = _decode(net, image)
    heat = effective_receptive_field(net, images=pixels[None]).map if effective else None
    plot_receptive_field(net, pixels, layers=layer or None, effective=heat, path=to)
    _say(to)


def _load(name: str, size: int | None, weights: str | None = None, *, normalize: bool = False) -> tuple[Any, Any]:
    """The model, and its labels where they are known."""
    import keraslight
    from keraslight.errors import InvalidArgumentError
    from keraslight.labels import imagenet_labels

    path = Path(name)
    if path.is_dir() or path.suffix == ".keras":
        if size is not None or weights is not None:
            raise InvalidArgumentError(
                f"A saved model has its own size and weights. Received: {name} with --size or --weights."
            )
        if path.is_dir():
            from keraslight.training import load_run

            model, details = load_run(path)
            return model, details["labels"]
        return keraslight.load_model(path), None
    known = keraslight.model_info(name)
    side = {} if size is None else {"input_shape": (size, size, 3)}
    model = keraslight.create_model(
        name, weights=weights, preprocessing=normalize and known.preprocessing is not None, **side
    )
    return model, imagenet_labels() if model.output_shape[-1] == 1000 else None


def _decode(model: Any, image: Path) -> Any:
    """The file's pixels 0..255 as the model takes them."""
    import tensorflow as tf

    from keraslight.errors import InvalidArgumentError
    from keraslight.graph.ends import own_preprocessing
    from keraslight.preprocessing import Preprocessing

    height, width, channels = model.input_shape[1:]
    spec = (own_preprocessing(model) or Preprocessing((224, 224))).with_channels(channels)
    spec = spec.replace(size=(height or spec.size[0], width or spec.size[1]))
    try:
        return spec.decode(image.read_bytes()).numpy()
    except (OSError, tf.errors.OpError) as error:
        raise InvalidArgumentError(f"IMAGE must be a readable image file. Received: {image}: {error}") from error


def _read(path: Path, *numbers: str) -> list[dict[str, Any]]:
    """The rows of a CSV file, some columns as numbers; an empty cell is None."""
    from keraslight.errors import InvalidArgumentError

    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        for row in rows:
            row.update({column: float(row[column]) if row[column] else None for column in numbers if column in row})
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"--records must be a CSV file with numbers. Received: {path}: {error}.") from error
    return rows


def _say(to: Path) -> None:
    typer.echo(f"Wrote {to}.")
