"""`keraslight classify` and `keraslight load-test`: clients of a model server."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from keraslight.cli._common import Json, console, error_console, print_json
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from keraslight_serving.client import Answer
    from keraslight_serving.client.load_test import LoadReport
    from rich.progress import Progress

Server = Annotated[
    str, Option(help="HOST:PORT for gRPC or http://HOST:PORT for REST; round-robins over several, separated by commas.")
]
Model = Annotated[str, Option(help="Name of the served model.")]
Version = Annotated[str | None, Option(help="Version number, or a label such as stable.", show_default="newest")]
Timeout = Annotated[float, Option(help="Timeout per request including retries, in seconds.")]
Images = Annotated[list[Path], Argument(help="Image files, or folders of image files.", metavar="IMAGE...")]


def classify(
    images: Images,
    server: Server = "localhost:8500",
    model: Model = "default",
    version: Version = None,
    top: Annotated[int, Option(help="Number of classes to show per image.", min=1)] = 5,
    threshold: Annotated[
        str | None,
        Option(
            help='Score above which a class is shown, or "model" for the thresholds of a multi-label model.',
            metavar="NUMBER",
            show_default="all",
        ),
    ] = None,
    timeout: Timeout = 30.0,
    labels: Annotated[
        Path | None,
        Option(help="Text file with one class name per line, for models without labels.", exists=True, dir_okay=False),
    ] = None,
    as_json: Json = False,
    thumbnails: Annotated[bool, Option(help="Show thumbnails, in terminals with color.")] = False,
) -> None:
    """Classify image files with a served model.

    --json prints an object for each image, on a line of its own.

    Exit codes: 0 on success, 1 if the server is unavailable, 2 if some images
    can't be classified; these are listed on stderr.
    """
    from keraslight_serving.client import ClassifierClient, ServingError

    answered: list[Answer] = []
    failed = 0
    try:
        with (
            ClassifierClient(server, model, version=_version(version), timeout=timeout, labels=labels) as client,
            _progress(console.is_terminal) as progress,
        ):
            task = progress.add_task("classifying", total=None)
            for answer in client.stream(images, top_k=top, threshold=_threshold(threshold)):
                progress.advance(task)
                if answer.error is not None:
                    failed += 1
                    _print_error(answer.error)
                elif as_json:
                    found = {"image": answer.source, "classes": [c._asdict() for c in answer.ranking]}
                    print_json(found, indent=None)
                else:
                    answered.append(answer)
    except ServingError as error:
        _print_error(error)
        raise typer.Exit(1) from error
    if answered:
        console.print(_table(answered, thumbnails and console.color_system is not None))
    if failed:
        raise typer.Exit(2)


def _threshold(given: str | None) -> float | Literal["model"] | None:
    if given is None or given == "model":
        return given  # type: ignore[return-value]  # it is the literal
    try:
        return float(given)
    except ValueError as error:
        raise InvalidArgumentError(f'`--threshold` must be a number or "model". Received: {given!r}.') from error


def load_test(
    images: Images,
    server: Server = "localhost:8500",
    model: Model = "default",
    version: Version = None,
    rate: Annotated[
        float | None, Option(help="Open loop: requests per second.", min=0.001, show_default="closed loop")
    ] = None,
    concurrency: Annotated[int, Option(help="Closed loop: requests in flight.", min=1)] = 8,
    seconds: Annotated[float, Option(help="Duration of the test, in seconds.", min=0.01)] = 10.0,
    timeout: Timeout = 30.0,
    seed: Annotated[int, Option(help="Random seed for the arrival times of the open loop.")] = 0,
    plot: Annotated[Path | None, Option(help="Write a histogram of the latencies to this .png or .svg file.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the throughput and latency of a model server.

    The closed loop (--concurrency) measures the server's capacity. The open
    loop (--rate) measures latency as users see it: from the time a request
    was due, even if a stalled server delayed sending it.

    Failed requests are counted, not retried; with any, the exit code is 2.
    Percentiles are of all requests: p99 is "failed" (null in JSON) if more
    than 1% failed.
    """
    import asyncio

    from keraslight_serving.client import AsyncClassifierClient, Retry, ServingError
    from keraslight_serving.client.load_test import load_test as run

    async def measure() -> LoadReport:
        once = Retry(attempts=1)
        async with AsyncClassifierClient(
            server, model, version=_version(version), timeout=timeout, retry=once
        ) as client:
            with _progress(console.is_terminal) as progress:
                advance = functools.partial(progress.advance, progress.add_task("answers", total=None))
                return await run(
                    client, images, rate=rate, concurrency=concurrency, seconds=seconds, seed=seed, on_answer=advance
                )

    try:
        report = asyncio.run(measure())
    except ServingError as error:
        _print_error(error)
        raise typer.Exit(1) from error
    loop = f"{concurrency} in flight" if rate is None else f"{rate:g} per second"
    percentiles = {f"p{percent:g}": 1000 * value for percent, value in report.percentiles().items()}
    if as_json:
        summary = {"loop": loop, "seconds": report.seconds, "answers": len(report.latencies), "rate": report.rate}
        milliseconds = {name: value if math.isfinite(value) else None for name, value in percentiles.items()}
        print_json({**summary, "milliseconds": milliseconds, "errors": report.errors})
    else:
        table = Table("", "", title=f"{model} at {server}: {loop}", show_header=False)
        table.add_row("answers", f"{len(report.latencies):,} in {report.seconds:.1f} s")
        table.add_row("answers per second", f"{report.rate:,.1f}")
        for name, value in percentiles.items():
            shown = f"{value:,.2f} ms" if math.isfinite(value) else "failed"
            table.add_row("slowest" if name == "p100" else name, shown)
        for name, count in report.errors.items():
            table.add_row(name, f"{count:,}", style="bold red")
        console.print(table)
    if plot is not None:
        _plot(report, f"{model}: {loop}", plot)
    if report.errors:
        raise typer.Exit(2)


def _version(given: str | None) -> int | str | None:
    return int(given) if given is not None and given.isdigit() else given


def _print_error(error: Exception) -> None:
    typer.echo(f"{type(error).__name__}: {error}", err=True)


def _progress(visible: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=error_console, transient=True, disable=not visible)


def _table(answers: list[Answer], thumbnails: bool) -> Table:
    """One row per image, with paths relative to the common folder."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(answer.source)) for answer in answers])
    table = Table("image", *(f"{place + 1}." for place in range(max(len(answer.ranking) for answer in answers))))
    for answer in answers:
        name = Text(os.path.relpath(answer.source, folder))
        if thumbnails:
            name = Text("\n").join([name, _thumbnail(answer.source)])
        # As Text, because "[x]" in a string would be markup.
        table.add_row(name, *(Text(f"{found.label} {found.score:.1%}") for found in answer.ranking))
    return table


def _thumbnail(path: str, columns: int = 16) -> Text:
    """Draws an image with half blocks: each character shows two pixels, one above the other."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        rows = 2 * max(1, round(columns * image.height / image.width / 2))
        pixels = image.convert("RGB").resize((columns, rows)).tobytes()

    def color(place: int) -> str:
        return f"rgb({','.join(map(str, pixels[3 * place : 3 * place + 3]))})"

    text = Text()
    for row in range(0, rows * columns, 2 * columns):
        for upper in range(row, row + columns):
            text.append("▀", style=f"{color(upper)} on {color(upper + columns)}")
        text.append("\n")
    return text


def _plot(report: LoadReport, title: str, path: Path) -> None:
    """Draws a histogram of the latencies, with percentiles."""
    from keraslight._pictures import new_figure

    figure = new_figure(7, 4)
    axes = figure.subplots()
    milliseconds = 1000 * report.latencies
    axes.hist(milliseconds, bins=60, color="0.6")
    values = report.percentiles((50, 90, 99))
    for (percent, value), style in zip(values.items(), ("-", "--", ":"), strict=True):
        if math.isfinite(value):
            axes.axvline(1000 * value, color="black", linestyle=style, label=f"p{percent}: {1000 * value:.1f} ms")
        else:
            axes.plot([], [], color="black", linestyle=style, label=f"p{percent}: failed")
    axes.set(xlabel="milliseconds", ylabel="requests", title=f"{title}; {report.rate:.1f} answers per second")
    axes.legend()
    figure.savefig(path, dpi=150)
