"""The `keraslight` command: a table of its subcommands.

Each command imports what it needs when it runs, so that `--help` is immediate.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from keraslight.cli import client, compression, convert, export, models, plot, serve, speed, train, versions

# TensorFlow's C++ start-up messages would bury the output of a command; its errors still appear.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

app = typer.Typer(
    help="Efficient CNNs in Keras 3: build, train, compress, export, serve over gRPC, and run on phones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
plots = typer.Typer(help="Plot the cost and the behavior of models as PNG or SVG.", no_args_is_help=True)

COMMANDS: tuple[Callable[..., None], ...] = (  # named as their functions, with dashes
    *(models.info, models.show, models.compare, models.profile, models.receptive_field, models.convolution_cost),
    *(speed.latency, speed.lint_model, train.train),
    *(compression.prune, compression.cluster, compression.fuse, compression.quantize),
    *(export.export, versions.versions, serve.serve, convert.litert, convert.onnx),
    *(client.classify, client.load_test, train.demo),
)
PLOTS: tuple[Callable[..., None], ...]
PLOTS = (plot.costs, plot.tradeoff, plot.architecture, plot.features, plot.grad_cam, plot.receptive_field)
app.add_typer(plots, name="plot")
app.command("list")(models.list_models)
for command in COMMANDS:
    app.command()(command)
for command in PLOTS:
    plots.command()(command)


@app.callback()
def _logging(
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show log messages of level INFO.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")
