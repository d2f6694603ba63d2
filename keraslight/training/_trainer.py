"""The trainer: one model, one data set, one recipe, one run folder."""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight import _tasks
from keraslight._notebook import Report
from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.graph import (
    following_batch_norms,
    keeping_modes,
    of_size,
    own_preprocessing,
    remember_task,
    without_auxiliary,
)
from keraslight.training._auxiliary import AuxiliaryTraining
from keraslight.training._average import Average
from keraslight.training._data import ImageData
from keraslight.training._distillation import Distillation
from keraslight.training._extras import require
from keraslight.training._loss import check_ends, gives_logits, mixed_accuracy, training_loss
from keraslight.training._optimizer import make_optimizer
from keraslight.training._phases import Phase, check_phases, entered, phases, thawed
from keraslight.training._processes import Processes, forget_traces, settling
from keraslight.training._progress import Throughput, TrainingProgress
from keraslight.training._recipe import Recipe
from keraslight.training._tracking import check_tracker, tracking
from keraslight.training.run_folder import Row, RunFolder, columns, held_out_thresholds

log = logging.getLogger("keraslight.training")

# Moving averages with a momentum of 0.99 lag hundreds of steps behind the weights: a net that had learned half of its
# classes was at 7% by them, and a worse epoch was kept as the best.
_SETTLED = 0.01  # share of an average that is older than the epoch, below which it is as good as measured again
_SETTLING_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class TrainingResult(Report):
    """The result of `train`. `str()` gives a table, with a line per epoch, which notebooks show.

    Attributes:
        model: The trained model with the weights of the best epoch, not compiled.
        history: One row per epoch: epoch (from 1), learning_rate, loss, accuracy, val_loss, val_accuracy, seconds,
            images_per_second and waiting, the share of the training time in which the model waited for data. The
            accuracy of a `multi-label` or `binary` model is the share of right decisions, and that of a `regression`
            the coefficient of determination, 1 at best.
        best_epoch: The best epoch, from 1.
        best_accuracy: Accuracy of the best epoch on the held-out images, 0 to 1. The choice of the epoch is tuned on
            these images, so accuracy on new ones may be slightly lower.
        epochs: Number of epochs; fewer than in the recipe if `patience` ran out.
        seconds: Duration of all epochs, including those before a resume.
        run_dir: Folder with best.keras, model.json, history.csv, curves.png and last.npz.
        thresholds: Of a `multi-label` model the score of each label, 0 to 1, above which an image has it: those with
            the largest F1 on the held-out images. They are in model.json as well. None for other tasks.
    """

    model: keras.Model
    history: tuple[Row, ...]
    best_epoch: int
    best_accuracy: float
    epochs: int
    seconds: float
    run_dir: pathlib.Path
    thresholds: tuple[float, ...] | None = None

    def __str__(self) -> str:
        names = columns(self.history)
        rows = [names, *(_cells(row, names, row["epoch"] == self.best_epoch) for row in self.history)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        best = f"Best epoch {self.best_epoch} of {self.epochs}: {self.best_accuracy:.2%}, after {self.seconds:.0f} s."
        return "\n".join([*lines, f"{best} Run folder: {self.run_dir}"])


def _cells(row: Row, names: Sequence[str], best: bool) -> tuple[str, ...]:
    """A row of the history as text, the best one with an asterisk."""
    values = (f"{row[name]:.4g}" if name in row else "" for name in names if name != "epoch")
    return (f"{'*' * best}{row['epoch']:g}", *values)


def train(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    *,
    run_dir: str | os.PathLike[str],
    resume: bool = True,
    save_every: int = 1,
    distillation: Distillation | None = None,
    task: str | None = None,
    track: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: bool = True,
) -> TrainingResult:
    """Trains a model of images and keeps its best epoch, by validation accuracy and then by validation loss.

    Where an epoch is too short for the moving averages of batch norms to follow the weights, they are measured again
    before each validation, on up to 16 batches of training images.

    The state is saved in the run folder after each epoch (see `save_every`). Called again with the same arguments,
    `train` resumes an interrupted run, with the same result as if it had never stopped. A finished run isn't trained
    again. After `distribute`, it trains on all GPUs and in several processes. For reproducible results across
    processes, also call `keras.utils.set_random_seed` before you build the model.

    Args:
        model: Functional or sequential model, raw pixels (B, H, W, C) in 0..255 -> (B, K). Trained in place. One that
            returns a dict with these outputs as `classifier` has auxiliary heads, such as `GoogLeNet(auxiliary=True)`:
            their losses are added by the recipe's weight, except with `distillation`. What is validated, saved and
            returned is the model without them.
        data: Images of the model's input size, with labels for all of its classes.
        recipe: Hyperparameters. With `progressive`, the model must take images of any size; the one that is saved and
            returned has the same layers, and takes those of the data's.
        run_dir: Run folder; created if missing.
        resume: Whether to resume the run in `run_dir`, if there is one. False overwrites it.
        save_every: Epochs from one saved state to the next, at least 1: the state is three times as large as the model.
            A run resumes after the last saved one. The best model and the metrics are written after each epoch.
        distillation: Teacher to learn from in addition to the labels; `loss` and `val_loss` then have both terms. The
            structure of the model doesn't change.
        task: What the outputs are: `"softmax"` (one of K classes), `"multi-label"` (K independent scores), `"binary"`
            (one score, of the second class) or `"regression"`. None takes what the final activation says: a softmax, or
            several logits; sigmoids; or one sigmoid. Anything else must be said. The task determines the loss, and is
            written to model.json.
        track: `"tensorboard"`, `"mlflow"` or `"wandb"` logs each epoch's metrics there, through the library's own Keras
            callback, and the fields of the recipe as parameters; None logs nothing. A resumed run is continued there,
            too. See `docs/training.md` for where they write.
        callbacks: Additional Keras callbacks. They run after an epoch is saved, and must not keep state that a resume
            would need. Of several processes, each runs its own.
        progress: Whether to show progress on stderr: a bar on a terminal, otherwise one line per epoch.

    Raises:
        InvalidArgumentError: The model doesn't fit the data, the task or the teacher, the task must be said, or the run
            to resume began with another recipe, other data, another model or another teacher; or the batch size isn't
            divisible by the number of devices, or the processes differ in what they train.
        TrainingError: The loss is no longer finite, or another process ended.
        MissingDependencyError: rich, matplotlib or what `track` names isn't installed.
    """
    if save_every < 1:
        raise InvalidArgumentError(f"`save_every` must be at least 1. Received: {save_every}.")
    if keras.backend.backend() not in ("tensorflow", "jax"):
        raise InvalidArgumentError(
            "`train` needs Keras' TensorFlow or JAX backend: set KERAS_BACKEND before Keras is imported. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}."
        )
    check_tracker(track)
    if not isinstance(data, ImageData):
        raise InvalidArgumentError(
            "`data` must be an ImageData, which holds labels and a split: wrap arrays with `ImageData.from_arrays`, "
            f"read files with `load_directory`. Received: {type(data).__name__}."
        )
    whole, model = model, without_auxiliary(model)
    check_ends(model, "model")
    head = _tasks.read_head(model, task)
    check_fits(model, data, head)
    require("matplotlib.figure", "matplotlib")  # fail now, not after hours of training
    # Optimizer and loss belong to a second model over the same layers. best.keras then has the plain model, which is a
    # third of the size and loads without this package's loss function.
    if distillation is None and whole is not model:
        trained = AuxiliaryTraining.of(whole, recipe.auxiliary_weight)
    elif distillation is None:
        trained = keeping_modes(keras.Model(model.inputs[0], model.outputs[0]))
    else:
        gives_logits(model)  # raises where distillation isn't possible
        trained, head = distillation.distiller(model), dataclasses.replace(head, activation="softmax")
    parts, class_weights = phases(recipe), weights_of_classes(recipe, data, head)
    check_phases(model, recipe)
    fingerprint, learning = _fingerprint(model), model
    if recipe.progressive is not None:
        model = of_size(model, data.image_shape)  # what is kept: exports need a size
    keras.utils.set_random_seed(recipe.seed)
    processes = Processes.current()
    steps, batch = data.steps_per_epoch(recipe.batch_size), min(recipe.batch_size, data.train_count)
    processes.check_batch(batch, recipe.batch_size)
    lacking = processes.lacking(data.validation_count, recipe.batch_size)
    if distillation is not None and lacking:
        raise InvalidArgumentError(
            "`distillation` on several devices needs a number of held-out images that is divisible by theirs, "
            f"{processes.devices}. Received: {data.validation_count}."
        )
    metric = [_metric(head, parts)]
    trained.compile(
        optimizer=make_optimizer(trained, recipe, steps),
        loss=training_loss(head, rows=data.targets.ndim == 2, label_smoothing=recipe.label_smoothing),
        metrics=None if lacking else metric,
        weighted_metrics=metric if lacking else None,
        # On CPUs, steps with XLA take 2 to 4 times as long (measured with MobileNetV4). JAX has nothing else.
        jit_compile=keras.backend.backend() == "jax",
    )
    validation = processes.padded(data.validation(recipe.batch_size), data.validation_count, recipe.batch_size)
    _tasks.make_variables(trained, model.outputs[0], validation)

    folder = RunFolder(run_dir, processes)
    if not resume:
        folder.clear()
    identity: dict[str, Any] = {"recipe": recipe.identity(), "data": data.fingerprint(), "model": fingerprint}
    if distillation is not None:
        identity["distillation"] = distillation.to_dict()
    if head.task != "softmax":
        identity["task"] = head.task
    average = Average(model, recipe.ema) if recipe.ema is not None else None
    with processes.together():
        processes.check_equal(identity)
        history = folder.load_state(trained, identity, average.variables if average else ())

    def batches(phase: Phase, first: int, end: int, most_steps: int | None = None) -> tf.data.Dataset:
        found = data.train(
            recipe.batch_size,
            phase.augmentation,
            recipe.seed,
            first_epoch=first,
            epochs=end - first,
            size=(phase.stage.size, phase.stage.size) if phase.stage is not None else None,
            mixing=phase.mixing,
            columns=model.outputs[0].shape[-1],
            class_weights=class_weights,
            most_steps=most_steps,
        )
        return processes.own(found)

    throughput = Throughput(steps * batch)
    keeper = _Keeper(
        model,
        learning,
        data,
        recipe,
        folder,
        identity,
        history,
        save_every,
        head,
        average,
        batches,
        throughput,
        processes,
    )
    remember_task(model, head.task)
    if not keeper.finished:
        if history:
            log.info("Resuming %s after epoch %d of %d.", folder.path, len(history), recipe.epochs)
        shown = progress and processes.first
        with (
            processes.together(),
            tracking(track if processes.first else None, folder, recipe) as trackers,
            TrainingProgress(recipe.epochs, steps, len(history), throughput, shown=shown) as bar,
        ):
            if recipe.progressive is not None:
                bar.print(recipe.progressive.table(recipe.epochs))
            traced = None
            for phase in parts:
                first = max(phase.first, len(history))
                if first >= phase.end or keeper.finished:
                    continue
                with entered(model, recipe, phase, trained.optimizer) as norms:
                    keeper.enter(phase, norms)
                    if not phase.same_step(traced):
                        forget_traces(trained)
                    traced = phase
                    trained.fit(
                        throughput.timed(batches(phase, first, phase.end)),
                        validation_data=validation,
                        steps_per_epoch=steps,
                        initial_epoch=first,
                        epochs=phase.end,
                        callbacks=[throughput, *trackers, keeper, bar, *callbacks],
                        shuffle=False,  # of the batches; `data` has shuffled the images
                        verbose=0,
                    )
    if processes.first:
        folder.save_curves(history)  # even if nothing was left to train: the run may have been killed just before it
    with processes.together():
        folder.load_best(model)
    if head.task == "multi-label" and keeper.thresholds is None and processes.devices > 1:
        if processes.first:
            log.warning(
                "The thresholds of the labels aren't settled: `train` does that on one device, also afterwards."
            )
    elif head.task == "multi-label" and keeper.thresholds is None:  # of a run that didn't settle them
        keeper.settle_thresholds()
        folder.save_info(keeper.info())
    best, seconds = keeper.best, sum(row["seconds"] for row in history)
    return TrainingResult(
        model,
        tuple(history),
        int(best["epoch"]),
        best["val_accuracy"],
        len(history),
        seconds,
        folder.path,
        keeper.thresholds,
    )


class _Keeper(keras.callbacks.Callback):
    """Updates the run folder after each epoch, and stops the training when `patience` runs out."""

    def __init__(
        self,
        plain: keras.Model,
        learning: keras.Model,
        data: ImageData,
        recipe: Recipe,
        folder: RunFolder,
        identity: dict[str, Any],
        history: list[Row],
        save_every: int,
        head: _tasks.Head,
        average: Average | None,
        batches: Callable[[Phase, int, int, int | None], tf.data.Dataset],
        throughput: Throughput,
        processes: Processes,
    ) -> None:
        super().__init__()
        self._throughput = throughput
        self._save_every, self._head, self._average, self._batches = save_every, head, average, batches
        self._plain, self._learning = plain, learning  # the same layers; the second takes training images of any size
        self._processes = processes
        self._data, self._recipe = data, recipe
        self._folder, self._identity, self._history = folder, identity, history
        self._started, self._steps = 0.0, 0
        self._settling: Iterator[Any] | None = None  # the batches that a phase settles with
        self._phase, self._frozen = phases(recipe)[0], tuple[keras.layers.BatchNormalization, ...]()
        self._settle = settling(learning, processes)
        self.thresholds: tuple[float, ...] | None = None  # of the best epoch
        if history and head.task == "multi-label":
            self.thresholds = folder.thresholds()

    def enter(self, phase: Phase, frozen: Sequence[keras.layers.BatchNormalization]) -> None:
        """Before a phase, with the batch norms that it freezes."""
        if not phase.same_step(self._phase):
            self._settle = settling(self._learning, self._processes)
        self._phase, self._frozen, self._settling = phase, tuple(frozen), None

    @property
    def best(self) -> Row:
        """The best epoch so far; the first one in case of a tie."""
        return max(self._history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none has improved for `patience` epochs."""
        epochs, patience = len(self._history), self._recipe.patience
        if not epochs:
            return False
        return epochs >= self._recipe.epochs or (patience is not None and epochs - self.best["epoch"] >= patience)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()
        self._steps = epoch * self._data.steps_per_epoch(self._recipe.batch_size)  # also after a resume

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before the validation: an epoch must not be judged by averages that lag behind its weights."""
        if self._average is not None:
            self._average.exchange()
        steps, epoch = self._data.steps_per_epoch(self._recipe.batch_size), len(self._history)
        if all(norm.momentum**steps < _SETTLED for norm in following_batch_norms(self._plain)):
            return
        if self._settling is None:
            # One pipeline for all epochs of a phase: each would be traced for seconds.
            self._settling = iter(self._batches(self._phase, epoch, self._phase.end, _SETTLING_BATCHES))
        some = itertools.islice(self._settling, min(steps, _SETTLING_BATCHES))
        self._settle(images for images, *_ in some)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self._steps += 1
        if self._average is not None and self._steps % self._recipe.accumulate == 0:
            self._average.update(self._steps // self._recipe.accumulate, self.model)
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                "The recipe must keep the loss finite: try a lower `learning_rate` or more `warmup_epochs`. "
                f"Received: loss={logs['loss']} in epoch {len(self._history) + 1}, step {batch + 1}, with "
                f"learning_rate={self._recipe.learning_rate}, warmup_epochs={self._recipe.warmup}."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        row = {"epoch": epoch + 1, "learning_rate": float(self.model.optimizer.learning_rate)}
        row |= {name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        row["seconds"] = time.perf_counter() - self._started
        row["images_per_second"], row["waiting"] = self._throughput.images_per_second, self._throughput.waiting
        if self._phase.stage is not None:
            row |= {"stage": self._phase.stage.number + 1, "size": self._phase.stage.size}
        self._history.append(row)
        if self.best is row and self._processes.first:
            with thawed(self._frozen):
                self._folder.save_best(self._plain)
            if self._head.task == "multi-label":
                self.settle_thresholds()
        if self._average is not None:
            self._average.exchange()
        if self._processes.first:
            self._save(epoch)
        if self.finished:
            self.model.stop_training = True

    def _save(self, epoch: int) -> None:
        self._folder.save_history(self._history)
        self._folder.save_info(self.info())
        if self.finished or (epoch + 1) % self._save_every == 0:
            more = self._average.variables if self._average is not None else ()
            self._folder.save_state(self.model, self._history, self._identity, more)

    def settle_thresholds(self) -> None:
        """Chooses the thresholds for the model as it is; on several devices there are none."""
        self.thresholds = None
        if self._processes.devices == 1:
            self.thresholds = held_out_thresholds(self._plain, self._head, self._data, self._recipe.batch_size)

    def info(self) -> dict[str, Any]:
        """The content of model.json."""
        thresholds = {} if self.thresholds is None else {"thresholds": self.thresholds}
        return {
            "task": self._head.task,
            "labels": list(self._data.labels),
            **thresholds,
            "preprocessing": self._data.preprocessing.to_dict(),
            "recipe": self._recipe.to_dict(),
            "seed": self._recipe.seed,
            "distillation": self._identity.get("distillation"),
            "metrics": {
                "val_accuracy": self.best["val_accuracy"],
                "val_loss": self.best["val_loss"],
                "best_epoch": self.best["epoch"],
                "epochs": len(self._history),
                "finished": self.finished,
                "seconds": sum(row["seconds"] for row in self._history),
                "train_images": self._data.train_count,
                "validation_images": self._data.validation_count,
            },
            "versions": {
                "keraslight": importlib.metadata.version("keraslight"),
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
                **({"jax": importlib.metadata.version("jax")} if keras.backend.backend() == "jax" else {}),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }


def _metric(head: _tasks.Head, parts: Sequence[Phase]) -> Any:
    if head.task == "regression":
        return keras.metrics.R2Score(name="accuracy")
    return mixed_accuracy(head) if any(phase.mixing.active for phase in parts) else _tasks.metric(head)


def weights_of_classes(recipe: Recipe, data: ImageData, head: _tasks.Head) -> np.ndarray | None:
    """float32 (classes,), or None."""
    given = recipe.class_weights
    if given is None:
        return None
    if data.targets.ndim != 1:
        raise InvalidArgumentError(
            "`class_weights` needs one class for each image. "
            f"Received: class_weights={given!r} for task={head.task!r} with targets of shape {data.targets.shape}."
        )
    if given == "balanced":
        counts = np.bincount(data.targets[data.train_indices], minlength=len(data.labels))
        return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
    if len(given) != len(data.labels):
        raise InvalidArgumentError(
            f"`class_weights` must have a weight for each of the {len(data.labels)} labels. Received: {given!r}."
        )
    return np.asarray(given, np.float32)


def check_fits(model: keras.Model, data: ImageData, head: _tasks.Head) -> None:
    """Raises for what would fail later, or silently train the wrong thing."""
    got, want = tuple(model.inputs[0].shape[1:]), data.image_shape
    if len(got) != 3 or any(have not in (None, need) for have, need in zip(got, want, strict=True)):
        raise InvalidArgumentError(
            f"`model` must take images of `data.preprocessing`'s size, {want}. Received: a model for {got}."
        )
    wanted = 1 if head.task == "binary" and len(data.labels) == 2 else len(data.labels)
    if tuple(model.outputs[0].shape[1:]) != (wanted,):
        raise InvalidArgumentError(
            f"`model` must give one score for each of the {len(data.labels)} labels. "
            f"Received: a model with output shape {tuple(model.outputs[0].shape)}."
        )
    _tasks.check_labels(head, model.outputs[0].shape, data.targets)
    own = own_preprocessing(model)
    if own is None:
        log.warning("The model has no ImageNormalization layer: it must accept raw pixels in 0..255 without one.")
    elif own != data.preprocessing:
        differences = ", ".join(
            f"{name}={value} in the model and {getattr(data.preprocessing, name)} in the data"
            for name, value in dataclasses.asdict(own).items()
            if value != getattr(data.preprocessing, name)
        )
        raise InvalidArgumentError(
            f"The model's preprocessing must be the one that the data was read with. Received: {differences}."
        )


def _fingerprint(model: keras.Model) -> dict[str, Any]:
    """What two builds of the same model share: layers and shapes, but not names, which Keras numbers consecutively."""

    def nameless(value: Any) -> Any:
        if isinstance(value, dict):
            dropped = ("name", "inbound_nodes", "input_layers", "output_layers", "compile_config")
            return {key: nameless(item) for key, item in value.items() if key not in dropped}
        return [nameless(item) for item in value] if isinstance(value, list) else value

    config = json.dumps(nameless(json.loads(model.to_json())), sort_keys=True)
    return {"parameters": model.count_params(), "sha256": hashlib.sha256(config.encode()).hexdigest()}
