"""Experiment tracking by TensorBoard, MLflow or Weights & Biases, through their own Keras callbacks.

A run of MLflow or W&B has an ID, which `tracking.json` in the run folder keeps: a resumed training continues that run.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keraslight._files import write_file
from keraslight.errors import InvalidArgumentError
from keraslight.training._extras import require
from keraslight.training._recipe import Recipe
from keraslight.training.run_folder import TENSORBOARD, TRACKING, RunFolder

# The module with the callback, and the library's name.
TRACKERS = {
    "tensorboard": ("tensorboard.plugins.hparams.api", "TensorBoard"),
    "mlflow": ("mlflow.keras", "MLflow"),
    "wandb": ("wandb.integration.keras", "Weights & Biases"),
}


def check_tracker(name: str | None) -> None:
    """Imports the library.

    Raises:
        InvalidArgumentError: The tracker is unknown.
        MissingDependencyError: It is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise InvalidArgumentError(f"`track` must be one of {tuple(TRACKERS)}, or None. Received: {name!r}.")
    module, library = TRACKERS[name]
    require(module, library, name)


@contextlib.contextmanager
def tracking(name: str | None, folder: RunFolder, recipe: Recipe) -> Iterator[list[keras.callbacks.Callback]]:
    """The callbacks of a training's tracker, whose run ends with the block.

    They must run before the state of an epoch is saved: a training that is killed in between logs the epoch twice, with
    the same values, rather than never.
    """
    parameters = dict(_flat(recipe.to_dict()))
    if name is None:
        yield []
    elif name == "tensorboard":
        yield [_tensorboard(folder, parameters)]
    else:
        with (_mlflow if name == "mlflow" else _wandb)(folder, parameters) as callback:
            yield [callback]


def _tensorboard(folder: RunFolder, parameters: dict[str, Any]) -> keras.callbacks.Callback:
    logs = folder.path / TENSORBOARD
    if not logs.exists():
        writer = tf.summary.create_file_writer(str(logs / "train"))
        with writer.as_default():
            require(*TRACKERS["tensorboard"], "tensorboard").hparams(parameters)
        writer.close()
    return keras.callbacks.TensorBoard(logs, write_graph=False)


@contextlib.contextmanager
def _mlflow(folder: RunFolder, parameters: dict[str, Any]) -> Iterator[keras.callbacks.Callback]:
    mlflow, callbacks = require("mlflow", "MLflow", "mlflow"), require(*TRACKERS["mlflow"], "mlflow")
    if mlflow.active_run() is not None:  # the caller's, who also ends it
        mlflow.log_params(parameters)
        yield callbacks.MlflowCallback()
        return
    known = _known(folder, "mlflow")
    try:
        run = mlflow.start_run(run_id=known, run_name=None if known else folder.path.absolute().name)
    except mlflow.exceptions.MlflowException as error:
        raise InvalidArgumentError(
            "`MLFLOW_TRACKING_URI` must be where MLflow can keep runs, such as http://localhost:5000, and where the "
            f"run of a training to resume is. Received: {mlflow.get_tracking_uri()}, run {known}: {error}."
        ) from error
    status = "FAILED"
    try:
        if known is None:
            _remember(folder, "mlflow", run.info.run_id)
            mlflow.log_params(parameters)
        yield callbacks.MlflowCallback()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)


@contextlib.contextmanager
def _wandb(folder: RunFolder, parameters: dict[str, Any]) -> Iterator[keras.callbacks.Callback]:
    wandb, callbacks = require("wandb", "Weights & Biases", "wandb"), require(*TRACKERS["wandb"], "wandb")
    if wandb.run is not None:  # the caller's, who also ends it
        wandb.run.config.update(parameters)
        yield callbacks.WandbMetricsLogger()
        return
    known = _known(folder, "wandb")
    run = wandb.init(
        id=known,
        resume=None if known is None else "allow",
        name=None if known else folder.path.absolute().name,
        config=None if known else parameters,
        dir=os.environ.get("WANDB_DIR") or folder.path,
        settings=wandb.Settings(silent=True, console="off"),
    )
    code = 1
    try:
        if known is None:
            _remember(folder, "wandb", run.id)
        yield callbacks.WandbMetricsLogger()
        code = 0
    finally:
        run.finish(exit_code=code)


def _known(folder: RunFolder, name: str) -> str | None:
    """The ID of the tracked run that a training to resume began."""
    found: str | None = _ids(folder).get(name)
    return found


def _remember(folder: RunFolder, name: str, number: str) -> None:
    write_file(folder.path / TRACKING, json.dumps(_ids(folder) | {name: number}, indent=2) + "\n")


def _ids(folder: RunFolder) -> dict[str, str]:
    file = folder.path / TRACKING
    try:
        found: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise InvalidArgumentError(
            f"{TRACKING} must be JSON as `train` writes it. Received: {file}, {error}."
        ) from error
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by name, those of parts as `part.field`; what is no text or number as JSON."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str | int | float) else json.dumps(value)
