"""What the commands that make a model smaller share: the trained model with its images, and the final comparison."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keraslight._tasks import Head
    from keraslight.training import Distillation, ImageData, Recipe

BatchSize = Annotated[int, Option(help="Images per step.", min=1)]
LearningRate = Annotated[float, Option(help="Peak learning rate of the cosine schedule.")]


class Trained(NamedTuple):
    """A run's best model, the content of its model.json, its recipe, and the images, prepared as for its training."""

    model: keras.Model
    details: dict[str, Any]
    recipe: Recipe
    images: ImageData
    head: Head  # what its outputs are

    def batches(self, batch_size: int, epochs: int, seed: int) -> tf.data.Dataset:
        # Not the seed of the float training: fine-tuning sees the images augmented differently.
        return self.images.train(batch_size, self.recipe.augmentation, seed + 1, epochs=epochs)

    def long_recipe(self, epochs: int, batch_size: int, learning_rate: float, seed: int) -> Recipe:
        """A recipe to fine-tune by, with the augmentation and the loss of its training."""
        return dataclasses.replace(
            type(self.recipe)(),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            label_smoothing=self.recipe.label_smoothing,
            augmentation=self.recipe.augmentation,
            class_weights=self.recipe.class_weights,
            seed=seed + 1,
        )

    def loss(self) -> keras.losses.Loss:
        """The loss of its training."""
        from keraslight import _tasks, training

        if self.head.task == "softmax":
            return training.ClassificationLoss(self.recipe.label_smoothing, self.head.activation is not None)
        return _tasks.loss(self.head, label_smoothing=self.recipe.label_smoothing)

    def learn_from(
        self, teacher: str | None, temperature: float | None, alpha: float | None, epochs: int
    ) -> Distillation | None:
        """The distillation of the `--teacher` options, which the new run's model.json records; None without one."""
        if teacher is not None and not epochs:
            raise InvalidArgumentError(
                "`--teacher` needs `--epochs` of at least 1, in which the model learns from it. "
                f"Received: --epochs 0, --teacher {teacher}."
            )
        distillation = _common.load_teacher(teacher, self.images, temperature=temperature, alpha=alpha)
        if distillation is not None:
            self.details["distillation"] = distillation.to_dict()
        return distillation


def verbose() -> int:
    """Keras' progress: a bar on a terminal, one line elsewhere."""
    return 1 if console.is_terminal else 2


def load(
    run: Path, data: str, labels: Path | None, preprocessing: str | None, task: _common.TaskName | None
) -> Trained:
    from keraslight._tasks import read_head
    from keraslight.preprocessing import Preprocessing
    from keraslight.training import Recipe, load_run

    if run.suffix.lower() in _common.MODEL_FILES:
        return _from_file(run, data, labels, preprocessing, task)
    if labels is not None or preprocessing is not None:
        raise InvalidArgumentError(
            f"`--labels` and `--preprocessing` are for a .keras or .h5 file. Received: {run}, whose run has its own."
        )
    model, details = load_run(run)
    images = _common.load_images(data, Preprocessing.from_dict(details["preprocessing"]))
    if list(images.labels) != list(details["labels"]):
        raise InvalidArgumentError(
            f"`--data` must have the classes of the run, {details['labels']}. Received: {list(images.labels)}."
        )
    head = read_head(model, None if task is None else task.value)
    return _trained(model, details, Recipe.from_dict(details["recipe"]), images, head)


def _from_file(
    file: Path, data: str, labels: Path | None, preprocessing: str | None, task: _common.TaskName | None
) -> Trained:
    """A model that keraslight didn't train, with images whose targets are in the order of its outputs."""
    import numpy as np

    from keraslight._tasks import read_head
    from keraslight.training import Recipe

    model, names, spec, *_ = _common.load_source(str(file), labels=labels, preprocessing=preprocessing)
    images = _common.load_images(data, spec)
    names = list(images.labels) if names is None else names
    head = read_head(model, None if task is None else task.value)
    classes = 2 if head.task == "binary" else head.units
    if sorted(names) != sorted(images.labels) or classes != len(names):
        raise InvalidArgumentError(
            f"`--data` must have the classes of the model and of `--labels`. Received: {list(images.labels)} with "
            f"labels {names} for a model with output shape {model.output_shape}."
        )
    places = np.array([names.index(label) for label in images.labels], np.int32)
    targets = places[images.targets] if images.targets.ndim == 1 else images.targets[:, np.argsort(places)]
    images = dataclasses.replace(images, labels=tuple(names), targets=targets)
    details = {
        "labels": names,
        "preprocessing": images.preprocessing.to_dict(),
        "recipe": Recipe().to_dict(),
        "seed": 0,
        "distillation": None,
        "versions": {},
    }
    return _trained(model, details, Recipe(), images, head)


def _trained(model: keras.Model, details: dict[str, Any], recipe: Recipe, images: ImageData, head: Head) -> Trained:
    from keraslight._tasks import check_labels
    from keraslight.graph import remember_task

    check_labels(head, model.outputs[0].shape, images.targets, "--data")
    remember_task(model, head.task)
    return Trained(model, {**details, "task": head.task}, recipe, images, head)


def finish_run(trained: Trained, model: keras.Model, to: Path, name: str) -> dict[str, Any]:
    """Writes a run folder with a LiteRT file, and compares it with the trained model, see `compare`."""
    from keraslight.export import to_litert
    from keraslight.training.run_folder import RunFolder, held_out_thresholds

    folder = RunFolder(to)
    folder.save_best(model)
    file = to_litert(model, to / f"{name}.tflite")
    compared = compare(trained, name, file, model, to / name)
    info = {**trained.details, "metrics": {"val_accuracy": compared["forms"][-1]["accuracy"]}}
    if trained.head.task == "multi-label":  # other weights give other scores
        info["thresholds"] = held_out_thresholds(model, trained.head, trained.images)
    folder.save_info(info)
    console.print(f"Run folder: {to}")
    return compared


def compare(trained: Trained, name: str, file: Path, model: keras.Model, stem: Path) -> dict[str, Any]:
    """Measures a file against the trained model; prints the table and writes `stem`_table.txt and `stem`_table.png.

    Returns the number of images and both forms, as `--json` prints them.
    """
    from keraslight.cli import _forms
    from keraslight.export import to_litert

    pixels, targets = trained.images.validation_arrays()
    title = f"{trained.model.name} on {len(targets)} held-out images, LiteRT with one thread"
    with tempfile.TemporaryDirectory() as folder:
        before = to_litert(trained.model, Path(folder) / "before.tflite")
        forms = [_forms.form("before", before, trained.model), _forms.form(name, file, model)]
        _forms.measure(forms, pixels.astype("float32"), targets, trained.head)
    table = _forms.table(forms, title)
    console.print(table)
    text = stem.with_name(f"{stem.name}_table.txt")
    _common.save_table(table, text)
    chart = text.with_suffix(".png")
    _forms.draw(forms, title, chart)
    console.print(f"Table: {text}; chart: {chart}")
    compared = [dataclasses.asdict(form) for form in forms]
    del compared[0]["file"]  # which was temporary
    return {"images": len(targets), "forms": compared}
