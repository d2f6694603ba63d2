"""Progress output on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

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


class Throughput(keras.callbacks.Callback):
    """Measures the training part of each epoch, without its validation. It must be the first of the callbacks.

    Args:
        images: Number of images in an epoch.

    Attributes:
        images_per_second: Of the last epoch.
        waiting: Share of its time in which the model waited for the next batch, 0 to 1.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        with tf.device("CPU:0"):  # where data sets run
            self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._started = self._before = 0.0
        self.images_per_second = self.waiting = math.nan

    def timed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, with the time that each of them takes to come added up.

        Keras gets batches within its compiled step, where no callback sees how long they take. A zip gets its parts in
        turn, when the step asks for them.
        """
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def add(before: tf.Tensor, batch: Any, after: tf.Tensor) -> Any:
            with tf.control_dependencies([self._waited.assign_add(after - before)]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # another thread would do the waiting
        return tf.data.Dataset.zip((clock, batches, clock)).map(add).with_options(options)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started, self._before = time.perf_counter(), float(self._waited)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        seconds = max(time.perf_counter() - self._started, 1e-9)
        self.images_per_second = self._images / seconds
        self.waiting = min((float(self._waited) - self._before) / seconds, 1.0)


class TrainingProgress(keras.callbacks.Callback):
    """Prints a line per finished epoch, and shows a bar over all steps on a terminal or in a notebook.

    `first_epoch` counts from 0.
    """

    def __init__(self, epochs: int, steps: int, first_epoch: int, throughput: Throughput, *, shown: bool) -> None:
        super().__init__()
        self._throughput = throughput
        self._epochs, self._steps, self._first_epoch = epochs, steps, first_epoch
        self._console = require("rich.console", "rich").Console(stderr=True, quiet=not shown)
        self._bar: Any = None  # rich's
        self._notebook_bar = Bar(epochs * steps) if shown and in_notebook() else None
        self._epoch = first_epoch
        self._started = 0.0

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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        seconds = time.perf_counter() - self._started
        line = (
            f"epoch {epoch + 1}/{self._epochs}  loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}  "
            f"val_loss {logs['val_loss']:.4f}  val_accuracy {logs['val_accuracy']:.2%}  {seconds:.1f} s  "
            f"{self._throughput.images_per_second:.0f} images/s, {self._throughput.waiting:.0%} waiting for data"
        )
        self.print(line)
