"""`keraslight latency` and `keraslight lint-model`: what a model takes on this machine, and why."""

from __future__ import annotations

import enum
from typing import Annotated

import typer
from rich.table import Table

Model = Annotated[str, typer.Argument(help="A model's name or published id.", metavar="MODEL")]
Size = Annotated[
    int | None, typer.Option(help="Side of the image in pixels. [default: the model's]", show_default=False)
]


class Engine(enum.StrEnum):
    """What runs a model that is timed."""

    keras = "keras"
    saved_model = "saved_model"
    litert = "litert"


class Guideline(enum.StrEnum):
    """What `lint-model` looks at."""

    G1 = "G1"
    G2 = "G2"
    G3 = "G3"
    G4 = "G4"


ENGINES, THREADS, GUIDELINES = list(Engine), [1, 2], list(Guideline)  # what is timed and looked at by default


def latency(
    name: Model,
    size: Size = None,
    engine: Annotated[list[Engine], typer.Option(help="What to time; give it again for several.")] = ENGINES,
    threads: Annotated[list[int], typer.Option(help="Threads of LiteRT; give it again for several.", min=1)] = THREADS,
    batch: Annotated[int, typer.Option(help="Images a call.", min=1)] = 1,
    repeats: Annotated[int, typer.Option(help="Timed calls of each engine.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the images and of the engines' order.")] = 0,
) -> None:
    """Time a model on this machine with Keras, as a SavedModel and as a LiteRT file, turn by turn."""
    from rich.progress import Progress

    from keraslight import analysis
    from keraslight.cli.app import _build, console

    model = _build(name, size)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("Building the engines", total=None)
        rows = analysis.latency(
            model,
            [each.value for each in engine],
            threads,
            batch,
            repeats,
            seed,
            lambda done, total: bar.update(task, completed=done, total=total, description="Timing"),
        )
    side = model.input_shape[1]
    table = Table(
        "engine", "threads", "p50 ms", "p90 ms", "p99 ms", "images/s", title=f"{model.name}, {batch} x {side} px",
        caption=f"{repeats} calls of each, turn by turn, warm-up left out. TensorFlow has its own threads.",
    )  # fmt: skip
    for row in rows:
        threads_of = "TensorFlow's" if row.threads is None else str(row.threads)
        times = (f"{value:,.2f}" for value in (row.p50, row.p90, row.p99))
        table.add_row(row.engine, threads_of, *times, f"{1000 * row.batch / row.p50:,.0f}")
    console.print(table)


def lint_model(
    name: Model,
    size: Size = None,
    select: Annotated[list[Guideline], typer.Option(help="What to look at; give it again for several.")] = GUIDELINES,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 in spite of findings.")] = False,
) -> None:
    """Show where a model breaks ShuffleNet V2's four guidelines for speed, and what that costs on this machine.

    Exits with 1 if there are findings.
    """
    from keraslight import analysis
    from keraslight.cli.app import _build, console

    model = _build(name, size)
    findings = analysis.lint_model(model, select=[each.value for each in select])
    bandwidth, overhead = analysis.memory_bandwidth(), analysis.operation_overhead()
    moved = analysis.profile(model).access_bytes
    for code in select:
        own = [finding for finding in findings if finding.guideline == code.value]
        console.print(f"{code.value} {analysis.GUIDELINES[code.value]}", markup=False)
        if not own:
            console.print("  Kept.")
            continue
        table = Table("where", "what", "MACs", "moved KiB", "least KiB", "ratio", "extra ms")
        for finding in own:
            table.add_row(
                finding.where,
                finding.detail,
                f"{finding.macs:,}",
                f"{finding.access_bytes / 1024:,.1f}",
                f"{finding.least_bytes / 1024:,.1f}" if finding.excess_bytes else "",
                f"{finding.ratio:.2f}" if finding.excess_bytes and finding.least_bytes else "",
                f"{finding.milliseconds(bandwidth, overhead):.3f}",
            )
        table.add_section()
        extra = sum(finding.excess_bytes for finding in own)
        share = f"{extra / moved:.1%} of the model's memory access" if extra else ""
        took = sum(finding.milliseconds(bandwidth, overhead) for finding in own)
        table.add_row(f"{len(own)} findings", share, *[""] * 4, f"{took:.3f}")
        console.print(table)
    console.print(
        f"Extra ms (an estimate): what is moved beyond the least, at {bandwidth / 1e9:.1f} GB/s that one thread copies "
        f"here (less where maps stay in a cache), and {1000 * overhead:.2f} microseconds for each start within a block."
    )
    if findings and not exit_zero:
        raise typer.Exit(1)
