"""The `keraslight` command: a table of its subcommands.

Each command imports what it needs when it runs, so that `--help` is immediate.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer import Option

from keraslight import __version__
from keraslight.cli import (
    channels,
    client,
    compression,
    convert,
    evaluate,
    export,
    make,
    models,
    plot,
    predict,
    recipes,
    search,
    serve,
    speed,
    train,
    versions,
)

# TensorFlow's C++ start-up messages would bury the output of a command; its errors still appear.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PANELS: dict[str, tuple[Callable[..., None], ...]] = {  # named as their functions, with dashes
    "Models": (models.list_models, models.info, models.show, models.compare),
    "Train": (make.make, train.train, recipes.recipes, recipes.find_lr, search.search, train.demo),
    "Make smaller": (
        compression.prune,
        channels.shrink,
        channels.netadapt,
        compression.cluster,
        compression.fuse,
        compression.quantize,
    ),
    "Export": (export.export, convert.litert, convert.onnx, convert.install_arm64),
    "Serve": (predict.predict, serve.serve, versions.versions, client.classify, client.load_test),
    "Measure": (
        evaluate.evaluate,
        models.profile,
        models.receptive_field,
        models.convolution_cost,
        speed.latency,
        speed.operations,
        speed.lint_model,
    ),
}
NAMES = {models.list_models: "list"}  # where the function's own name would hide a builtin
PLOTS: tuple[Callable[..., None], ...]
PLOTS = (plot.costs, plot.tradeoff, plot.architecture, plot.features, plot.grad_cam, plot.receptive_field)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keraslight {__version__}")
        raise typer.Exit


def _options(
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show log messages of level INFO.")] = False,
    version: Annotated[
        bool, Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


def make_app(only: str | None = None) -> typer.Typer:
    """The command line, or of its subcommands one alone: Typer reads the options of all of them, which takes longer
    than what `keraslight list` does."""
    app = typer.Typer(
        help="Efficient CNNs in Keras 3: build, train, compress, export, serve over gRPC, and run on phones.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for panel, commands in PANELS.items():
        for command in commands:
            name = NAMES.get(command, command.__name__.replace("_", "-"))
            if only in (None, name):
                app.command(name, rich_help_panel=panel)(command)
    if only in (None, "plot"):
        plots = typer.Typer(help="Plot the cost and the behavior of models as PNG or SVG.", no_args_is_help=True)
        for command in PLOTS:
            plots.command()(command)
        app.add_typer(plots, name="plot", rich_help_panel="Measure")
    return app


app = make_app()


def main(arguments: Sequence[str]) -> None:
    """Runs a command line; one that names no subcommand first gets the whole app, which helps."""
    first = next(iter(arguments), "")
    alone = make_app(first)
    (alone if alone.registered_commands or alone.registered_groups else app)()
