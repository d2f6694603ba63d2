"""`keraslight prune`, `cluster`, `quantize` and `fuse`: from a run folder to a smaller model, measured."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from keraslight.cli import _teacher

app = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 150)  # the table must not be wrapped in a log

Run = Annotated[Path, typer.Argument(help="A run folder that `keraslight train` wrote.", metavar="RUN")]
Data = Annotated[str, typer.Option(help='"digits" (scikit-learn\'s 1,797 scans), or a folder with one folder a class.')]
NewRun = Annotated[Path, typer.Option(help="Run folder to write; `export`, `litert` and `quantize` read it.")]
Seed = Annotated[int, typer.Option(help="Seed of the order, the augmentation and dropout.")]


class Method(enum.StrEnum):
    """How a model comes to int8."""

    ptq = "ptq"
    qat = "qat"


class Schedule(enum.StrEnum):
    """How the sparsity rises."""

    polynomial = "polynomial"
    constant = "constant"


class Policy(enum.StrEnum):
    """Which layers are pruned."""

    default = "default"
    xnnpack = "xnnpack"


@app.command()
def prune(
    run: Run,
    data: Data,
    to: NewRun,
    sparsity: Annotated[float, typer.Option(help="Share of zeros in every pruned kernel, 0..1.")] = 0.7,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help='PATTERN=SHARE, such as "stage0_*=0.5", in place of --sparsity: the first that matches a layer '
            "counts; layers without one stay dense."
        ),
    ] = None,
    schedule: Annotated[Schedule, typer.Option(help="How the sparsity rises.")] = Schedule.polynomial,
    policy: Annotated[
        Policy, typer.Option(help="xnnpack: only the 1x1 convolutions that XNNPACK can run sparse.")
    ] = Policy.default,
    two_of_four: Annotated[
        bool,
        typer.Option(
            "--two-of-four", help="Two zeros in every four channels, at once: --sparsity and --schedule don't count."
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the images.", min=1)] = 12,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine schedule.")] = 3e-3,
    teacher: _teacher.Teacher = None,
    temperature: _teacher.Temperature = None,
    alpha: _teacher.Alpha = None,
    scan: Annotated[bool, typer.Option("--scan", help="First scan each layer: scan.txt, scan.png.")] = False,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Fine-tune a trained model while its smallest weights become zero.

    keraslight prune runs/net --data digits --to runs/pruned --sparsity 0.7
    keraslight prune runs/net --data digits --to runs/pruned --layer "stage0_*=0.5" --layer "*_expand=0.8"
    keraslight prune runs/net --data digits --to runs/pruned --teacher runs/net
    """
    from keraslight import compress
    from keraslight.training import ClassificationLoss, Recipe

    model, details, images = _load(run, data)
    recipe = Recipe.from_dict(details["recipe"])
    distillation = _teacher.distillation(teacher, images, temperature=temperature, alpha=alpha)
    if distillation is not None:
        details = {**details, "distillation": distillation.to_dict()}
    if scan:
        report = compress.sensitivity(model, images.validation_arrays(), policy=policy.value)
        to.mkdir(parents=True, exist_ok=True)
        (to / "scan.txt").write_text(f"{report}\n", encoding="utf-8")
        console.print(f"Sensitivity: {to / 'scan.txt'}, {report.plot(to / 'scan.png')}")
    pruned = compress.prune(
        model,
        # Another seed than the float training's: fine-tuning sees the images augmented anew.
        images.train(batch_size, recipe.augmentation, seed + 1, epochs=epochs),
        sparsity=_shares(layer) if layer else sparsity,
        epochs=1,
        learning_rate=learning_rate,
        schedule=schedule.value,
        policy=policy.value,
        m_by_n=(2, 4) if two_of_four else None,
        loss=ClassificationLoss(recipe.label_smoothing) if distillation is None else None,
        distillation=distillation,
        seed=seed,
        verbose=0,
    )
    console.print(str(compress.sparsity(pruned, tuple(_shares(layer)) if layer else None, policy.value)))
    _finish_run(pruned, details, to, model, images, "pruned")


@app.command()
def cluster(
    run: Run,
    data: Data,
    to: NewRun,
    clusters: Annotated[int, typer.Option(help="Distinct values to leave in each kernel.", min=2)] = 16,
    layer: Annotated[
        list[str] | None,
        typer.Option(help='Pattern of layers, such as "stage3_*". [default: all but depthwise ones and the first]'),
    ] = None,
    keep_zeros: Annotated[
        bool, typer.Option("--keep-zeros/--fill-zeros", help="Keep the zeros of pruned kernels.")
    ] = True,
    epochs: Annotated[int, typer.Option(help="Passes over the images.", min=1)] = 4,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine schedule.")] = 1e-4,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Fine-tune a trained model with few distinct values in each kernel: files of the same size that pack small.

    keraslight cluster runs/net --data digits --to runs/clustered --clusters 16
    """
    from keraslight import compress
    from keraslight.training import ClassificationLoss, Recipe

    model, details, images = _load(run, data)
    recipe = Recipe.from_dict(details["recipe"])
    clustered = compress.cluster(
        model,
        images.train(batch_size, recipe.augmentation, seed + 1, epochs=epochs),
        clusters=clusters,
        epochs=1,
        learning_rate=learning_rate,
        layers=layer or None,
        preserve_sparsity=keep_zeros,
        loss=ClassificationLoss(recipe.label_smoothing),
        seed=seed,
        verbose=0,
    )
    console.print(str(compress.cluster_report(clustered, layer or None)))
    _finish_run(clustered, details, to, model, images, "clustered")


@app.command()
def fuse(
    run: Run,
    data: Data,
    to: NewRun,
) -> None:
    """Fold batch norms, activations and parallel branches into convolutions: the same answers from fewer layers."""
    from keraslight import compress

    model, details, images = _load(run, data)
    fused = compress.fuse(model)
    console.print(f"{len(model.layers)} layers became {len(fused.layers)}.")
    _finish_run(fused, details, to, model, images, "fused")


@app.command()
def quantize(
    run: Run,
    data: Data,
    to: Annotated[Path, typer.Option(help="The int8 .tflite file to write.")],
    method: Annotated[
        Method, typer.Option(help="ptq sets ranges from images, without training; qat trains with rounding.")
    ] = Method.ptq,
    epochs: Annotated[int, typer.Option(help="For qat: passes over the images.", min=1)] = 3,
    batch_size: Annotated[int, typer.Option(help="For qat: images a step.", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(help="For qat: peak of the cosine schedule.")] = 1e-4,
    skip: Annotated[list[str] | None, typer.Option(help='Pattern of layers that stay float, such as "head*".')] = None,
    mixed: Annotated[
        float | None,
        typer.Option(
            help="For ptq: leave the most costly layers float, until at most this share of accuracy is lost, 0..1.",
            metavar="MAX_DROP", show_default=False,
        ),
    ] = None,
    keep_relu6: Annotated[
        bool,
        typer.Option(
            "--keep-relu6/--replace-relu6", help="For ptq: make ReLU6 a ReLU, to equalize over it too; answers change."
        ),
    ] = True,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Convert a trained model to an int8 LiteRT file, by calibration (ptq) or quantization-aware training (qat).

    keraslight quantize runs/net --data digits --to net.tflite
    keraslight quantize runs/net --data digits --to net.tflite --mixed 0.005
    keraslight quantize runs/pruned --data digits --to net.tflite --method qat --epochs 3
    """
    from keraslight import compress
    from keraslight.errors import InvalidArgumentError
    from keraslight.export import to_litert
    from keraslight.training import Recipe

    if mixed is not None and (skip or method is Method.qat):
        raise InvalidArgumentError(
            f"`--mixed` must come with `--method ptq` and without `--skip`. Received: --method {method.value}, --skip "
            f"{skip}."
        )
    model, details, images = _load(run, data)
    rounded = model
    if method is Method.qat:
        recipe = Recipe.from_dict(details["recipe"])
        batches = images.train(batch_size, recipe.augmentation, seed + 1, epochs=epochs)
        trained = compress.train_quantized(
            model, batches, epochs=1, learning_rate=learning_rate, skip=skip or (), seed=seed, verbose=0
        )
        to_litert(trained, to)
        rounded = compress.quantized_weights_to_keras(trained, model)
    else:
        how = {"replace_relu6": not keep_relu6, "seed": seed}
        batches = images.train(32, None, seed)
        if mixed is None:
            compress.calibrate(model, batches, to, skip=skip or (), **how)
        else:
            held_out = images.validation_arrays()
            report = compress.calibrate_mixed(
                model, batches, to, max_drop=mixed, validation_data=held_out, verbose=int(sys.stdout.isatty()), **how
            )
            console.print(str(report))
    _compare(model, [("int8", to, rounded)], images, to.with_suffix(""))


def _load(run: Path, data: str) -> tuple[Any, dict[str, Any], Any]:
    """The run's model and details, and the images, prepared as the run says."""
    from keraslight.errors import InvalidArgumentError
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import load_digits, load_directory, load_run

    model, details = load_run(run)
    spec = Preprocessing.from_dict(details["preprocessing"])
    images = load_digits(spec) if data == "digits" else load_directory(data, spec)
    if list(images.labels) != list(details["labels"]):
        raise InvalidArgumentError(
            f"`--data` must have the classes of the run, {details['labels']}. Received: {list(images.labels)}."
        )
    return model, details, images


def _shares(layers: list[str]) -> dict[str, float]:
    """PATTERN=SHARE texts as a dictionary."""
    from keraslight.errors import InvalidArgumentError

    shares = {}
    for text in layers:
        pattern, _, share = text.rpartition("=")
        try:
            shares[pattern] = float(share)
        except ValueError:
            pattern = ""
        if not pattern:
            raise InvalidArgumentError(f'`--layer` must be PATTERN=SHARE, such as "stage0_*=0.5". Received: {text!r}.')
    return shares


def _finish_run(model: Any, details: dict[str, Any], to: Path, before: Any, images: Any, name: str) -> None:
    """Writes a run folder with both LiteRT files, and compares them."""
    from keraslight.export import to_litert
    from keraslight.training._run import RunFolder

    folder = RunFolder(to)
    folder.save_best(model)
    file = to_litert(model, to / f"{name}.tflite")
    measured = _compare(before, [(name, file, model)], images, to / name)
    folder.save_info({**details, "metrics": {"val_accuracy": measured[-1].accuracy}})
    console.print(f"Run folder: {to}")


def _compare(before: Any, others: list[tuple[str, Path, Any]], images: Any, stem: Path) -> list[Any]:
    """Prints the table and writes it with its picture to `stem`_table.txt and `stem`_table.png."""
    import tempfile

    from keraslight.cli import _measure
    from keraslight.export import to_litert

    pixels, targets = images.validation_arrays()
    title = f"{before.name} on {len(targets)} held-out images, LiteRT with one thread"
    with tempfile.TemporaryDirectory() as folder:
        first = to_litert(before, Path(folder) / "before.tflite")
        forms = [_measure.form("before", first, before)]
        forms += [_measure.form(name, file, model) for name, file, model in others]
        _measure.measure(forms, pixels.astype("float32"), targets)
    table = _measure.table(forms, title)
    console.print(table)
    text = stem.with_name(f"{stem.name}_table.txt")
    with text.open("w", encoding="utf-8") as stream:
        Console(file=stream, width=160).print(table)
    console.print(f"Table: {text}; picture: {_measure.draw(forms, title, text.with_suffix('.png'))}")
    return forms
