"""The page that `keraslight make` writes: one file without links. Names of files and labels are from strangers."""

from __future__ import annotations

import base64
import dataclasses
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keraslight import _doors
from keraslight._files import write_file
from keraslight.analysis import Evaluation
from keraslight.training import ImageData

_doors.require("keraslight make", "cli", "jinja2")

import jinja2  # noqa: E402

TEMPLATE = "_make_report.html"
WORST = 24  # images that are shown
_SIDE = 160  # longest side of a thumbnail, in pixels
_LARGEST = 30  # classes of a confusion matrix that is shown as a table
_MISTAKES = 10


class Page(NamedTuple):
    """What the page shows.

    Attributes:
        results: As `run_make` returns them.
        found: The evaluation of the .tflite file.
        images: The images that it is of, with their files.
        pixels: Those images, uint8 (N, H, W, C).
        curves: Picture of the training.
        max_loss: Largest loss of accuracy that a file may have, 0 to 1.
    """

    results: dict[str, Any]
    found: Evaluation
    images: ImageData
    pixels: NDArray[np.uint8]
    curves: Path
    max_loss: float


def write_report(path: Path, page: Page) -> Path:
    """Writes the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["share"] = _share
    template = environment.from_string(resources.files("keraslight.cli").joinpath(TEMPLATE).read_text("utf-8"))
    found = page.found
    small = found.confusion is not None and len(found.confusion) <= _LARGEST
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "calibration.png")
        dataclasses.replace(found, confusion=None, classes=()).plot(picture)  # the page has the rest as tables
        calibration = _data(picture.read_bytes())
    text = template.render(
        results=page.results,
        found=found,
        max_loss=page.max_loss,
        confusion=_confusion(found) if small else None,
        mistakes=_mistakes(found),
        worst=list(_worst(page)),
        calibration=calibration,
        curves=_data(page.curves.read_bytes()),
    )
    return write_file(path, text)


def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}%"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _confusion(found: Evaluation) -> list[list[dict[str, Any]]]:
    """Counts, each with the strength of its color, which follows its share of the true class."""
    counts = np.asarray(found.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [
        [
            {
                "count": int(count),
                "strength": round(0.15 + 0.6 * float(share), 3) if count else 0,
                "right": row == column,
            }
            for column, (count, share) in enumerate(zip(*line, strict=True))
        ]
        for row, line in enumerate(zip(counts, shares, strict=True))
    ]


def _mistakes(found: Evaluation) -> list[dict[str, Any]]:
    """The most frequent wrong answers."""
    if found.confusion is None:
        return []
    counts = np.asarray(found.confusion)
    wrong = [(int(counts[true, answer]), true, answer) for true, answer in np.argwhere(counts) if true != answer]
    wrong.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
    return [
        {
            "true": found.labels[true],
            "answer": found.labels[answer],
            "count": count,
            "share": count / int(counts[true].sum()),
        }
        for count, true, answer in wrong[:_MISTAKES]
    ]


def _worst(page: Page) -> Iterator[dict[str, Any]]:
    """The images whose right answer is the least probable, each as a thumbnail with its answers."""
    found, images = page.found, page.images
    for index in found.worst(WORST):
        scores, target = found.outputs[index], found.targets[index]
        if found.task == "softmax":
            answer = int(scores.argmax())
            true, given = found.labels[target], f"{found.labels[answer]} {_share(float(scores[answer]))}"
            right = answer == target
        else:
            yes = scores > [each.threshold or 0.5 for each in found.classes]
            true = ", ".join(name for name, value in zip(found.labels, target, strict=True) if value > 0.5) or "none"
            names = [f"{found.labels[n]} {_share(float(scores[n]))}" for n in np.flatnonzero(yes)]
            given, right = ", ".join(names) or "none", bool((yes == (target > 0.5)).all())
        place = images.validation_indices[index]
        yield {
            "picture": _thumbnail(page.pixels[index]),
            "true": true,
            "given": given,
            "right": bool(right),
            "file": _shown(images.files[place]) if images.files else f"image {place}",
        }


def _shown(file: str) -> str:
    """The end of a path, with all that isn't UTF-8 replaced."""
    return "/".join(Path(file).parts[-3:]).encode("utf-8", "replace").decode("utf-8")


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    import tensorflow as tf

    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    if scale < 1:
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        pixels = np.clip(np.round(tf.image.resize(pixels, size, antialias=True).numpy()), 0, 255).astype(np.uint8)
    return _data(tf.io.encode_png(pixels).numpy())
