"""`keraslight latency` and `keraslight lint-model`: the speed of a model on this machine, and what limits it."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from typer import Option

from keraslight.cli._common import Json, Name, Size, console, create, error_console, print_json, table

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
