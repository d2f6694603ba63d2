"""What `keraslight evaluate`, `predict` and `make` run: run folders, model files, .tflite files and servables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from keraslight.cli import _common
from keraslight.cli._common import error_console
from keraslight.errors import DataError, InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keraslight._tasks import Head
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import ImageData


SubjectPath = Annotated[
    str,
    Argument(
        help="Run folder of `keraslight train`, .keras, .h5 or .tflite file, or servable (its folder or a version's).",
        metavar="MODEL",
    ),
]


@dataclasses.dataclass
class Subject:
    """What is evaluated: a model, or a function of a file with the shape of its images."""

    name: str
    model: Any
    labels: list[str] | None
    preprocessing: Preprocessing | None
    task: str | None
    thresholds: list[float] | None = None
    is_run: bool = False


def load_subject(
    model: str, labels: Path | None, named_task: _common.TaskName | None, preprocessing: str | None
) -> Subject:
    """Loads what is at a path."""
    path, task = Path(model), None if named_task is None else named_task.value
    if not path.exists():
        raise InvalidArgumentError(
            "`MODEL` must be a run folder, a .keras, .h5 or .tflite file, or a servable. "
            f"Received: {model}, which doesn't exist."
        )
    from keraslight.export import read_versions
    from keraslight.labels import read_labels

    given = None if labels is None else read_labels(labels)
    if path.suffix.lower() == ".tflite":
        return _file(path, given, task, preprocessing)
    if path.is_dir() and not (path / "model.json").is_file():
        folder = next((version.path for version in read_versions(path)[-1:]), path)
        if (folder / "saved_model.pb").is_file():
            return _servable(folder, given, task, preprocessing)
    loaded = _common.load_source(str(path), labels=labels, preprocessing=preprocessing)
    name = loaded.model.name
    return Subject(name, loaded.model, loaded.labels, loaded.preprocessing, task, loaded.thresholds, path.is_dir())


def _file(path: Path, labels: list[str] | None, task: str | None, preprocessing: str | None) -> Subject:
    """A .tflite file, which says nothing of how images are resized."""
    from keraslight.export import litert_runner, read_metadata
    from keraslight.preprocessing import Preprocessing

    metadata = read_metadata(path)
    known = list(metadata.labels) if metadata is not None and metadata.labels else None
    task = task or (metadata.task if metadata is not None else None)
    if preprocessing is not None:
        spec = _spec(preprocessing)
    else:
        height, width, channels = _image_shape(path)
        spec = Preprocessing((height, width), mean=(0.0,) * channels, std=(1 / 255,) * channels)
        error_console.print(
            f"{path} doesn't say how images are prepared: they are resized (bicubic) and cropped to {width}x{height}, "
            "with pixels 0..255. Pass --preprocessing with a JSON file for other images.",
            soft_wrap=True,
        )
    limits = None if metadata is None or metadata.thresholds is None else list(metadata.thresholds)
    return Subject(path.name, litert_runner(path), labels or known, spec, task, limits)


def _servable(folder: Path, labels: list[str] | None, task: str | None, preprocessing: str | None) -> Subject:
    """A version that `save_servable` wrote, by the file that the embedded server runs."""
    from keraslight.export import litert_runner, read_versions
    from keraslight.labels import read_labels
    from keraslight.preprocessing import Preprocessing

    version = next((v for v in read_versions(folder.parent) if v.path.name == folder.name), None)
    info = {} if version is None else version.info
    file = folder / "model.tflite"
    if not info or not file.is_file():
        raise InvalidArgumentError(
            "A servable must be one that keraslight wrote, with model.tflite and assets.extra/keraslight.json. "
            f"Received: {folder}."
        )
    if preprocessing is not None:
        raise InvalidArgumentError(
            f"A servable has its own preprocessing. Received: --preprocessing {preprocessing} with {folder}."
        )
    names = folder / "assets" / "labels.txt"
    known = read_labels(names) if names.is_file() else None
    task = info.get("task") or task
    run: Any = litert_runner(file)
    if task == "binary" and known is not None and len(known) == 2:  # both scores
        both = run
        run = lambda images: both(images)[:, -1:]  # noqa: E731
    spec = Preprocessing.from_dict(info["preprocessing"])
    name = f"{info.get('model', folder.parent.name)}, version {folder.name}"
    return Subject(name, run, labels or known, spec, task, info.get("thresholds"))


def _image_shape(path: Path) -> tuple[int, int, int]:
    from keraslight import _litert_files

    shape = tuple(map(int, _litert_files.interpreter(path, 1).get_input_details()[0]["shape"]))
    if len(shape) != 4 or shape[-1] not in (1, 3, 4):
        raise InvalidArgumentError(f"The file must take images, (B, H, W, C). Received: {path}, which takes {shape}.")
    return shape[1], shape[2], shape[3]


def _spec(given: str) -> Preprocessing:
    from keraslight.preprocessing import Preprocessing

    try:
        return Preprocessing.from_dict(json.loads(Path(given).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidArgumentError(
            f"`--preprocessing` must be a JSON file of a Preprocessing for a .tflite file. Received: {given}: {error}."
        ) from error


def run_subject(subject: Subject, images: Sequence[Any], head: Head | None = None) -> tuple[Head, NDArray[Any]]:
    """What the outputs are, and probabilities (B, K), or numbers, for images of raw pixels.

    `head` is that of an earlier call: what a file's outputs are is read from the first images.
    """
    import keras
    import numpy as np

    from keraslight import _tasks

    pixels = np.stack(images).astype(np.float32)
    if isinstance(subject.model, keras.Model):
        outputs = subject.model.predict(pixels, verbose=0)
        head = head or _tasks.read_head(subject.model, subject.task)
    else:
        outputs = subject.model(pixels)
        head = head or _tasks.read_outputs(outputs, subject.task)
    return head, _tasks.probabilities(head, outputs)


def numbers(option: str, given: str) -> tuple[float, ...]:
    """The numbers of an option, which have commas between them."""
    try:
        return tuple(float(number) for number in given.split(","))
    except ValueError as error:
        raise InvalidArgumentError(
            f"`{option}` must be numbers with commas between them. Received: {given!r}."
        ) from error


def matched(subject: Subject, images: ImageData, targets: Any) -> tuple[list[str], Any]:
    """The names of the model's classes, and the targets by their order."""
    import numpy as np

    names, of_data = subject.labels, list(images.labels)
    if names is None or names == of_data:
        return of_data, targets
    if sorted(names) != sorted(of_data):
        raise DataError(f"The images must have the model's classes, {_few(names)}. Received: classes {_few(of_data)}.")
    places = np.array([names.index(label) for label in of_data])
    if targets.ndim == 1:
        return names, places[targets]
    return names, targets[:, np.argsort(places)]


def _few(names: list[str]) -> str:
    return str(names) if len(names) <= 12 else f"{names[:10]} and {len(names) - 10} more"
