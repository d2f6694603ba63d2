"""`keraslight latency`, `operations` and `lint-model`: the speed of a model on this machine, and what limits it."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from keraslight.cli._common import (
    Json,
    Name,
    Size,
    Source,
    SourceSize,
    console,
    create,
    error_console,
    load_source,
    print_json,
    table,
)
from keraslight.errors import InvalidArgumentError

Engine = enum.StrEnum("Engine", ["keras", "saved_model", "litert"])
Guideline = enum.StrEnum("Guideline", {"G1": "G1", "G2": "G2", "G3": "G3", "G4": "G4"})
ENGINES, THREADS, GUIDELINES = list(Engine), [1, 2], list(Guideline)


def latency(
    name: Name,
    size: Size = None,
    engine: Annotated[list[Engine], Option(help="Runtime to time; repeatable.")] = ENGINES,
    threads: Annotated[list[int], Option(help="Number of LiteRT threads; repeatable.", min=1)] = THREADS,
    batch: Annotated[int, Option(help="Images per call.", min=1)] = 1,
    repeats: Annotated[int, Option(help="Timed calls per runtime.", min=1)] = 100,
    seed: Annotated[int, Option(help="Random seed for the images and the order of the calls.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure a model's latency in Keras, as a SavedModel and in LiteRT.

    The calls are interleaved, so that all runtimes see the same machine load.
    """
    from rich.progress import Progress

    model = create(name, size)

    from keraslight import analysis

    with Progress(console=error_console, transient=True, disable=not error_console.is_terminal) as bar:
        task = bar.add_task("Building the engines", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description="Timing")

        rows = analysis.latency(model, [each.value for each in engine], threads, batch, repeats, seed, show)
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    title = f"{model.name}, {batch} x {model.input_shape[1]} px"
    caption = f"{repeats} interleaved calls each, after a warm-up. TensorFlow uses its own thread pools."
    times_table = table("engine", "threads", "p50 ms", "p90 ms", "p99 ms", "images/s", title=title, caption=caption)
    for row in rows:
        threads_of = "TensorFlow's" if row.threads is None else str(row.threads)
        times = (f"{value:,.2f}" for value in (row.p50, row.p90, row.p99))
        times_table.add_row(row.engine, threads_of, *times, f"{1000 * row.batch / row.p50:,.0f}")
    console.print(times_table)


def operations(
    model: Source,
    size: SourceSize = None,
    int8: Annotated[bool, Option("--int8", help="Time the operators of an int8 file.")] = False,
    threads: Annotated[int, Option(help="Number of LiteRT threads.", min=1)] = 1,
    repeats: Annotated[int, Option(help="Timed calls per operator.", min=1)] = 40,
    top: Annotated[int, Option(help="Number of operators to list, the slowest first.", min=1)] = 15,
    folder: Annotated[
        Path | None,
        Option("--table", help="Folder that keeps the times, for later calls on the same CPU.", show_default="none"),
    ] = None,
    plot: Annotated[Path | None, Option(help="Figure to write, .png or .svg.", show_default="none")] = None,
    as_json: Json = False,
) -> None:
    """Measure which operators of a model take the time in LiteRT.

    Each operator is timed alone, with what LiteRT fuses into it. "Whole
    file" is measured, too: the sum should be near it. MODEL can also be a
    .tflite file.
    """
    from keraslight import analysis
    from keraslight._pictures import checked_path
    from keraslight.export.litert import operators

    checked_path(plot)
    times = analysis.OperationTable(folder, threads=threads, repeats=repeats)
    if model.lower().endswith(".tflite"):
        if int8 or size is not None:
            raise InvalidArgumentError(
                f"A .tflite file has a dtype and a size of its own. Received: --int8 or --size with {model}."
            )
        subject, name = operators.read_operators(model), Path(model).name
    else:
        net = load_source(model, size=size, normalize=False).model
        subject, name = operators.model_operators(net, int8=int8), net.name
    rows = times.operations(subject)
    compared = times.compare(model if model.lower().endswith(".tflite") else subject)
    if plot is not None:
        analysis.plot_operations(rows, top=top, title=f"{name}: {compared.measured_ms:.3f} ms", path=plot)
    if as_json:
        print_json({"model": name, **compared._asdict(), "operations": [row._asdict() for row in rows]})
        return
    total = sum(row.ms for row in rows)
    caption = (
        f"{len(rows)} operators; with the call {compared.table_ms:.3f} ms. Whole file: {compared.measured_ms:.3f} ms."
    )
    listed = table("layer", "operators", "output", "MACs", "µs", "share", title=name, caption=caption)
    ranked = sorted(rows, key=lambda row: -row.ms)
    for row in ranked[:top]:
        layer, output = row.layers[-1] if row.layers else "", "x".join(map(str, row.output[1:]))
        listed.add_row(
            layer, row.kind, output, f"{row.macs:,}", f"{1000 * row.ms:,.1f}", f"{row.ms / total if total else 0:.1%}"
        )
    if rest := ranked[top:]:
        took = sum(row.ms for row in rest)
        macs = sum(row.macs for row in rest)
        listed.add_section()
        others = f"{len(rest)} others"
        listed.add_row(others, "", "", f"{macs:,}", f"{1000 * took:,.1f}", f"{took / total if total else 0:.1%}")
    console.print(listed)
    if plot is not None:
        console.print(f"Wrote {plot}.")


def lint_model(
    name: Name,
    size: Size = None,
    select: Annotated[list[Guideline], Option(help="Guideline to check; repeatable.")] = GUIDELINES,
    exit_zero: Annotated[bool, Option("--exit-zero", help="Exit 0 even if there are findings.")] = False,
    as_json: Json = False,
) -> None:
    """Check a model against ShuffleNet V2's four guidelines for speed.

    Estimates the cost of each violation on this machine. Exits with code 1 if
    there are findings.
    """
    model = create(name, size)

    from keraslight import analysis

    findings = analysis.lint_model(model, select=[each.value for each in select])
    bandwidth, overhead = analysis.memory_bandwidth(), analysis.operation_overhead()
    moved = analysis.profile(model).access_bytes
    if as_json:
        print_json(
            [finding._asdict() | {"milliseconds": finding.milliseconds(bandwidth, overhead)} for finding in findings]
        )
        if findings and not exit_zero:
            raise typer.Exit(1)
        return
    for code in select:
        own = [finding for finding in findings if finding.guideline == code.value]
        console.print(f"{code.value} {analysis.GUIDELINES[code.value]}", markup=False)
        if not own:
            console.print("  Kept.")
            continue
        found = table("where", "what", "MACs", "moved KiB", "least KiB", "ratio", "extra ms")
        for finding in own:
            found.add_row(
                finding.where,
                finding.detail,
                f"{finding.macs:,}",
                f"{finding.access_bytes / 1024:,.1f}",
                f"{finding.least_bytes / 1024:,.1f}" if finding.excess_bytes else "",
                f"{finding.ratio:.2f}" if finding.excess_bytes and finding.least_bytes else "",
                f"{finding.milliseconds(bandwidth, overhead):.3f}",
            )
        found.add_section()
        extra = sum(finding.excess_bytes for finding in own)
        share = f"{extra / moved:.1%} of the model's memory access" if extra else ""
        took = sum(finding.milliseconds(bandwidth, overhead) for finding in own)
        found.add_row(f"{len(own)} findings", share, *[""] * 4, f"{took:.3f}")
        console.print(found)
    console.print(
        f"Extra ms is an estimate: memory access above the minimum at {bandwidth / 1e9:.1f} GB/s that one thread "
        f"copies here (less if feature maps stay in a cache), plus {1000 * overhead:.2f} microseconds for each start "
        "within a block."
    )
    if findings and not exit_zero:
        raise typer.Exit(1)
