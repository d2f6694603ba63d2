"""What several commands share: the consoles, the options, and the loaders of models and images."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

from rich.console import Console
from rich.table import Table
from typer import Argument, Context, Option

from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras

    from keraslight.catalogue import ModelInfo
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import Distillation, ImageData, Recipe

MODEL_FILES = (".keras", ".h5", ".hdf5")
_TABLES = (".csv", ".tsv", ".parquet")


class _Console(Console):
    """A console that wraps tables, but no text: commands and paths in it can be copied."""

    def print(self, *objects: Any, **options: Any) -> None:
        if all(isinstance(item, str) for item in objects):
            options = {"soft_wrap": True, "markup": False, **options}
        super().print(*objects, **options)


console = _Console()
if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
    console.width = 1000  # what is piped to another command or to a log must not be wrapped
error_console = Console(stderr=True)


def _known(given: Any) -> Any:
    """Looks up what is neither a file nor a folder before the command runs, so that a typo doesn't wait for Keras."""
    from keraslight import catalogue

    for source in [given] if isinstance(given, str) else given or ():
        if not Path(source).exists() and not source.lower().endswith((*MODEL_FILES, ".tflite")):
            catalogue.find(source)
    return given


Name = Annotated[str, Argument(help="Model name or published checkpoint ID.", metavar="MODEL", callback=_known)]
ModelName = Annotated[str, Option(help="Model name or published checkpoint ID.", callback=_known)]
Size = Annotated[int | None, Option(help="Side of the square input, in pixels.", show_default="the model's own")]
Source = Annotated[
    str,
    Argument(
        help="Run folder of `keraslight train`, .keras or .h5 file, or model name.", metavar="MODEL", callback=_known
    ),
]
Sources = Annotated[
    list[str], Argument(help="Run folders, .keras files, or model names.", metavar="MODEL...", callback=_known)
]
Names = Annotated[
    list[str], Argument(help="Model names or published checkpoint IDs.", metavar="MODEL...", callback=_known)
]
SourceSize = Annotated[
    int | None,
    Option(help="Side of the square input, in pixels; for a model name only.", show_default="the model's own"),
]
SourceWeights = Annotated[
    str | None, Option(help='"imagenet" or a weights file; for a model name only.', show_default="random")
]
_NAMES = "the run's, or ImageNet's for 1,000 classes"
Labels = Annotated[
    Path | None,
    Option(help="Text file with one class name per line.", exists=True, dir_okay=False, show_default=_NAMES),
]
Data = Annotated[
    str,
    Option(
        help='"digits" (1,797 scans from scikit-learn), a folder with one subfolder per class, or a .csv or .parquet '
        "file that lists images and labels."
    ),
]
DataSize = Annotated[
    int | None,
    Option(help="Side of the square input, in pixels (at least 32).", show_default="the model's; 48 for digits"),
]
PerImage = Annotated[
    bool,
    Option(
        "--per-image", help="Normalize each image by its own mean and deviation: against changes of light and contrast."
    ),
]
RecipeName = Annotated[
    str | None,
    Option(
        help="Named recipe, as `keraslight recipes` lists them; its rate is scaled to the batch size.",
        show_default="photos, or the digits' own",
    ),
]
Seed = Annotated[int, Option(help="Random seed for weights, shuffling, augmentation and dropout.")]
Run = Annotated[
    Path, Argument(help="Run folder written by `keraslight train`, or a .keras or .h5 file.", metavar="RUN")
]
FileLabels = Annotated[
    Path | None,
    Option(
        help="Text file with one class name per line, in the order of the outputs; for a .keras or .h5 file.",
        exists=True,
        dir_okay=False,
        show_default="the names of the data, sorted",
    ),
]
Given = Annotated[
    str | None,
    Option(
        "--preprocessing",
        help="What a .keras or .h5 file without keraslight's normalization takes: pixels as 0..255 (raw), 0..1 (unit), "
        "-1..1 (symmetric), normalized as for ImageNet (imagenet), or a JSON file as Preprocessing.to_dict() gives it.",
        show_default="the model's own",
    ),
]
NewRun = Annotated[Path, Option(help="Run folder to write, as input for `export`, `litert` and `quantize`.")]
TaskName = enum.StrEnum("TaskName", ["softmax", "multi-label", "binary", "regression"])  # `_tasks.TASKS` needs Keras
Task = Annotated[
    TaskName | None,
    Option(
        help="What the outputs are: one of several classes, independent scores, one score, or numbers.",
        show_default="what the run or the final activation says",
    ),
]
Teacher = Annotated[
    str | None,
    Option(help="Trained model to distill: a run folder, a .keras file, or a model name.", callback=_known),
]
TeacherWeights = Annotated[
    str | None, Option(help='"imagenet" or a weights file; for a teacher given by name only.', show_default="imagenet")
]
Temperature = Annotated[float | None, Option(help="Distillation temperature, above 0.", show_default="4")]
Alpha = Annotated[
    float | None, Option(help="Weight of the true labels in the distillation loss, 0 to 1.", show_default="0.1")
]


_stdout: ContextVar[TextIO] = ContextVar("stdout")  # of a command with `--json`


def _json_alone(context: Context, wanted: bool) -> bool:
    """Until a command with `--json` ends, only `print_json` writes to stdout, and all else (Keras' bars) to stderr."""
    if wanted:
        token = _stdout.set(sys.stdout)
        context.call_on_close(lambda: _stdout.reset(token))
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    return wanted


Json = Annotated[
    bool, Option("--json", help="Print JSON instead of tables, and all else on stderr.", callback=_json_alone)
]


def table(*columns: str, **options: Any) -> Table:
    """An empty table whose first column, of names, is never cut or wrapped; other cells wrap where space is short."""
    result = Table(**options)
    for number, column in enumerate(columns):
        result.add_column(column, no_wrap=number == 0, overflow="fold")
    return result


def print_json(value: Any, indent: int | None = 2) -> None:
    """Prints a value as JSON, with paths as text; named tuples must be dicts by then. Without `indent`, on one line."""
    text = json.dumps(value, indent=indent, default=_as_json)
    print(text, file=_stdout.get(sys.stdout), flush=True)  # not by rich, which would wrap and color it


def _as_json(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(type(value)) else os.fspath(value)


def save_table(table: Table, file: Path) -> None:
    """Writes a table as text."""
    with file.open("w", encoding="utf-8") as stream:
        Console(file=stream, width=160).print(table)


class Loaded(NamedTuple):
    """A model that takes raw pixels, and what is known about it."""

    model: keras.Model
    labels: list[str] | None
    preprocessing: Preprocessing | None
    metrics: dict[str, float] | None = None  # measured by its training
    thresholds: list[float] | None = None  # of a multi-label run


def create(name: str, size: int | None) -> keras.Model:
    """The model of that name with random weights, for square images with a side of `size` pixels."""
    import keraslight

    return keraslight.create_model(name, input_shape=(size, size, 3) if size else None)


def load_source(
    source: str,
    weights: str | None = None,
    size: int | None = None,
    labels: Path | None = None,
    *,
    normalize: bool = True,
    images: ImageData | None = None,
    preprocessing: str | None = None,
) -> Loaded:
    """Loads the model of a run folder or a .keras or .h5 file, or creates one by name.

    `labels` replaces the known names. `preprocessing`, see `Given`, is for files.

    A model created by name takes `weights`, `size`, `normalize` (raw pixels), and the shape of `images`, with their own
    preprocessing where the model has no checkpoint that defines one.
    """
    import keraslight
    from keraslight.graph import own_preprocessing
    from keraslight.labels import imagenet_labels, read_labels
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import load_run

    given = None if labels is None else read_labels(labels)
    is_run, is_file = Path(source).is_dir(), source.lower().endswith(MODEL_FILES)
    if (is_run or is_file) and (weights is not None or size is not None):
        raise InvalidArgumentError(
            "`--weights` and `--size` are for a model's name. "
            f"Received: --weights {weights}, --size {size} with {source}."
        )
    if preprocessing is not None and not is_file:
        raise InvalidArgumentError(
            f"`--preprocessing` is for a .keras or .h5 file. Received: --preprocessing {preprocessing} with {source}."
        )
    if is_run:
        model, details = load_run(source)
        spec = details.get("preprocessing") and Preprocessing.from_dict(details["preprocessing"])
        return Loaded(model, given or details["labels"], spec, details.get("metrics") or {}, details.get("thresholds"))
    if is_file:
        model, spec = with_preprocessing(keraslight.load_model(source), preprocessing)
        return Loaded(model, given, spec)
    else:
        spec = keraslight.model_info(source).preprocessing or (images and images.preprocessing)
        shape = images.image_shape if images else (size, size, 3) if size else None
        model = keraslight.create_model(
            source, weights=weights, input_shape=shape, preprocessing=(normalize and spec) or False
        )
        known = list(imagenet_labels()) if model.output_shape[-1] == 1000 else None
    return Loaded(model, given or known, own_preprocessing(model))


def with_preprocessing(model: keras.Model, given: str | None) -> tuple[keras.Model, Preprocessing | None]:
    """A model from a file as one that takes raw pixels, and its preprocessing; None if neither says which.

    `given`: see `Given`.
    """
    import keras

    from keraslight.graph import own_preprocessing
    from keraslight.layers import ImageNormalization
    from keraslight.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

    own = own_preprocessing(model)
    if given is None:
        return model, own
    if own is not None:
        raise InvalidArgumentError(
            f"`--preprocessing` is for models without any. Received: --preprocessing {given}, and a model with {own}."
        )
    kinds = {
        "raw": (0.0, 1 / 255),
        "unit": (0.0, 1.0),
        "symmetric": (0.5, 0.5),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    }
    shape = tuple(model.inputs[0].shape[1:])
    if given in kinds:
        if len(shape) != 3 or None in shape:
            raise InvalidArgumentError(f"`--preprocessing` needs a model of images of one size. Received: {shape}.")
        mean, std = (v if isinstance(v, tuple) else (v,) * shape[2] for v in kinds[given])
        spec = Preprocessing(shape[:2], mean=mean, std=std)
    else:
        try:
            spec = Preprocessing.from_dict(json.loads(Path(given).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InvalidArgumentError(
                f"`--preprocessing` must be one of {', '.join(kinds)}, or a JSON file of a Preprocessing. "
                f"Received: {given}: {error}."
            ) from error
    if any(size not in (None, wanted) for size, wanted in zip(shape, (*spec.size, spec.channels), strict=True)):
        raise InvalidArgumentError(
            f"`--preprocessing` must give the model's images, of shape {shape}. "
            f"Received: size={spec.size} with {spec.channels} channels."
        )
    if given == "raw":
        return model, spec
    pixels = keras.Input((*spec.size, spec.channels), name="images")
    return keras.Model(pixels, model(ImageNormalization(spec)(pixels)), name=model.name), spec


def data_preprocessing(info: ModelInfo, data: str, size: int | None, *, per_image: bool = False) -> Preprocessing:
    """How `--data` is read for a model: as its checkpoint was, or else as most are, in the given size.

    `per_image` normalizes the images one by one.
    """
    from keraslight import training
    from keraslight.preprocessing import Preprocessing

    if data == "digits":
        spec = training.DIGITS_PREPROCESSING
    else:
        spec = info.preprocessing or Preprocessing((info.input_size, info.input_size))
    spec = spec.replace(per_image=True) if per_image else spec
    return spec.replace(size=(size, size)) if size else spec


def chosen_recipe(name: str | None, data: str, epochs: int | None, batch_size: int | None, channels: int) -> Recipe:
    """The recipe that `--recipe` names, or the data's own, in as many epochs and for the batch size."""
    from keraslight import training

    if name is None:
        recipe = training.DIGITS_RECIPE if data == "digits" else training.RECIPES["photos"]
        recipe = recipe if batch_size is None else recipe.replace(batch_size=batch_size)
    elif name in training.RECIPES:
        recipe = training.RECIPES[name]
        recipe = recipe.scaled(batch_size or min(recipe.batch_size, training.Recipe().batch_size))
    else:
        raise InvalidArgumentError(
            f"`--recipe` must be one of {', '.join(training.RECIPES)}; see `keraslight recipes`. Received: {name!r}."
        )
    if recipe.augmentation is not None and recipe.augmentation.saturation and channels != 3:
        recipe = recipe.replace(augmentation=dataclasses.replace(recipe.augmentation, saturation=0.0))
    return recipe if epochs is None else recipe.shortened(epochs)


def load_images(
    data: str, spec: Preprocessing | None, *, validation: str | None = None, cache: Path | None = None
) -> ImageData:
    """Loads the images named by `--data`, prepared as a model expects them."""
    from keraslight import training

    spec, is_table = known_preprocessing(spec, "--data"), data.lower().endswith(_TABLES)
    if validation is not None and (data == "digits" or is_table):
        raise InvalidArgumentError(
            "`--validation` is for a folder of images; a table has a column `split`. "
            f"Received: --validation {validation} with --data {data}."
        )
    if data == "digits":
        if cache is not None:
            raise InvalidArgumentError(f"`--cache` is for image files. Received: --cache {cache} with --data digits.")
        return training.load_digits(spec)
    if is_table:
        return training.load_table(data, spec, cache=cache)
    return training.load_directory(data, spec, validation=validation, cache=cache)


def known_preprocessing(spec: Preprocessing | None, option: str) -> Preprocessing:
    """The preprocessing of a model, which an option that reads images must know."""
    if spec is None:
        raise InvalidArgumentError(
            f"`{option}` needs a model that defines its preprocessing, or `--preprocessing` for one from a file. "
            "Received: neither."
        )
    return spec


def load_teacher(
    teacher: str | None,
    images: ImageData,
    weights: str | None = None,
    *,
    temperature: float | None = None,
    alpha: float | None = None,
) -> Distillation | None:
    """The distillation that `--teacher` and its options describe, or None without a teacher.

    A run must have the classes of `images`. A teacher given by name has ImageNet weights unless `weights` is given.
    """
    from keraslight.training import Distillation

    given = {n: value for n, value in (("temperature", temperature), ("alpha", alpha)) if value is not None}
    if teacher is None:
        if given or weights is not None:
            options = given if weights is None else {**given, "teacher-weights": weights}
            flags = " ".join(f"--{name}={value}" for name, value in options.items())
            raise InvalidArgumentError(f"These options need `--teacher`. Received: {flags}.")
        return None
    saved = Path(teacher).exists()
    if weights is not None and saved:
        raise InvalidArgumentError(
            f"`--teacher-weights` must come with a model's name. Received: {weights}, for the file or folder {teacher}."
        )
    model, labels, *_ = load_source(teacher, weights if saved else weights or "imagenet", images=images)
    if Path(teacher).is_dir() and list(labels or ()) != list(images.labels):
        raise InvalidArgumentError(
            f"`--teacher` must have the images' classes, {list(images.labels)}. Received: a run with {labels}."
        )
    return Distillation(model, **given)
