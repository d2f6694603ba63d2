"""From a run folder to a smaller model, measured: `keraslight prune`, `shrink`, `netadapt`, `cluster`, `fuse` and
`quantize`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Option

from keraslight._files import write_file
from keraslight.cli import _common
from keraslight.cli._common import Data, NewRun, Run, Seed, console
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keraslight._tasks import Head
    from keraslight.training import ImageData, Recipe

Epochs = Annotated[int, Option(help="Passes over the training images.", min=1)]
BatchSize = Annotated[int, Option(help="Images per step.", min=1)]
LearningRate = Annotated[float, Option(help="Peak learning rate of the cosine schedule.")]

Method = enum.StrEnum("Method", ["ptq", "qat"])
Schedule = enum.StrEnum("Schedule", ["polynomial", "constant"])

Policy = enum.StrEnum("Policy", ["default", "xnnpack"])
Choice = enum.StrEnum("Choice", ["magnitude", "uniform"])
Metric = enum.StrEnum("Metric", ["latency", "macs", "parameters"])


def prune(
    run: Run,
    data: Data,
    to: NewRun,
    sparsity: Annotated[float, Option(help="Share of zeros in each pruned kernel, 0 to 1.")] = 0.7,
    layer: Annotated[
        list[str] | None,
        Option(
            help='PATTERN=SHARE, such as "stage0_*=0.5"; repeatable, the first match applies. Replaces --sparsity; '
            "layers without a match stay dense."
        ),
    ] = None,
    schedule: Annotated[Schedule, Option(help="Schedule by which the sparsity rises.")] = Schedule.polynomial,
    policy: Annotated[
        Policy, Option(help="Layers to prune; xnnpack: only the 1x1 convolutions that XNNPACK can run sparse.")
    ] = Policy.default,
    two_of_four: Annotated[
        bool,
        Option(
            "--two-of-four",
            help="2:4 sparsity at once: two zeros in every four channels; ignores --sparsity, --schedule.",
        ),
    ] = False,
    epochs: Epochs = 12,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-3,
    teacher: _common.Teacher = None,
    temperature: _common.Temperature = None,
    alpha: _common.Alpha = None,
    scan: Annotated[
        bool, Option("--scan", help="First scan each layer's sensitivity; writes scan.txt and scan.png.")
    ] = False,
    seed: Seed = 0,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Fine-tune a trained model while pruning its smallest weights.

    Writes a run folder and a LiteRT file, and compares them with the original.

    Examples:

      keraslight prune runs/net --data digits --to runs/pruned --sparsity 0.7
      keraslight prune runs/net --data digits --to runs/pruned --layer "*_e*=0.8"
      keraslight prune runs/net --data digits --to runs/pruned --teacher runs/net
      keraslight prune net.keras --data photos/ --to runs/pruned --preprocessing unit --labels names.txt
    """
    from keraslight import compress

    trained = _load(run, data, labels, preprocessing, task)
    distillation = _common.load_teacher(teacher, trained.images, temperature=temperature, alpha=alpha)
    if distillation is not None:
        trained.details["distillation"] = distillation.to_dict()
    if scan:
        report = compress.sensitivity(trained.model, trained.images.validation_arrays(), policy=policy.value)
        to.mkdir(parents=True, exist_ok=True)
        (to / "scan.txt").write_text(f"{report}\n", encoding="utf-8")
        report.plot(to / "scan.png")
        console.print(f"Sensitivity: {to / 'scan.txt'}, {to / 'scan.png'}")
    pruned = compress.prune(
        trained.model,
        trained.batches(batch_size, epochs, seed),
        sparsity=_shares(layer) if layer else sparsity,
        epochs=1,
        learning_rate=learning_rate,
        schedule=schedule.value,
        policy=policy.value,
        m_by_n=(2, 4) if two_of_four else None,
        loss=trained.loss() if distillation is None else None,
        distillation=distillation,
        seed=seed,
        verbose=_verbose(),
    )
    zeros = compress.sparsity(pruned, tuple(_shares(layer)) if layer else None, policy.value)
    console.print(str(zeros))
    compared = _finish_run(trained, pruned, to, "pruned")
    if as_json:
        _common.print_json({"run": to, **compared, "layers": zeros.layers})


def shrink(
    run: Run,
    data: Data,
    to: NewRun,
    width: Annotated[
        float | None,
        Option(help="Share of channels to keep in each group, above 0 and up to 1.", show_default=False),
    ] = None,
    widths: Annotated[
        Path | None,
        Option(
            help="JSON file with the number of channels to keep per group, such as the `widths.json` that this command "
            "writes; groups that are left out keep all.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    choice: Annotated[
        Choice, Option(help="Channels to keep: those with the largest weights, or evenly spaced ones.")
    ] = Choice.magnitude,
    epochs: Annotated[int, Option(help="Passes over the training images; 0 doesn't fine-tune.", min=0)] = 12,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-3,
    teacher: _common.Teacher = None,
    temperature: _common.Temperature = None,
    alpha: _common.Alpha = None,
    seed: Seed = 0,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Remove channels from a trained model and fine-tune it.

    Writes a run folder, a LiteRT file and the widths, and compares them with the original.

    Examples:

      keraslight shrink runs/net --data digits --to runs/half --width 0.5
      keraslight shrink runs/net --data digits --to runs/narrow --widths runs/half/widths.json
    """
    from keraslight import analysis, compress
    from keraslight.graph import without_auxiliary

    if (width is None) == (widths is None):
        raise InvalidArgumentError(
            f"Either `--width` or `--widths` must be given. Received: --width {width}, --widths {widths}."
        )
    trained = _load(run, data, labels, preprocessing, task)
    distillation = _common.load_teacher(teacher, trained.images, temperature=temperature, alpha=alpha)
    if distillation is not None:
        trained.details["distillation"] = distillation.to_dict()
    model = without_auxiliary(trained.model)
    groups = compress.channel_groups(model)
    wanted = {} if widths is None else _widths(widths)
    if width is not None:
        wanted = compress.channel_widths(groups, width)
    small = compress.shrink(model, wanted, choice=choice.value)
    left = {group.name: wanted.get(group.name, group.size) for group in groups}
    table = _common.table("group", "layers", "channels", "left", "can't be removed because")
    for group in groups:
        table.add_row(group.name, str(len(group.layers)), str(group.size), str(left[group.name]), group.reason or "")
    console.print(table)
    costs: dict[str, Any] = {
        name: {"parameters": analysis.count_parameters(each), "macs": analysis.count_macs(each)}
        for name, each in (("before", model), ("after", small))
    }
    for name in ("parameters", "macs"):
        was, now = (costs[place][name] for place in ("before", "after"))
        console.print(f"{name}: {was:,} before, {now:,} after ({now / was:.1%})")
    if epochs:
        small = compress.fine_tune(
            small,
            trained.batches(batch_size, epochs, seed),
            epochs=1,
            learning_rate=learning_rate,
            loss=trained.loss() if distillation is None else None,
            distillation=distillation,
            seed=seed,
            verbose=_verbose(),
        )
    compared = _finish_run(trained, small, to, "shrunk")
    kept = {group.name: left[group.name] for group in groups if group.removable}
    write_file(to / "widths.json", json.dumps(kept, indent=2) + "\n")
    _common.save_table(table, to / "widths.txt")
    console.print(f"Widths: {to / 'widths.json'}, {to / 'widths.txt'}")
    if as_json:
        rows = [{**dataclasses.asdict(group), "left": left[group.name]} for group in groups]
        _common.print_json({"run": to, **compared, **costs, "groups": rows})


def netadapt(
    run: Run,
    data: Data,
    to: NewRun,
    budget: Annotated[float, Option(help="Share of the model's cost to reach, above 0 and below 1.")] = 0.5,
    metric: Annotated[Metric, Option(help="Cost of a net. Latency is LiteRT's, measured here.")] = Metric.latency,
    int8: Annotated[bool, Option("--int8", help="Measure int8 operators rather than float32 ones.")] = False,
    threads: Annotated[int, Option(help="Threads of LiteRT.", min=1)] = 1,
    step: Annotated[float, Option(help="Share of the cost that the first iteration saves.")] = 0.03,
    decay: Annotated[float, Option(help="Factor by which the step falls with each iteration.")] = 0.96,
    steps: Annotated[int, Option(help="Training steps for each proposal.", min=1)] = 50,
    step_learning_rate: Annotated[float, Option(help="Learning rate of these steps.")] = 1e-3,
    groups: Annotated[
        list[str] | None,
        Option("--group", help='Pattern of groups to narrow, such as "stage3_*"; repeatable.', show_default="all"),
    ] = None,
    divisor: Annotated[int, Option(help="Widths are multiples of it.", min=1)] = 8,
    minimum: Annotated[int, Option(help="Smallest width.", min=1)] = 8,
    hold_out: Annotated[float, Option(help="Share of the training images to rank proposals by.")] = 0.2,
    epochs: Annotated[int, Option(help="Epochs of the final training; 0 for none.", min=0)] = 12,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 3e-3,
    teacher: _common.Teacher = None,
    temperature: _common.Temperature = None,
    alpha: _common.Alpha = None,
    seed: Seed = 0,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    fresh: Annotated[bool, Option("--fresh", help="Discard an existing run and start over.")] = False,
    as_json: _common.Json = False,
) -> None:
    """Remove channels where they cost the least accuracy, until a latency is reached; resumes an interrupted run.

    Each iteration narrows one group of channels, chosen by short trainings of all proposals. The result is fine-tuned.
    Writes a run folder with every iteration and a LiteRT file, and compares it with the original.

    Examples:

      keraslight netadapt runs/net --data digits --to runs/small --budget 0.5
      keraslight netadapt runs/net --data digits --to runs/small --metric macs
    """
    from keraslight import analysis, compress
    from keraslight.graph import without_auxiliary
    from keraslight.training.run_folder import START_OVER

    if metric is not Metric.latency and int8:
        raise InvalidArgumentError(f"`--int8` is for `--metric latency`. Received: --int8 --metric {metric.value}.")
    trained = _load(run, data, labels, preprocessing, task)
    distillation = _common.load_teacher(teacher, trained.images, temperature=temperature, alpha=alpha)
    if distillation is not None:
        trained.details["distillation"] = distillation.to_dict()
    model = without_auxiliary(trained.model)
    table = analysis.OperationTable(to / "operations", threads=threads) if metric is Metric.latency else None
    try:
        result = compress.netadapt(
            model,
            trained.images,
            analysis.resource(model, metric.value, int8=int8, table=table),
            run_dir=to,
            budget=budget,
            step=step,
            decay=decay,
            steps=steps,
            learning_rate=step_learning_rate,
            batch_size=batch_size,
            hold_out=hold_out,
            divisor=divisor,
            minimum=minimum,
            groups=groups or "*",
            augmentation=trained.recipe.augmentation,
            fine_tune=trained.long_recipe(epochs, batch_size, learning_rate, seed) if epochs else None,
            distillation=distillation if epochs else None,
            task=trained.head.task,
            seed=seed,
            resume=not fresh,
        )
    except InvalidArgumentError as error:  # in the words of the command line
        text = str(error).replace(START_OVER, "pass another `--to` or `--fresh`, which overwrites the run")
        raise type(error)(text) from error
    console.print(str(result), markup=False, highlight=False)
    compared = _finish_run(trained, result.model, to, "adapted")
    write_file(to / "netadapt.txt", f"{result}\n")
    console.print(f"Iterations: {to / 'netadapt.txt'}; widths, plot and weights of each: {to / 'netadapt'}")
    if as_json:
        widths = {name: {"before": before, "after": after} for name, (before, after) in result.widths.items()}
        rows = [dataclasses.asdict(row) for row in result.iterations]
        _common.print_json({"run": to, **compared, "budget": result.budget, "iterations": rows, "widths": widths})


def cluster(
    run: Run,
    data: Data,
    to: NewRun,
    clusters: Annotated[int, Option(help="Number of distinct values per kernel.", min=2)] = 16,
    layer: Annotated[
        list[str] | None,
        Option(
            help='Pattern of layers to cluster, such as "stage3_*"; repeatable.',
            show_default="all but depthwise layers and the first",
        ),
    ] = None,
    keep_zeros: Annotated[
        bool, Option("--keep-zeros/--fill-zeros", help="Whether zeros of pruned kernels stay zero.")
    ] = True,
    epochs: Epochs = 4,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 1e-4,
    seed: Seed = 0,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Fine-tune a trained model with few distinct weights per kernel.

    Files keep their size, but compress well.

    Example:

      keraslight cluster runs/net --data digits --to runs/clustered --clusters 16
    """
    from keraslight import compress

    trained = _load(run, data, labels, preprocessing, task)
    clustered = compress.cluster(
        trained.model,
        trained.batches(batch_size, epochs, seed),
        clusters=clusters,
        epochs=1,
        learning_rate=learning_rate,
        layers=layer or None,
        preserve_sparsity=keep_zeros,
        loss=trained.loss(),
        seed=seed,
        verbose=_verbose(),
    )
    values = compress.cluster_report(clustered, layer or None)
    console.print(str(values))
    compared = _finish_run(trained, clustered, to, "clustered")
    if as_json:
        _common.print_json({"run": to, **compared, "layers": values.layers})


def fuse(
    run: Run,
    data: Data,
    to: NewRun,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Fold batch norms, activations and branches into convolutions.

    The fused model has fewer layers and gives the same predictions.
    """
    from keraslight import compress

    trained = _load(run, data, labels, preprocessing, task)
    fused = compress.fuse(trained.model)
    before, after = len(trained.model.layers), len(fused.layers)
    console.print(f"{before} layers became {after}.")
    compared = _finish_run(trained, fused, to, "fused")
    if as_json:
        _common.print_json({"run": to, **compared, "layers": {"before": before, "after": after}})


def quantize(
    run: Run,
    data: Data,
    to: Annotated[Path, Option(help="int8 .tflite file to write.")],
    method: Annotated[
        Method, Option(help="ptq: calibration without training; qat: training with quantization.")
    ] = Method.ptq,
    epochs: Annotated[int, Option(help="For qat: passes over the training images.", min=1)] = 3,
    batch_size: Annotated[int, Option(help="For qat: images per step.", min=1)] = 32,
    learning_rate: Annotated[float, Option(help="For qat: peak learning rate of the cosine schedule.")] = 1e-4,
    skip: Annotated[
        list[str] | None, Option(help='Pattern of layers that stay float, such as "head*"; repeatable.')
    ] = None,
    mixed: Annotated[
        float | None,
        Option(
            help="For ptq: keep the most sensitive layers float until at most this share of accuracy is lost, 0 to 1.",
            metavar="MAX_DROP",
            show_default=False,
        ),
    ] = None,
    keep_relu6: Annotated[
        bool,
        Option(
            "--keep-relu6/--replace-relu6",
            help="For ptq: whether ReLU6 stays; replaced by ReLU, it allows equalization but changes predictions.",
        ),
    ] = True,
    seed: Seed = 0,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Quantize a trained model to an int8 LiteRT file.

    Calibrates ranges with images (ptq), or trains with quantization (qat).

    Examples:

      keraslight quantize runs/net --data digits --to net.tflite
      keraslight quantize runs/net --data digits --to net.tflite --mixed 0.005
      keraslight quantize runs/net --data digits --to net.tflite --method qat
    """
    from keraslight import compress
    from keraslight.export import to_litert, write_metadata

    if mixed is not None and (skip or method is Method.qat):
        raise InvalidArgumentError(
            f"`--mixed` must come with `--method ptq` and without `--skip`. Received: --method {method.value}, --skip "
            f"{skip}."
        )
    trained = _load(run, data, labels, preprocessing, task)
    model = rounded = trained.model
    report = None
    if method is Method.qat:
        batches = trained.batches(batch_size, epochs, seed)
        aware = compress.train_quantized(
            model, batches, epochs=1, learning_rate=learning_rate, skip=skip or (), seed=seed, verbose=_verbose()
        )
        to_litert(aware, to, labels=trained.details["labels"])
        rounded = compress.quantized_weights_to_keras(aware, model)
    else:
        batches = trained.images.train(32, None, seed)
        if mixed is None:
            compress.calibrate(model, batches, to, skip=skip or (), replace_relu6=not keep_relu6, seed=seed)
        else:
            report = compress.calibrate_mixed(
                model,
                batches,
                to,
                max_drop=mixed,
                validation_data=trained.images.validation_arrays(),
                replace_relu6=not keep_relu6,
                seed=seed,
                verbose=int(console.is_terminal),
            )
            console.print(str(report))
        logits = trained.head.activation is not None
        write_metadata(
            to,
            trained.details["labels"],
            task=trained.head.task,
            logits=logits,
            thresholds=trained.details.get("thresholds"),
        )
    compared = _compare(trained, "int8", to, rounded, to.with_suffix(""))
    if as_json:
        _common.print_json({**compared, "mixed": report})


class _Trained(NamedTuple):
    """A run's best model, the content of its model.json, its recipe, and the images, prepared as for its training."""

    model: keras.Model
    details: dict[str, Any]
    recipe: Recipe
    images: ImageData
    head: Head  # what its outputs are

    def batches(self, batch_size: int, epochs: int, seed: int) -> tf.data.Dataset:
        # Not the seed of the float training: fine-tuning sees the images augmented differently.
        return self.images.train(batch_size, self.recipe.augmentation, seed + 1, epochs=epochs)

    def long_recipe(self, epochs: int, batch_size: int, learning_rate: float, seed: int) -> Recipe:
        """A recipe to fine-tune by, with the augmentation and the loss of its training."""
        return dataclasses.replace(
            type(self.recipe)(),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            label_smoothing=self.recipe.label_smoothing,
            augmentation=self.recipe.augmentation,
            class_weights=self.recipe.class_weights,
            seed=seed + 1,
        )

    def loss(self) -> keras.losses.Loss:
        """The loss of its training."""
        from keraslight import _tasks, training

        if self.head.task == "softmax":
            return training.ClassificationLoss(self.recipe.label_smoothing, self.head.activation is not None)
        return _tasks.loss(self.head, label_smoothing=self.recipe.label_smoothing)


def _verbose() -> int:
    """Keras' progress: a bar on a terminal, one line elsewhere."""
    return 1 if console.is_terminal else 2


def _load(
    run: Path, data: str, labels: Path | None, preprocessing: str | None, task: _common.TaskName | None
) -> _Trained:
    from keraslight._tasks import read_head
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import Recipe, load_run

    if run.suffix.lower() in _common.MODEL_FILES:
        return _from_file(run, data, labels, preprocessing, task)
    if labels is not None or preprocessing is not None:
        raise InvalidArgumentError(
            f"`--labels` and `--preprocessing` are for a .keras or .h5 file. Received: {run}, whose run has its own."
        )
    model, details = load_run(run)
    images = _common.load_images(data, Preprocessing.from_dict(details["preprocessing"]))
    if list(images.labels) != list(details["labels"]):
        raise InvalidArgumentError(
            f"`--data` must have the classes of the run, {details['labels']}. Received: {list(images.labels)}."
        )
    head = read_head(model, None if task is None else task.value)
    return _trained(model, details, Recipe.from_dict(details["recipe"]), images, head)


def _from_file(
    file: Path, data: str, labels: Path | None, preprocessing: str | None, task: _common.TaskName | None
) -> _Trained:
    """A model that keraslight didn't train, with images whose targets are in the order of its outputs."""
    import numpy as np

    from keraslight._tasks import read_head
    from keraslight.training import Recipe

    model, names, spec, *_ = _common.load_source(str(file), labels=labels, preprocessing=preprocessing)
    images = _common.load_images(data, spec)
    names = list(images.labels) if names is None else names
    head = read_head(model, None if task is None else task.value)
    classes = 2 if head.task == "binary" else head.units
    if sorted(names) != sorted(images.labels) or classes != len(names):
        raise InvalidArgumentError(
            f"`--data` must have the classes of the model and of `--labels`. Received: {list(images.labels)} with "
            f"labels {names} for a model with output shape {model.output_shape}."
        )
    places = np.array([names.index(label) for label in images.labels], np.int32)
    targets = places[images.targets] if images.targets.ndim == 1 else images.targets[:, np.argsort(places)]
    images = dataclasses.replace(images, labels=tuple(names), targets=targets)
    details = {
        "labels": names,
        "preprocessing": images.preprocessing.to_dict(),
        "recipe": Recipe().to_dict(),
        "seed": 0,
        "distillation": None,
        "versions": {},
    }
    return _trained(model, details, Recipe(), images, head)


def _trained(model: keras.Model, details: dict[str, Any], recipe: Recipe, images: ImageData, head: Head) -> _Trained:
    from keraslight._tasks import check_labels
    from keraslight.graph import remember_task

    check_labels(head, model.outputs[0].shape, images.targets, "--data")
    remember_task(model, head.task)
    return _Trained(model, {**details, "task": head.task}, recipe, images, head)


def _widths(file: Path) -> dict[str, int]:
    """Reads a JSON object of numbers of channels; whether they fit, `shrink` checks."""
    try:
        widths = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgumentError(f"`--widths` must be a JSON file. Received: {file}: {error}.") from error
    if not isinstance(widths, dict):
        raise InvalidArgumentError(
            f"`--widths` must be a JSON object of numbers by the groups' names. Received: {file} with {widths!r}."
        )
    return widths


def _shares(layers: list[str]) -> dict[str, float]:
    """Parses PATTERN=SHARE."""
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


def _finish_run(trained: _Trained, model: keras.Model, to: Path, name: str) -> dict[str, Any]:
    """Writes a run folder with a LiteRT file, and compares it with the trained model, see `_compare`."""
    from keraslight.export import to_litert
    from keraslight.training.run_folder import RunFolder, held_out_thresholds

    folder = RunFolder(to)
    folder.save_best(model)
    file = to_litert(model, to / f"{name}.tflite")
    compared = _compare(trained, name, file, model, to / name)
    info = {**trained.details, "metrics": {"val_accuracy": compared["forms"][-1]["accuracy"]}}
    if trained.head.task == "multi-label":  # other weights give other scores
        info["thresholds"] = held_out_thresholds(model, trained.head, trained.images)
    folder.save_info(info)
    console.print(f"Run folder: {to}")
    return compared


def _compare(trained: _Trained, name: str, file: Path, model: keras.Model, stem: Path) -> dict[str, Any]:
    """Measures a file against the trained model; prints the table and writes `stem`_table.txt and `stem`_table.png.

    Returns the number of images and both forms, as `--json` prints them.
    """
    from keraslight.cli import _forms
    from keraslight.export import to_litert

    pixels, targets = trained.images.validation_arrays()
    title = f"{trained.model.name} on {len(targets)} held-out images, LiteRT with one thread"
    with tempfile.TemporaryDirectory() as folder:
        before = to_litert(trained.model, Path(folder) / "before.tflite")
        forms = [_forms.form("before", before, trained.model), _forms.form(name, file, model)]
        _forms.measure(forms, pixels.astype("float32"), targets, trained.head)
    table = _forms.table(forms, title)
    console.print(table)
    text = stem.with_name(f"{stem.name}_table.txt")
    _common.save_table(table, text)
    chart = text.with_suffix(".png")
    _forms.draw(forms, title, chart)
    console.print(f"Table: {text}; chart: {chart}")
    compared = [dataclasses.asdict(form) for form in forms]
    del compared[0]["file"]  # which was temporary
    return {"images": len(targets), "forms": compared}
