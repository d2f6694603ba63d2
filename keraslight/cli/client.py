"""The commands that ask a model server: `classify` and `load-test`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from keraslight_serving.client import Answer
    from keraslight_serving.client.load_test import LoadReport

console = Console()

Server = Annotated[
    str,
    typer.Option(
        help="HOST:PORT of a model server, or http://HOST:PORT for REST; several, separated by commas, take turns."
    ),
]
Model = Annotated[str, typer.Option(help="The served model's name.")]
Version = Annotated[
    str | None, typer.Option(help="A version's number, or a label such as stable. [default: the newest]",
                             show_default=False)
]  # fmt: skip
Timeout = Annotated[float, typer.Option(help="Seconds for a request, retries included.")]
Images = Annotated[list[Path], typer.Argument(help="Image files, or folders of them.", metavar="IMAGE...")]


def classify(
    images: Images,
    server: Server = "localhost:8500",
    model: Model = "default",
    version: Version = None,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 5,
    timeout: Timeout = 30.0,
    labels: Annotated[
        Path | None, typer.Option(help="A text file with a class name a line, for models that don't know theirs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    thumbnails: Annotated[bool, typer.Option(help="Show small pictures, in a terminal with colors.")] = False,
) -> None:
    """Classify image files with a served model.

    Ends with 0; with 1 if the server can't be asked; with 2 if some of the images can't be classified, which are named
    on stderr while the others are answered.
    """
    from keraslight_serving.client import ClassifierClient, ServingError

    answered: list[Answer] = []
    failed = 0
    try:
        with (
            ClassifierClient(server, model, version=_version(version), timeout=timeout, labels=labels) as client,
            _progress(console.is_terminal and not as_json) as progress,
        ):
            task = progress.add_task("classifying", total=None)
            for answer in client.stream(images, top_k=top):
                progress.advance(task)
                if answer.error is not None:
                    failed += 1
                    typer.echo(f"{type(answer.error).__name__}: {answer.error}", err=True)
                elif as_json:
                    typer.echo(json.dumps({"image": answer.source, "classes": [c._asdict() for c in answer.ranking]}))
                else:
                    answered.append(answer)
    except ServingError as error:
        raise typer.Exit(_fail(error)) from error
    if answered:
        console.print(_table(answered, thumbnails and console.color_system is not None))
    if failed:
        raise typer.Exit(2)


def load_test(
    images: Images,
    server: Server = "localhost:8500",
    model: Model = "default",
    version: Version = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: so many requests a second. [default: closed loop]", min=0.001,
                                   show_default=False)
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Closed loop: requests in flight.", min=1)] = 8,
    seconds: Annotated[float, typer.Option(help="How long to send requests.", min=0.01)] = 10.0,
    timeout: Timeout = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the open loop's moments.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write the latencies to a .png or .svg file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:  # fmt: skip
    """Measure how many images a second a server classifies, and how long the answers take.

    The closed loop (--concurrency) tells what the server can do; the open loop (--rate) what users wait for: a latency
    there counts from the moment at which the request was due, even if a stalled server kept it from being sent.
    Failed requests are counted, not sent again.
    """
    from keraslight_serving.client import AsyncClassifierClient, Retry, ServingError
    from keraslight_serving.client.load_test import load_test as run

    async def measure() -> LoadReport:
        once = Retry(attempts=1)
        async with AsyncClassifierClient(
            server, model, version=_version(version), timeout=timeout, retry=once
        ) as client:
            with _progress(console.is_terminal and not as_json) as progress:
                task = progress.add_task("answers", total=None)
                return await run(
                    client,
                    images,
                    rate=rate,
                    concurrency=concurrency,
                    seconds=seconds,
                    seed=seed,
                    on_answer=lambda: progress.advance(task),
                )

    try:
        report = asyncio.run(measure())
    except ServingError as error:
        raise typer.Exit(_fail(error)) from error
    loop = f"{concurrency} in flight" if rate is None else f"{rate:g} a second due"
    percentiles = {f"p{percent:g}": 1000 * value for percent, value in report.percentiles().items()}
    if as_json:
        summary = {"loop": loop, "seconds": report.seconds, "answers": len(report.latencies), "rate": report.rate}
        typer.echo(json.dumps({**summary, "milliseconds": percentiles, "errors": report.errors}))
    else:
        table = Table("", "", title=f"{model} at {server}: {loop}", show_header=False)
        table.add_row("answers", f"{len(report.latencies):,} in {report.seconds:.1f} s")
        table.add_row("answers a second", f"{report.rate:,.1f}")
        for name, value in percentiles.items():
            table.add_row("slowest" if name == "p100" else name, f"{value:,.2f} ms")
        for name, count in report.errors.items():
            table.add_row(name, f"{count:,}", style="bold red")
        console.print(table)
    if plot is not None:
        _plot(report, f"{model}: {loop}", plot)
    if report.errors:
        raise typer.Exit(2)


def _version(given: str | None) -> int | str | None:
    return int(given) if given is not None and given.isdigit() else given


def _fail(error: Exception) -> int:
    typer.echo(f"{type(error).__name__}: {error}", err=True)
    return 1


def _progress(visible: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not visible)


def _table(answers: list[Answer], thumbnails: bool) -> Table:
    """A row an image. Paths are shown from the folder that all images are in."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(answer.source)) for answer in answers])
    table = Table("image", *(f"{place + 1}." for place in range(max(len(answer.ranking) for answer in answers))))
    for answer in answers:
        name = Text(os.path.relpath(answer.source, folder))
        if thumbnails:
            name = Text("\n").join([name, _thumbnail(answer.source)])
        table.add_row(name, *(f"{found.label} {found.score:.1%}" for found in answer.ranking))
    return table


def _thumbnail(path: str, columns: int = 16) -> Text:
    """The image in half blocks: each character is two pixels, one above the other."""
    from PIL import Image

    with Image.open(path) as image:
        rows = 2 * max(1, round(columns * image.height / image.width / 2))
        pixels = image.convert("RGB").resize((columns, rows))
    text = Text()
    for y in range(0, rows, 2):
        for x in range(columns):
            (upper, lower) = (f"rgb({','.join(map(str, pixels.getpixel((x, y + n))))})" for n in (0, 1))
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n")
    return text


def _plot(report: LoadReport, title: str, path: Path) -> None:
    """How many requests took how long, and which percentiles that makes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    milliseconds = 1000 * report.latencies
    axes.hist(milliseconds, bins=60, color="0.6")
    styles = {50: "-", 90: "--", 99: ":"}
    for percent, value in report.percentiles(tuple(styles)).items():
        axes.axvline(1000 * value, color="black", linestyle=styles[percent], label=f"p{percent}: {1000 * value:.1f} ms")
    axes.set(xlabel="milliseconds", ylabel="requests", title=f"{title}; {report.rate:.1f} answers a second")
    axes.legend()
    figure.savefig(path, dpi=150)
