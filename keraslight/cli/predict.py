"""`keraslight predict`: image files classified by a run, a model file, a .tflite file or a servable, locally."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer import Argument, Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.cli._subjects import Subject, SubjectPath, load_subject, numbers, run_subject
from keraslight.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from keraslight._tasks import Head
    from keraslight.preprocessing import Preprocessing

_BATCH = 32


def predict(
    model: SubjectPath,
    images: Annotated[list[Path], Argument(help="Image files, or folders of image files.", metavar="IMAGE...")],
    top: Annotated[int, Option(help="Number of classes to show per image.", min=1)] = 5,
    thresholds: Annotated[
        str | None,
        Option(
            help="Scores above which a label is given, one or one per label; for independent scores.",
            metavar="NUMBERS",
            show_default="the model's, or 0.5",
        ),
    ] = None,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Classify image files with a trained model, without a server.

    --json prints an object for each image, on a line of its own.

    Exit codes: 0 on success, 2 if some images can't be read; these are listed
    on stderr.

    Examples:

      keraslight predict runs/net photo.jpg
      keraslight predict net.tflite photos/ --top 3 --json
    """
    from keraslight import training

    limits = None if thresholds is None else numbers("--thresholds", thresholds)
    subject = load_subject(model, labels, task, preprocessing)
    files = training.image_files(images)
    spec = _common.known_preprocessing(subject.preprocessing, "IMAGE")
    failed = 0
    table = _common.table("image", "answer", show_edge=False)
    head: Head | None = None
    for start in range(0, len(files), _BATCH):
        read = []
        for file in files[start : start + _BATCH]:
            try:
                read.append((file, _pixels(file, spec)))
            except DataError as error:
                failed += 1
                typer.echo(f"DataError: {error}", err=True)
        if not read:
            continue
        head, scores = run_subject(subject, [pixels for _, pixels in read], head)
        for (file, _), row in zip(read, scores, strict=True):
            answer = _answer(subject, head, row, top, limits or subject.thresholds or [0.5])
            if as_json:
                _common.print_json({"image": str(file), **answer}, indent=None)
            else:
                table.add_row(Text(str(file)), Text(_text(answer)))
    if table.row_count:
        console.print(table)
    if failed:
        raise typer.Exit(2)


def _pixels(file: Path, spec: Preprocessing) -> NDArray[np.uint8]:
    from keraslight import training

    (pixels,) = training.load_images(file, spec)
    return pixels


def _answer(subject: Subject, head: Head, row: NDArray[Any], top: int, thresholds: Sequence[float]) -> dict[str, Any]:
    """What `--json` prints of one image."""
    names = _names(subject, head)
    if not head.ranks:
        return {"values": dict(zip(names, map(float, row), strict=True))}
    scores, limits = list(map(float, row)), list(thresholds)
    if head.task == "binary":
        scores, limits = scores[-1:], limits[-1:]
        if len(names) == 2:
            scores, limits = [1 - scores[0], scores[0]], [1 - limits[0], limits[0]]
    limits = limits if len(limits) == len(names) else limits * len(names)
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])[:top]
    classes: list[dict[str, Any]] = [{"label": names[index], "score": score, "index": index} for index, score in ranked]
    if head.task != "softmax":
        for each in classes:
            each["given"] = each["score"] > limits[each["index"]]
    return {"classes": classes}


def _names(subject: Subject, head: Head) -> list[str]:
    from keraslight.labels import check_labels

    count = 2 if head.task == "binary" and len(subject.labels or ()) == 2 else head.units
    if subject.labels is None:
        return [str(number) for number in range(count)]
    return check_labels(subject.labels, count)


def _text(answer: dict[str, Any]) -> str:
    if "values" in answer:
        return ", ".join(f"{name} {value:.4g}" for name, value in answer["values"].items())
    return ", ".join(
        f"{each['label']} {each['score']:.1%}{'' if each.get('given', True) else ' (below its threshold)'}"
        for each in answer["classes"]
    )
