"""From a run folder to a smaller model, measured: `keraslight prune`, `cluster`, `fuse` and `quantize`."""

from __future__ import annotations

import dataclasses
import enum
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from keraslight.cli import _common
from keraslight.cli._common import Data, NewRun, Run, Seed, console
from keraslight.cli._trained import BatchSize, LearningRate, compare, finish_run, load, verbose
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras

Epochs = Annotated[int, Option(help="Passes over the training images.", min=1)]

Method = enum.StrEnum("Method", ["ptq", "qat"])
Schedule = enum.StrEnum("Schedule", ["polynomial", "constant"])

Policy = enum.StrEnum("Policy", ["default", "xnnpack"])
Target = enum.StrEnum("Target", ["phone"])


def prune(
    run: Run,
    data: Data,
    to: NewRun,
    sparsity: Annotated[
        float | None,
        Option(help="Share of zeros in each pruned kernel, 0 to 1.", show_default="0.7; 0.8 with --for phone"),
    ] = None,
    target: Annotated[
        Target | None,
        Option(
            "--for",
            help="phone: prune for speed on ARM processors, with --policy xnnpack. Refuses networks that can't run "
            "sparsely there, and counts instructions if `keraslight install-arm64` ran.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        Option(
            help='PATTERN=SHARE, such as "stage0_*=0.5"; repeatable, the first match applies. Replaces --sparsity; '
            "layers without a match stay dense."
        ),
    ] = None,
    schedule: Annotated[Schedule, Option(help="Schedule by which the sparsity rises.")] = Schedule.polynomial,
    policy: Annotated[
        Policy,
        Option(
            help="Layers to prune; xnnpack: only the 1x1 convolutions that XNNPACK can run sparse, four output "
            "channels at a time."
        ),
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
      keraslight prune runs/net --data photos/ --to runs/pruned --for phone
      keraslight prune runs/net --data digits --to runs/pruned --layer "*_e*=0.8"
      keraslight prune runs/net --data digits --to runs/pruned --teacher runs/net
      keraslight prune net.keras --data photos/ --to runs/pruned --preprocessing unit --labels names.txt
    """
    from keraslight import compress

    trained = load(run, data, labels, preprocessing, task)
    if target is not None:
        if layer or two_of_four:
            raise InvalidArgumentError("`--for phone` chooses the layers. Received: --layer or --two-of-four as well.")
        policy, sparsity = Policy.xnnpack, 0.8 if sparsity is None else sparsity
        _check_phone(trained.model, sparsity)
    share = 0.7 if sparsity is None else sparsity
    distillation = trained.learn_from(teacher, temperature, alpha, epochs)
    if scan:
        report = compress.sensitivity(trained.model, trained.images.validation_arrays(), policy=policy.value)
        to.mkdir(parents=True, exist_ok=True)
        (to / "scan.txt").write_text(f"{report}\n", encoding="utf-8")
        report.plot(to / "scan.png")
        console.print(f"Sensitivity: {to / 'scan.txt'}, {to / 'scan.png'}")
    pruned = compress.prune(
        trained.model,
        trained.batches(batch_size, epochs, seed),
        sparsity=_shares(layer) if layer else share,
        epochs=1,
        learning_rate=learning_rate,
        schedule=schedule.value,
        policy=policy.value,
        m_by_n=(2, 4) if two_of_four else None,
        loss=trained.loss() if distillation is None else None,
        distillation=distillation,
        seed=seed,
        verbose=verbose(),
    )
    zeros = compress.sparsity(pruned, tuple(_shares(layer)) if layer else None, policy.value)
    console.print(str(zeros))
    compared = finish_run(trained, pruned, to, "pruned")
    if target is not None:
        compared["sparse_on_arm"] = _report_phone(to / "pruned.tflite")
    if as_json:
        _common.print_json({"run": to, **compared, "layers": zeros.layers})


def _check_phone(model: keras.Model, sparsity: float) -> None:
    """Raises InvalidArgumentError where pruning would not make a model faster on ARM processors: tries it untrained."""
    from keraslight.compress import prune_at_once
    from keraslight.export import litert_report, to_litert

    with tempfile.TemporaryDirectory() as folder:
        file = to_litert(prune_at_once(model, sparsity, policy="xnnpack"), Path(folder) / "tried.tflite", sparse=True)
        found = litert_report(file).sparse
    if not found.accepted:
        raise InvalidArgumentError(
            "`--for phone` needs a network that ARM processors run sparsely. Received: "
            f"{model.name!r}; {found}. docs/android.md lists the families that they do."
        )


def _report_phone(file: Path) -> dict[str, Any]:
    from keraslight.export import arm64_problem, litert_report

    found = litert_report(file).sparse
    console.print(str(found))
    if problem := arm64_problem():
        console.print(f"How many instructions that saves was not measured: {problem}.")
    return dataclasses.asdict(found)


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

    trained = load(run, data, labels, preprocessing, task)
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
        verbose=verbose(),
    )
    values = compress.cluster_report(clustered, layer or None)
    console.print(str(values))
    compared = finish_run(trained, clustered, to, "clustered")
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

    trained = load(run, data, labels, preprocessing, task)
    fused = compress.fuse(trained.model)
    before, after = len(trained.model.layers), len(fused.layers)
    console.print(f"{before} layers became {after}.")
    compared = finish_run(trained, fused, to, "fused")
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
    trained = load(run, data, labels, preprocessing, task)
    model = rounded = trained.model
    report = None
    if method is Method.qat:
        batches = trained.batches(batch_size, epochs, seed)
        aware = compress.train_quantized(
            model, batches, epochs=1, learning_rate=learning_rate, skip=skip or (), seed=seed, verbose=verbose()
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
    compared = compare(trained, "int8", to, rounded, to.with_suffix(""))
    if as_json:
        _common.print_json({**compared, "mixed": report})


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
