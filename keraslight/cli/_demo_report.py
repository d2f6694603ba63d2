"""What the demo leaves behind: the table of its stages and two pictures of the answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keraslight.cli.demo import Stage


def confusion(targets: np.ndarray, predictions: np.ndarray, classes: int = 10) -> np.ndarray:
    """(classes, classes) counts: rows are the true digits, columns what was answered."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (targets, predictions), 1)
    return counts


def draw_confusion(counts: np.ndarray, labels: tuple[str, ...], file: Path) -> None:
    """The counts as a picture, darker for more."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for row, column in np.argwhere(counts):
        color = "white" if counts[row, column] > counts.max() / 2 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color)
    axes.set(
        xticks=range(len(labels)), xticklabels=labels, yticks=range(len(labels)), yticklabels=labels,
        xlabel="answered", ylabel="digit",
        title=f"int8 model over gRPC: {np.trace(counts) / counts.sum():.1%} of {counts.sum()} held-out digits",
    )  # fmt: skip
    figure.savefig(file, dpi=120)


def draw_images(
    files: list[Path], targets: np.ndarray, predictions: np.ndarray, labels: tuple[str, ...], file: Path
) -> None:
    """A grid of classified digits, the wrong ones first and in red."""
    from matplotlib.figure import Figure
    from PIL import Image

    wrong_first = np.argsort(targets == predictions, kind="stable")[:40]
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    for axes, index in zip(figure.subplots(4, 10).flat, wrong_first, strict=True):
        axes.imshow(np.asarray(Image.open(files[index])), cmap="gray")
        right = targets[index] == predictions[index]
        text = labels[predictions[index]] + ("" if right else f" (is {labels[targets[index]]})")
        axes.set_title(text, color="black" if right else "red", fontsize=10)
        axes.axis("off")
    figure.suptitle("What the served int8 model answered, mistakes first")
    figure.savefig(file, dpi=120)


def report(stages: list[Stage], to: Path, console: Console, *, model: str, images: int, seconds: float) -> None:
    """Prints the table and writes it as text and as JSON."""
    table = Table(title=f"{model} on {images} held-out digits, LiteRT with one thread, {seconds:.0f} s in all")
    for heading in ("model", "accuracy", "zeros", ".tflite", "gzip", "latency", "training"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    first = stages[0]
    for stage in stages:
        table.add_row(
            stage.name,
            f"{stage.accuracy:.2%}",
            f"{stage.sparsity:.0%}",
            f"{stage.kilobytes:,.0f} kB ({stage.kilobytes / first.kilobytes:.2f})",
            f"{stage.gzip_kilobytes:,.0f} kB ({stage.gzip_kilobytes / first.gzip_kilobytes:.2f})",
            f"{stage.milliseconds:.2f} ms ({stage.milliseconds / first.milliseconds:.2f})",
            f"{stage.seconds:.0f} s",
        )
    console.print(table)
    with (to / "table.txt").open("w") as text:
        Console(file=text, width=110).print(table)
    figures = [
        {**dataclasses.asdict(dataclasses.replace(stage, model=None)), "servable": str(stage.servable),
         "litert": str(stage.litert)}
        for stage in stages
    ]  # fmt: skip
    for figure in figures:
        del figure["model"]
    (to / "results.json").write_text(json.dumps({"images": images, "seconds": seconds, "stages": figures}, indent=2))
    console.print(f"Table, confusion matrix and classified images: {to}/")
