"""From images to files to use: training, a labeled .tflite file within a bound on its loss, a servable and a report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import keraslight
from keraslight import analysis, compress, training
from keraslight._files import check_pattern, write_file
from keraslight._tasks import Head, read_head, score
from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.cli._make_report import Page, write_report
from keraslight.errors import (
    CompressionError,
    DataError,
    ExportError,
    InvalidArgumentError,
    WeightsUnavailableError,
)
from keraslight.export import litert_parity, litert_runner, save_servable, to_litert, write_metadata
from keraslight.training import ImageData, Recipe
from keraslight.training.run_folder import STATE, RunFolder

if TYPE_CHECKING:
    import keras

MODEL = "mobilenet_v4_conv_small"
FORMS = ("int8", "int8 with training", "float16", "float32")
"""Number formats of the .tflite file, in the order in which they are tried."""
NOTES, RUN, FILE, REPORT, SPEC = "make.json", "run", "model.tflite", "report.html", "preprocessing.json"
_TRAINED_EPOCHS = 3  # of the training with quantization
_TRIAL = ".trial.tflite"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `make` is told; see `keraslight make --help`.

    Attributes:
        data: A folder, a table, or "digits".
        model: Name of the model.
        weights: `"imagenet"`, a weights file, `"none"`; or None for ImageNet's where they can be had.
        quantization: The first of `FORMS` to try: `"int8"`, `"float16"` or `"float32"`.
        max_loss: Largest loss of accuracy of the .tflite file against the trained model, 0 to 1.
    """

    data: str
    model: str = MODEL
    weights: str | None = None
    size: int | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    quantization: str = "int8"
    max_loss: float = 0.01
    validation: str | None = None
    cache: Path | None = None
    seed: int = 0

    def training(self) -> dict[str, Any]:
        """The settings that a resumed training must share, besides the data, which `train` compares."""
        names = ("model", "weights", "size", "recipe", "epochs", "batch_size", "learning_rate", "seed")
        return {name: getattr(self, name) for name in names}


class Trial(NamedTuple):
    """A number format that was tried: accuracy, 0 to 1, of model and file on the held-out images, or why it failed."""

    form: str
    kept: bool
    model_accuracy: float | None
    file_accuracy: float | None
    problem: str | None


def run_make(settings: Settings, to: str | Path, *, fresh: bool = False) -> dict[str, Any]:
    """Does what `keraslight make` does; returns what it writes to make.json under "results".

    Called again after it was killed, it resumes the training; all that follows is done again.

    Raises:
        InvalidArgumentError: A setting is out of range, or `to` was begun with other settings.
        DataError: The images are unusable, or their labels are numbers.
        WeightsError: The weights that were asked for don't fit, or can't be fetched.
    """
    to = Path(to)
    check_pattern(to, "to")
    if not 0 <= settings.max_loss < 1:
        raise InvalidArgumentError(f"`max_loss` must be in [0, 1). Received: max_loss={settings.max_loss}.")
    info = keraslight.model_info(settings.model)
    notes = {} if fresh else _begun(settings, to)
    began = time.monotonic()

    console.print("1/5 Images", style="bold")
    spec = _common.data_preprocessing(info, settings.data, settings.size)
    images = _common.load_images(settings.data, spec, validation=settings.validation, cache=settings.cache)
    console.print(str(images))
    if images.targets.ndim == 2 and not np.isin(images.targets, (0, 1)).all():
        raise DataError(f"The images must have classes or labels. Received: numbers in {settings.data}.")
    test = None if settings.data == "digits" else training.load_test(settings.data, spec, cache=settings.cache)
    if test is not None:
        console.print(f"{test.validation_count} test images: {test.source}")

    console.print("\n2/5 Training", style="bold")
    model, pretrained = _create(settings, images, notes)
    recipe = _recipe(settings, images, pretrained=pretrained)
    if fresh:
        RunFolder(to / RUN).clear()
        shutil.rmtree(to / "savedmodels", ignore_errors=True)
        for name in (NOTES, FILE, REPORT, SPEC):
            (to / name).unlink(missing_ok=True)
    write_file(to / NOTES, json.dumps({"settings": settings.training(), "pretrained": pretrained}, indent=2) + "\n")
    task = "softmax" if images.targets.ndim == 1 else "multi-label"
    result = training.train(model, images, recipe, run_dir=to / RUN, resume=not fresh, task=task)
    console.print(
        f"Best epoch {result.best_epoch} of {result.epochs}: {result.best_accuracy:.2%} of {images.validation_count} "
        f"held-out images, after {result.seconds:.0f} s"
    )

    console.print("\n3/5 LiteRT file", style="bold")
    file = to / FILE
    trials = _convert(model, images, recipe, file, settings, result.thresholds)
    form = trials[-1].form
    write_file(to / SPEC, json.dumps(images.preprocessing.to_dict(), indent=2) + "\n")

    console.print("\n4/5 Servable", style="bold")
    folder = to / "savedmodels" / (to.absolute().name or "model")
    servable = save_servable(
        model,
        folder,
        labels=images.labels,
        version=1,
        overwrite=True,
        thresholds=result.thresholds,
        metrics={"val_accuracy": result.best_accuracy},
    )
    console.print(f"Wrote {servable}; its answers are the model's.")

    console.print("\n5/5 Report", style="bold")
    judged, part = (images, "held-out") if test is None else (test, "test")
    pixels, targets = judged.validation_arrays()
    head = read_head(model)
    found = analysis.evaluate(
        litert_runner(file),
        pixels,
        targets,
        images.labels,
        task=head.task,
        name=FILE,
        thresholds=0.5 if result.thresholds is None else result.thresholds,
    )
    served = servable / FILE
    times = analysis.file_latency({"file": file, "served": served})
    results: dict[str, Any] = {
        "model": settings.model,
        "pretrained": pretrained,
        "labels": list(images.labels),
        "image_size": list(images.preprocessing.size),
        "train_images": images.train_count,
        "validation_images": images.validation_count,
        "test_images": 0 if test is None else test.validation_count,
        "skipped_images": images.skipped + (0 if test is None else test.skipped),
        "part": part,
        "accuracy": found.accuracy,
        "model_accuracy": _accuracy(head, model, pixels, targets),
        "form": form,
        "trials": [trial._asdict() for trial in trials],
        "parameters": model.count_params(),
        "macs": analysis.count_macs(model),
        "files": [
            {"name": FILE, "form": form, "bytes": file.stat().st_size, "milliseconds": times["file"].p50},
            {
                "name": str(served.relative_to(to)),
                "form": "float32",
                "bytes": served.stat().st_size,
                "milliseconds": times["served"].p50,
            },
        ],
        "servable": str(servable.relative_to(to)),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "recipe": recipe.to_dict(),
        "seconds": time.monotonic() - began,
    }
    write_report(to / REPORT, Page(results, found, judged, pixels, to / RUN / "curves.png", settings.max_loss))
    notes = {"settings": settings.training(), "pretrained": pretrained, "results": results}
    write_file(to / NOTES, json.dumps(notes, indent=2) + "\n")
    return results


def _begun(settings: Settings, to: Path) -> dict[str, Any]:
    """What an earlier call decided; empty if there is none to resume."""
    notes = to / NOTES
    if not (to / RUN / STATE).is_file():  # there is nothing to resume
        return {}
    if not notes.is_file():
        raise InvalidArgumentError(
            f"`--to` must be a new folder, or one that `keraslight make` began. Received: {to}, with {RUN}/ but "
            f"without {NOTES}. Pass another `--to` or `--fresh`."
        )
    try:
        found: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8"))
        before = found["settings"]
        changed = [f"{n} was {before[n]!r} and is now {v!r}" for n, v in settings.training().items() if before[n] != v]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"{NOTES} must be as `keraslight make` writes it. Received: {notes}, {error!r}. Pass another `--to` or "
            "`--fresh`."
        ) from error
    if changed:
        raise InvalidArgumentError(
            "What was begun can only be resumed with the same model and training. To start over, pass another `--to` "
            f"or `--fresh`. Received: {to}, where {'; '.join(changed)}."
        )
    return found


def _create(settings: Settings, images: ImageData, notes: dict[str, Any]) -> tuple[keras.Model, bool]:
    """The model, and whether its weights are pretrained."""
    import keras

    def build(weights: str | None) -> keras.Model:
        keras.utils.set_random_seed(settings.seed)
        return keraslight.create_model(
            settings.model,
            weights=weights,
            classes=len(images.labels),
            classifier_activation="softmax" if images.targets.ndim == 1 else "sigmoid",
            input_shape=images.image_shape,
            preprocessing=images.preprocessing,
        )

    if settings.weights == "none" or notes.get("pretrained") is False:
        console.print(f"{settings.model} starts from random weights.")
        return build(None), False
    source = settings.weights or "imagenet"
    try:
        model = build(source)
    except WeightsUnavailableError as error:
        if settings.weights is not None or notes:
            raise
        reason = str(error).split(". ")[0]
        console.print(
            f"No pretrained weights, so {settings.model} is trained from scratch, which needs more images: {reason}.",
            style="bold yellow",
        )
        return build(None), False
    console.print(f"{settings.model} starts from the weights {source}.")
    return model, True


def _recipe(settings: Settings, images: ImageData, *, pretrained: bool) -> Recipe:
    name = settings.recipe
    if name is None and settings.data != "digits":  # which have their own, without mirror images
        name = "head_first" if pretrained else "few_photos"
    recipe = _common.chosen_recipe(
        name, settings.data, settings.epochs, settings.batch_size, images.image_shape[2]
    ).replace(seed=settings.seed)
    if settings.learning_rate is not None:
        recipe = recipe.replace(learning_rate=settings.learning_rate)
    console.print(f"Recipe {name or 'for digits'}: at most {recipe.epochs} epochs")
    return recipe


def _convert(
    model: keras.Model,
    images: ImageData,
    recipe: Recipe,
    file: Path,
    settings: Settings,
    thresholds: Sequence[float] | None = None,
) -> list[Trial]:
    """Writes the first form that stays within the bound; returns all that were tried, the one that was kept last."""
    pixels, targets = images.validation_arrays()
    held_out = pixels.astype(np.float32), targets
    forms = FORMS[FORMS.index(settings.quantization) :]
    trials: list[Trial] = []
    trial = file.with_name(_TRIAL)
    try:
        for form, write in _writers(model, images, recipe, settings.seed, thresholds):
            if form not in forms:
                continue
            problem = parity = None
            try:
                write(trial)
            except (CompressionError, ExportError) as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                parity = litert_parity(model, trial, held_out)
                if form == FORMS[-1]:
                    parity.require(max_drop=settings.max_loss)  # there is no other to try
                if parity.drop > settings.max_loss:
                    problem = (
                        f"it loses {parity.drop:.2%} of accuracy on {parity.images} held-out images, more than "
                        f"{settings.max_loss:.2%}"
                    )
            accuracies = (parity.model_accuracy, parity.file_accuracy) if parity else (None, None)
            trials.append(Trial(form, problem is None, *accuracies, problem))
            if problem is None:
                trial.replace(file)
                break
            following = FORMS[FORMS.index(form) + 1]
            console.print(f"{form} is not used: {problem}. Trying {following}.", style="bold yellow")
    finally:
        trial.unlink(missing_ok=True)
    kept = trials[-1]
    console.print(
        f"Wrote {file}: {kept.form}, {file.stat().st_size / 1e6:.2f} MB, accuracy {kept.model_accuracy:.2%} -> "
        f"{kept.file_accuracy:.2%} on {len(targets)} held-out images"
    )
    return trials


def _writers(
    model: keras.Model, images: ImageData, recipe: Recipe, seed: int, thresholds: Sequence[float] | None
) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    head = read_head(model)

    def calibrated(file: Path) -> None:
        compress.calibrate(model, images.train(recipe.batch_size, None, seed), file, seed=seed)
        logits = head.activation is not None
        write_metadata(file, images.labels, task=head.task, logits=logits, thresholds=thresholds)

    def trained(file: Path) -> None:
        batches = images.train(recipe.batch_size, recipe.augmentation, seed + 1, epochs=_TRAINED_EPOCHS)
        console.print(f"Quantization-aware training, {_TRAINED_EPOCHS} epochs; the graph is traced first")
        verbose = 1 if console.is_terminal else 2
        to_litert(compress.train_quantized(model, batches, epochs=1, seed=seed, verbose=verbose), file, **described)

    described: dict[str, Any] = {"labels": list(images.labels), "thresholds": thresholds}
    yield "int8", calibrated
    yield "int8 with training", trained
    yield "float16", lambda file: to_litert(model, file, quantization="float16", **described)
    yield "float32", lambda file: to_litert(model, file, **described)


def _accuracy(head: Head, model: keras.Model, pixels: NDArray[np.uint8], targets: NDArray[Any]) -> float:
    outputs = [
        model.predict(pixels[start : start + 256].astype(np.float32), verbose=0) for start in range(0, len(pixels), 256)
    ]
    return score(head, np.concatenate(outputs), targets)
