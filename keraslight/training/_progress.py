"""Progress output on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keraslight._notebook import Bar, in_notebook
from keraslight.training._extras import require


def track(items: Iterable[Any], total: int, text: str, shown: bool) -> Iterator[Any]:
    """Yields `items`, with a progress bar if `shown` is set and this is a terminal or a notebook."""
    if shown and in_notebook():
        bar = Bar(total)
        try:
            for done, item in enumerate(items):
                bar.update(done, text)
                yield item
        finally:
            bar.stop()
        return
    console = require("rich.console", "rich").Console(stderr=True) if shown else None
    if console is None or not console.is_terminal:
        yield from items
    else:
        yield from require("rich.progress", "rich").track(items, text, total=total, console=console)


class TrainingProgress(keras.callbacks.Callback):
    """Prints a line per finished epoch, and shows a bar over all steps on a terminal or in a notebook.

    `first_epoch` counts from 0, and `images` is the number of an epoch.
    """

    def __init__(self, epochs: int, steps: int, first_epoch: int, *, shown: bool, images: int) -> None:
        super().__init__()
        self._images = images
        self._epochs, self._steps, self._first_epoch = epochs, steps, first_epoch
        self._console = require("rich.console", "rich").Console(stderr=True, quiet=not shown)
        self._bar: Any = None  # rich's
        self._notebook_bar = Bar(epochs * steps) if shown and in_notebook() else None
        self._epoch = first_epoch
        self._started = self._trained = 0.0

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal and not self._console.quiet:
            rich = require("rich.progress", "rich")
            columns = (
                rich.TextColumn(f"epoch {{task.fields[epoch]}}/{self._epochs}"),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}"),
                rich.TimeRemainingColumn(),
            )
            self._bar = rich.Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            done, total = self._first_epoch * self._steps, self._epochs * self._steps
            self._task = self._bar.add_task(
                "", total=total, completed=done, epoch=self._first_epoch + 1, loss=math.nan, accuracy=math.nan
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._notebook_bar is not None:
            self._notebook_bar.stop()
        if self._bar is not None:  # even after an error, or the terminal's cursor stays hidden
            self._bar.stop()

    def print(self, text: str) -> None:
        """Prints a text as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        if self._notebook_bar is not None:
            text = f"epoch {self._epoch + 1}/{self._epochs}, loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}"
            self._notebook_bar.update(self._epoch * self._steps + batch + 1, text)
        if self._bar is not None:
            done = self._epoch * self._steps + batch + 1
            self._bar.update(
                self._task, completed=done, epoch=self._epoch + 1, loss=logs["loss"], accuracy=logs["accuracy"]
            )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        seconds = time.perf_counter() - self._started
        line = (
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}  "
            f"val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.2%}  {seconds:.1f} s  "
            f"{self._images / max(self._trained - self._started, 1e-9):.0f} images/s"
        )
        self.print(line)
