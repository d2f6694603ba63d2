"""What a user sees while it works: progress bars on a terminal, plain lines anywhere else. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keraslight.training._extras import require


def track(items: Iterable[Any], total: int, text: str, shown: bool) -> Iterator[Any]:
    """Yields `items`, with a bar if `shown` and stderr is a terminal."""
    console = require("rich.console", "rich").Console(stderr=True) if shown else None
    if console is None or not console.is_terminal:
        yield from items
    else:
        yield from require("rich.progress", "rich").track(items, text, total=total, console=console)


class TrainingProgress(keras.callbacks.Callback):
    """One bar over all steps on a terminal, and a line per finished epoch anywhere. A context manager.

    Args:
        epochs: The number of epochs of the whole training.
        steps: The number of steps per epoch.
        first_epoch: The epoch to begin with, from 0; more than 0 after a resume.
        shown: False shows nothing at all.
    """

    def __init__(self, epochs: int, steps: int, first_epoch: int, *, shown: bool) -> None:
        super().__init__()
        self._epochs, self._steps, self._first_epoch = epochs, steps, first_epoch
        self._console = require("rich.console", "rich").Console(stderr=True, quiet=not shown)
        self._bar = None
        self._epoch = first_epoch
        self._started = 0.0

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal and not self._console.quiet:
            rich_progress = require("rich.progress", "rich")
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}"),
                rich_progress.TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "",
                total=self._epochs * self._steps,
                completed=self._first_epoch * self._steps,
                epoch=self._first_epoch + 1,
                epochs=self._epochs,
                loss=float("nan"),
                accuracy=float("nan"),
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:  # also after an error, or the terminal's cursor stays hidden
            self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._epoch * self._steps + batch + 1,
                epoch=self._epoch + 1,
                loss=logs["loss"],
                accuracy=logs["accuracy"],
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._console.print(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}  "
            f"val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.2%}  "
            f"{time.perf_counter() - self._started:.1f} s",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
