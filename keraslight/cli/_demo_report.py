"""Report of the demo: the table of its stages, and two figures about the predictions."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from keraslight._pictures import finished, new_figure
from keraslight.cli._common import console, save_table
from keraslight.cli._forms import Form


@dataclasses.dataclass
class Stage:
    """A stage of the demo: its model, share of zeros, training time, servable version, and file for Android."""

    name: str
    model: Any
    sparsity: float
    seconds: float
    servable: Path
    form: Form
    largest_difference: float = 0.0


def confusion(targets: NDArray[np.int32], predictions: NDArray[np.int64], classes: int = 10) -> NDArray[np.int64]:
    """Confusion matrix (classes, classes): one row per true digit, one column per predicted digit."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (targets, predictions), 1)
    return counts


def draw_confusion(counts: NDArray[np.int64], labels: tuple[str, ...], file: Path) -> None:
    """Draws a confusion matrix, darker for higher counts."""
    figure = new_figure(6, 6)
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for row, column in np.argwhere(counts):
        color = "white" if counts[row, column] > counts.max() / 2 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=color)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    title = f"int8 model over gRPC: {np.trace(counts) / counts.sum():.1%} of {counts.sum()} held-out digits"
    axes.set(xlabel="predicted digit", ylabel="true digit", title=title)
    finished(figure, file)


def draw_images(
    files: list[Path], targets: NDArray[np.int32], predictions: NDArray[np.int64], labels: tuple[str, ...], file: Path
) -> None:
    """Draws a grid of classified digits, starting with the misclassified ones in red."""
    from PIL import Image

    wrong_first = np.argsort(targets == predictions, kind="stable")[:40]
    figure = new_figure(10, 5.5)
    for axes, index in zip(figure.subplots(4, 10).flat, wrong_first, strict=True):
        axes.imshow(np.asarray(Image.open(files[index])), cmap="gray")
        right = targets[index] == predictions[index]
        text = labels[predictions[index]] + ("" if right else f" (is {labels[targets[index]]})")
        axes.set_title(text, color="black" if right else "red", fontsize=10)
        axes.axis("off")
    figure.suptitle("Predictions of the served int8 model, mistakes first")
    finished(figure, file)


def report(stages: list[Stage], to: Path, *, model: str, images: int, seconds: float) -> dict[str, Any]:
    """Prints the table, writes it as text and as JSON, and returns the latter."""
    table = Table(title=f"{model} on {images} held-out digits, LiteRT with one thread, {seconds:.0f} s in all")
    first = stages[0].form
    phone = first.instructions is not None
    headings = (
        "model",
        "accuracy",
        "zeros",
        ".tflite",
        "gzip",
        "latency",
        *(["ARM64\ninstructions,\nshare of float"] * phone),
        "training",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right")
    figures = []
    for stage in stages:
        form = stage.form
        table.add_row(
            stage.name,
            f"{form.accuracy:.2%}",
            f"{stage.sparsity:.0%}",
            f"{1000 * form.megabytes:,.0f} kB ({form.megabytes / first.megabytes:.2f})",
            f"{1000 * form.gzip_megabytes:,.0f} kB ({form.gzip_megabytes / first.gzip_megabytes:.2f})",
            f"{form.milliseconds:.2f} ms ({form.milliseconds / first.milliseconds:.2f})",
            *([f"{(form.instructions or 0) / (first.instructions or 1):.2f}"] * phone),
            f"{stage.seconds:.0f} s",
        )
        row: dict[str, Any] = {"name": stage.name, "sparsity": stage.sparsity}
        row |= {"servable": str(stage.servable), "litert": str(form.file), "accuracy": form.accuracy}
        row |= {"kilobytes": 1000 * form.megabytes, "gzip_kilobytes": 1000 * form.gzip_megabytes}
        row |= {"milliseconds": form.milliseconds, "seconds": stage.seconds}
        row |= {"arm64_instructions": form.instructions}
        figures.append(row | {"largest_difference": stage.largest_difference})
    console.print(table)
    save_table(table, to / "table.txt")
    results = {"images": images, "seconds": seconds, "stages": figures}
    (to / "results.json").write_text(json.dumps(results, indent=2))
    console.print(f"Table, confusion matrix and classified images: {to}/")
    return results
