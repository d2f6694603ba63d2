"""Progress of long work on stderr: lines, and below them a bar on a terminal or in a notebook."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console  # Keras brings it
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keraslight._notebook import Bar, in_notebook

_PARTS = 100  # of the notebook's bar, which doesn't know the total before the work begins


class ProgressBar:
    """Prints lines, and shows a bar where somebody watches. Nothing is shown unless `shown`."""

    def __init__(self, *, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._notebook = Bar(_PARTS) if shown and in_notebook() else None
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._notebook is not None:
            self._notebook.stop()
        if self._bar is not None:  # even after an error, or the terminal's cursor stays hidden
            self._bar.stop()

    def print(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, done: int, total: int, text: str) -> None:
        """Shows that `done` of `total` parts are done, with a text next to the bar."""
        if self._notebook is not None:
            self._notebook.update(_PARTS * done // total, text)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)
