"""Progress of NetAdapt on stderr: a bar on a terminal or in a notebook, and a line per iteration."""

from __future__ import annotations

from typing import Any

from rich.console import Console  # Keras brings it
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keraslight._notebook import Bar, in_notebook

_PARTS = 100  # of an iteration, whose number of proposals the notebook's bar doesn't know


class AdaptationProgress:
    """Prints a line per iteration. The bar counts the proposals of the present one."""

    def __init__(self, *, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._notebook = Bar(_PARTS) if shown and in_notebook() else None
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> AdaptationProgress:
        if self._console.is_terminal and not self._console.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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

    def show(self, iteration: int, done: int, proposals: int) -> None:
        """So many proposals of an iteration have been trained."""
        text = f"iteration {iteration}, {proposals} proposals"
        if self._notebook is not None:
            self._notebook.update(_PARTS * done // proposals, text)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=proposals, description=text)
