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

COMMANDS: dict[str, Callable[..., None]] = {
    "list": models.list_models,
    "info": models.info,
    "show": models.show,
    "compare": models.compare,
    "profile": models.profile,
    "receptive-field": models.receptive_field,
    "latency": speed.latency,
    "lint-model": speed.lint_model,
    "train": train.train,
    "prune": compression.prune,
    "cluster": compression.cluster,
    "fuse": compression.fuse,
    "quantize": compression.quantize,
    "export": export.export,
    "versions": versions.versions,
    "serve": serve.serve,
    "litert": convert.litert,
    "onnx": convert.onnx,
    "classify": client.classify,
    "load-test": client.load_test,
    "demo": train.demo,
}
PLOTS: dict[str, Callable[..., None]] = {
    "costs": plot.costs,
    "tradeoff": plot.tradeoff,
    "architecture": plot.architecture,
    "features": plot.features,
    "grad-cam": plot.grad_cam,
    "receptive-field": plot.receptive_field,
}
app.add_typer(plots, name="plot")
for name, command in COMMANDS.items():
    app.command(name)(command)
for name, command in PLOTS.items():
    plots.command(name)(command)


@app.callback()
def _logging(
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show log messages of level INFO.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")
