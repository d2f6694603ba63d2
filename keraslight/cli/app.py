"""The commands. Each imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import enum
import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

# TensorFlow's C++ start-up notes would bury what a command has to say; its errors stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

app = typer.Typer(
    help="Efficient CNNs in Keras 3: build, train, make smaller, export, serve over gRPC, run on phones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()

Run = Annotated[Path, typer.Argument(help="A run folder that `keraslight train` wrote.", metavar="RUN")]
Data = Annotated[str, typer.Option(help='"digits" (scikit-learn\'s 1,797 scans), or a folder with one folder a class.')]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the order and the augmentation.")]


class Quantization(enum.StrEnum):
    """What the numbers of a LiteRT file are."""

    float32 = "float32"
    float16 = "float16"
    dynamic = "dynamic"
    int8 = "int8"

    @property
    def argument(self) -> str | None:
        """What `to_litert` takes."""
        return None if self is Quantization.float32 else self.value


class Dtype(enum.StrEnum):
    """What a SavedModel computes in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class InputDtype(enum.StrEnum):
    """What a LiteRT file takes."""

    float32 = "float32"
    uint8 = "uint8"
    int8 = "int8"


class Grouping(enum.StrEnum):
    """What a row of a profile is."""

    layer = "layer"
    block = "block"
    stage = "stage"


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
    from keraslight.analysis import costs_by_block

    side = size or keraslight.model_info(name).input_size
    model = keraslight.create_model(name, input_shape=(side, side, 3))
    rows = costs_by_block(model)
    table = Table("block", "output", "parameters", "MACs", title=model.name)
    for row in rows:
        table.add_row(row.name, "x".join(map(str, row.output)), f"{row.parameters:,}", f"{row.macs:,}")
    table.add_section()
    table.add_row("total", "", f"{sum(r.parameters for r in rows):,}", f"{sum(r.macs for r in rows):,}")
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
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where the run folder holds a run.")] = False,
) -> None:
    """Train a model on your images. Called again after a kill, it goes on with the next epoch.

    The run folder gets best.keras, model.json (labels, preprocessing, figures), history.csv and curves.png.

      keraslight train mobilenet_v4_conv_small --data digits
      keraslight train mobilenet_v4_conv_medium --data photos/ --weights imagenet --epochs 20
    """
    import keras

    import keraslight
    from keraslight.training import train as run_training

    images, recipe = _load(data, model, size)
    changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in changes:
        changes["warmup_epochs"] = min(recipe.warmup_epochs, changes["epochs"] - 1)
    keras.utils.set_random_seed(seed)
    net = keraslight.create_model(
        model,
        weights=weights,
        classes=len(images.labels),
        input_shape=images.image_shape,
        preprocessing=images.preprocessing,
    )
    result = run_training(
        net, images, recipe.replace(**changes), run_dir=to or Path("runs", net.name), resume=not fresh
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


@app.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="The servable's folder, such as savedmodels/digits.")],
    version: Annotated[int | None, typer.Option(help="Version number. [default: the next]", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a version that exists.")] = False,
    dtype: Annotated[Dtype, typer.Option(help="What the SavedModel's weights are and computes in.")] = Dtype.float32,
    embed: Annotated[bool, typer.Option("--embed", help="Also write the signature `embed` (features).")] = False,
    max_pixels: Annotated[int, typer.Option(help="Largest image file that is decoded.", min=1)] = 2**26,
) -> None:
    """Write a trained model as the next version of a servable, for TensorFlow Serving and keraslight's own server.

    The files are compared with the model before the version appears. models.config beside the servable names it.
    """
    from keraslight.export import save_servable
    from keraslight.training import load_run

    model, details = load_run(run)
    written = save_servable(
        model,
        to,
        labels=details["labels"],
        version=version,
        overwrite=overwrite,
        dtype=dtype.value,
        embed=embed,
        max_pixels=max_pixels,
        metrics=details.get("metrics"),
    )
    console.print(f"Wrote {written}. Serve it:")
    console.print(f"  python -m keraslight_serving.server --model_name={to.name} --model_base_path={to}", style="bold")


@app.command()
def versions(
    name: Annotated[str, typer.Argument(help="A servable's name, or its folder.")],
    repository: Annotated[Path, typer.Option(help="The model repository, where NAME is.")] = Path("savedmodels"),
    label: Annotated[list[str] | None, typer.Option(help="LABEL=VERSION names a version, LABEL= takes the name away; "
                                                         "repeatable.", show_default=False)] = None,
    prune: Annotated[int | None, typer.Option(help="Remove all but this many of the highest, and the labelled ones.",
                                              min=1, show_default=False)] = None,
) -> None:  # fmt: skip
    """List and compare the versions of a servable; label or prune them.

    Figures in brackets are the change from the version before.

      keraslight versions digits --label stable=3 --label canary=4
      keraslight versions digits --prune 2
    """
    from keraslight.errors import InvalidArgumentError
    from keraslight.export import label_version, prune_versions, read_versions, version_labels

    path = repository / name
    if not (found := read_versions(path)):
        raise InvalidArgumentError(f"A servable's folder must hold versions. Received: {path}, which has none.")
    for text in label or ():
        known, _, number = text.partition("=")
        if "=" not in text or not (number.isdecimal() or not number):
            raise InvalidArgumentError(f"`--label` must be LABEL=VERSION or LABEL=. Received: {text!r}.")
        label_version(path, known, int(number) if number else None)
    if prune is not None:
        removed = prune_versions(path, prune)
        console.print(f"Removed: {', '.join(map(str, removed)) or 'none'}.")
        found = read_versions(path)
    labels = version_labels(path)
    figures = sorted({figure for version in found for figure in version.info.get("metrics", ())})
    table = Table("version", "labels", "model", "weights", "created", "MB", *figures, title=str(path))
    before: dict[str, float] = {}
    for version in found:
        info, metrics = version.info, version.info.get("metrics", {})
        kind = " ".join(filter(None, (info.get("model"), info.get("dtype"), info.get("quantization"))))
        table.add_row(
            str(version.number),
            ", ".join(known for known, number in labels.items() if number == version.number),
            kind,
            info.get("weights_sha256", "")[:12],
            version.created.strftime("%Y-%m-%d %H:%M"),
            f"{version.size / 1e6:.2f}",
            *(_with_change(metrics.get(figure), before.get(figure)) for figure in figures),
        )
        before = metrics
    console.print(table)


def _with_change(figure: float | None, before: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.6g}" if before is None else f"{figure:.6g} ({figure - before:+.3g})"


@app.command()
def litert(
    run: Run,
    to: Annotated[Path, typer.Option(help="The .tflite file to write.")],
    quantization: Annotated[Quantization, typer.Option(help="Numbers of the file.")] = Quantization.float32,
    data: Annotated[
        str | None, typer.Option(help='For int8: images that set the ranges, "digits" or a folder.')
    ] = None,
    input_dtype: Annotated[
        InputDtype, typer.Option(help="What the file takes; uint8 and int8 need int8.")
    ] = InputDtype.float32,
) -> None:
    """Convert a trained model to a LiteRT file for Android."""
    from keraslight.errors import InvalidArgumentError
    from keraslight.export import to_litert
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import load_digits, load_directory, load_run

    model, details = load_run(run)
    samples = None
    if quantization is Quantization.int8:
        if data is None:
            raise InvalidArgumentError("int8 needs images that set its ranges. Received: no --data.")
        spec = Preprocessing.from_dict(details["preprocessing"])
        images = load_digits(spec) if data == "digits" else load_directory(data, spec)
        samples = images.train(32)
    written = to_litert(
        model,
        to,
        quantization=quantization.argument,
        representative_data=samples,
        input_dtype=input_dtype.value,
    )
    console.print(f"Wrote {written}, {written.stat().st_size / 1e6:.2f} MB.")


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of a model server.")] = "localhost:8500",
    model: Annotated[str, typer.Option(help="The served model's name.")] = "default",
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Classify image files with a served model."""
    from keraslight_serving.client import ClassifierClient, ServingError

    try:
        with ClassifierClient(server, model=model) as client:
            answers = client.classify(images, top_k=top)
    except ServingError as error:
        raise typer.Exit(_fail(f"{type(error).__name__}: {error}")) from error
    if as_json:
        for path, ranked in zip(images, answers, strict=True):
            ranked = [{"label": c.label, "score": c.score, "index": c.index} for c in ranked]
            typer.echo(json.dumps({"image": str(path), "classes": ranked}))
        return
    table = Table("image", *(f"{place}." for place in range(1, len(answers[0]) + 1)))
    for path, ranked in zip(images, answers, strict=True):
        table.add_row(str(path), *(f"{c.label} {c.score:.1%}" for c in ranked))
    console.print(table)


def _fail(text: str) -> int:
    typer.echo(text, err=True)
    return 1


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
