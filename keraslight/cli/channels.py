"""From a run folder to a model with fewer channels, measured: `keraslight shrink` and `netadapt`."""

from __future__ import annotations

import dataclasses
import enum
import json
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from keraslight._files import write_file
from keraslight.cli import _common
from keraslight.cli._common import Data, NewRun, Run, Seed, console
from keraslight.cli._trained import BatchSize, LearningRate, finish_run, load, verbose
from keraslight.errors import InvalidArgumentError

Choice = enum.StrEnum("Choice", ["magnitude", "uniform"])
Metric = enum.StrEnum("Metric", ["latency", "macs", "parameters"])


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
    trained = load(run, data, labels, preprocessing, task)
    distillation = trained.learn_from(teacher, temperature, alpha, epochs)
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
            verbose=verbose(),
        )
    compared = finish_run(trained, small, to, "shrunk")
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
    """Remove channels where they cost the least accuracy, until a budget is reached; resumes an interrupted run.

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
    trained = load(run, data, labels, preprocessing, task)
    distillation = trained.learn_from(teacher, temperature, alpha, epochs)
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
            distillation=distillation,
            task=trained.head.task,
            seed=seed,
            resume=not fresh,
        )
    except InvalidArgumentError as error:  # in the words of the command line
        text = str(error).replace(START_OVER, "pass another `--to` or `--fresh`, which overwrites the run")
        raise type(error)(text) from error
    console.print(str(result), markup=False, highlight=False)
    compared = finish_run(trained, result.model, to, "adapted")
    write_file(to / "netadapt.txt", f"{result}\n")
    console.print(f"Iterations: {to / 'netadapt.txt'}; widths, plot and weights of each: {to / 'netadapt'}")
    if as_json:
        widths = {name: {"before": before, "after": after} for name, (before, after) in result.widths.items()}
        rows = [dataclasses.asdict(row) for row in result.iterations]
        _common.print_json({"run": to, **compared, "budget": result.budget, "iterations": rows, "widths": widths})


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
