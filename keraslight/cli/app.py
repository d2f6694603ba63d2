"""The commands. Each imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from keraslight.cli import _teacher, client, compression, convert, measure
from keraslight.cli.export import export
from keraslight.cli.plot import Grouping, plot_app
from keraslight.cli.serve import serve
from keraslight.cli.versions import versions

# TensorFlow's C++ start-up notes would bury what a command has to say; its errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

app = typer.Typer(
    help="Efficient CNNs in Keras 3: build, train, make smaller, export, serve over gRPC, run on phones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(plot_app, name="plot")
console = Console()
app.add_typer(compression.app)

Data = Annotated[str, typer.Option(help='"digits" (scikit-learn\'s 1,797 scans), or a folder with one folder a class.')]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the order and the augmentation.")]


@app.callback()
def _logging(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what each stage logs.")] = False):
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


@app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(help='Shell-style pattern, such as "mobilenet*".')] = "*",
) -> None:
    """List the models, with their parameters, multiply-adds and reported ImageNet accuracy."""
    import keraslight

    table = Table("model", "input", "parameters", "MACs", "ImageNet top-1", "checkpoint")
    for name in keraslight.list_models(pattern):
        info = keraslight.model_info(name)
        top1 = "" if info.top1 is None else f"{info.top1:.1f} %"
        size = f"{info.parameters / 1e6:.2f} M", f"{info.macs / 1e6:,.0f} M"
        table.add_row(name, f"{info.input_size} px", *size, top1, info.checkpoint or "")
    console.print(table)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A model's name or published id.")]) -> None:
    """Show what is known of one model."""
    import dataclasses

    import keraslight

    table = Table(show_header=False)
    for field, value in dataclasses.asdict(keraslight.model_info(name)).items():
        table.add_row(field, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A model's name or published id.")],
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels. [default: the model's]",
                                             show_default=False)] = None,
) -> None:  # fmt: skip
    """Show a model's blocks in order, with their output sizes, parameters and multiply-adds."""
    import keraslight
    from keraslight.analysis import profile

    side = size or keraslight.model_info(name).input_size
    model = keraslight.create_model(name, input_shape=(side, side, 3))
    costs = profile(model)
    table = Table("block", "output", "parameters", "MACs", title=model.name)
    for row in costs.by_block():
        table.add_row(row.name, "x".join(map(str, row.output)), f"{row.parameters:,}", f"{row.macs:,}")
    table.add_section()
    table.add_row("total", "", f"{costs.parameters:,}", f"{costs.macs:,}")
    console.print(table)


@app.command()
def compare(names: Annotated[list[str], typer.Argument(help="Models' names or published ids.")]) -> None:
    """Compare models: parameters, multiply-adds, reported accuracy, each also as a share of the first."""
    import keraslight

    table = Table("model", "input", "parameters", "MACs", "ImageNet top-1")
    infos = [keraslight.model_info(name) for name in names]
    first = infos[0]
    for info in infos:
        table.add_row(
            info.name,
            f"{info.input_size} px",
            f"{info.parameters / 1e6:.2f} M ({info.parameters / first.parameters:.2f})",
            f"{info.macs / 1e6:,.0f} M ({info.macs / first.macs:.2f})",
            "" if info.top1 is None else f"{info.top1:.1f} %",
        )
    console.print(table)


@app.command("profile")
def profile_model(
    name: Annotated[str, typer.Argument(help="A model's name or published id.", metavar="MODEL")],
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels. [default: the model's]",
                                             show_default=False)] = None,
    by: Annotated[Grouping, typer.Option(help="What a row of the table is.")] = Grouping.block,
) -> None:  # fmt: skip
    """Show where a model's parameters, multiply-adds and memory go, and the most memory that its maps take at once."""
    from keraslight.analysis import profile

    console.print(profile(_build(name, size)).table(by.value))


@app.command("receptive-field")
def receptive_field_of_model(
    name: Annotated[str, typer.Argument(help="A model's name or published id.", metavar="MODEL")],
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels. [default: the model's]",
                                             show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Also layers that see what the layer before sees.")] = False,
) -> None:  # fmt: skip
    """Show how much of the image each layer of a model can see: size, stride and centre of its first output's field."""
    from keraslight.analysis import receptive_field

    model = _build(name, size)
    table = Table("layer", "field", "stride", "centre (y, x)", title=model.name)
    before = None
    for field in receptive_field(model):
        if every or field[1:] != before:
            height, width = field.size
            table.add_row(
                field.name,
                "the whole image" if field.whole else f"{height}x{width}",
                "x".join(map(str, field.stride)) if any(field.stride) else "",
                "" if field.whole else ", ".join(f"{c:g}" for c in field.center),
            )
        before = field[1:]
    console.print(table)


app.command("latency")(measure.latency)
app.command("lint-model")(measure.lint_model)


def _build(name: str, size: int | None) -> Any:
    """The model with random weights."""
    import keraslight

    side = size or keraslight.model_info(name).input_size
    return keraslight.create_model(name, input_shape=(side, side, 3))


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model's name, such as mobilenet_v4_conv_small.")],
    data: Data,
    to: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/MODEL]", show_default=False)] = None,
    weights: Annotated[str | None, typer.Option(help='Start from "imagenet" or a weights file.')] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels, at least 32.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine schedule.")] = None,
    teacher: _teacher.Teacher = None,
    teacher_weights: _teacher.Weights = None,
    temperature: _teacher.Temperature = None,
    alpha: _teacher.Alpha = None,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where the run folder holds a run.")] = False,
) -> None:
    """Train a model on your images. Called again after a kill, it goes on with the next epoch.

    The run folder gets best.keras, model.json (labels, preprocessing, figures), history.csv and curves.png.

      keraslight train mobilenet_v4_conv_small --data digits
      keraslight train mobilenet_v4_conv_medium --data photos/ --weights imagenet --epochs 20
      keraslight train mobilenet_v3_small_050 --data photos/ --teacher runs/mobilenet_v4_conv_medium
    """
    import keras

    import keraslight
    from keraslight.training import train as run_training

    images, recipe = _load(data, model, size)
    changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in changes:
        changes["warmup_epochs"] = min(recipe.warmup_epochs, changes["epochs"] - 1)
    distillation = _teacher.distillation(teacher, images, teacher_weights, temperature=temperature, alpha=alpha)
    keras.utils.set_random_seed(seed)
    net = keraslight.create_model(
        model,
        weights=weights,
        classes=len(images.labels),
        input_shape=images.image_shape,
        preprocessing=images.preprocessing,
    )
    result = run_training(
        net,
        images,
        recipe.replace(**changes),
        run_dir=to or Path("runs", net.name),
        resume=not fresh,
        distillation=distillation,
    )
    console.print(
        f"Best epoch {result.best_epoch} of {result.epochs}: {result.best_accuracy:.2%} of {images.validation_count} "
        f"held-out images, after {result.seconds:.0f} s. Run folder: {result.run_dir}"
    )
    if images.skipped:
        console.print(f"{images.skipped} images could not be read and were skipped; the log names them.")


def _load(data: str, model: str, size: int | None) -> tuple[Any, Any]:
    """The data set and the recipe made for it."""
    import keraslight
    from keraslight.errors import InvalidArgumentError
    from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, Recipe, load_digits, load_directory

    if data == "digits":
        spec = DIGITS_PREPROCESSING
        return load_digits(spec.replace(size=(size, size)) if size else spec), DIGITS_RECIPE
    spec = keraslight.model_info(model).preprocessing
    if spec is None:
        raise InvalidArgumentError(f"{model!r} has no checkpoint that says how to normalize photographs.")
    return load_directory(data, spec.replace(size=(size, size)) if size else spec), Recipe()


app.command()(export)
app.command("versions")(versions)
app.command()(serve)
app.command()(convert.litert)
app.command()(convert.onnx)


app.command("classify")(client.classify)
app.command("load-test")(client.load_test)


@app.command()
def demo(
    to: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path("runs/demo"),
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(help="Passes of the float training. [default: the recipe's]",
                                               show_default=False)] = None,
) -> None:  # fmt: skip
    """Train, prune, quantize, export, serve and classify real digits: the whole path in one command.

    Compares every served answer with the model in this process; exits with 1 if any stage disagrees.
    """
    from keraslight.cli.demo import run_demo

    run_demo(to, seed=seed, epochs=epochs)
