"""Progress of a search on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keraslight._notebook import Bar, in_notebook

if TYPE_CHECKING:
    from keraslight.search._results import SearchResult


class SearchProgress:
    """Prints a line per finished trial, and shows a bar over all trials on a terminal or in a notebook."""

    def __init__(self, trials: int, done: int, *, shown: bool) -> None:
        self._trials, self._done = trials, done
        self._console = Console(stderr=True, quiet=not shown)
        self._notebook = Bar(trials) if shown and in_notebook() else None
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> SearchProgress:
        if self._console.is_terminal and not self._console.quiet:
            columns = (TextColumn("trial"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._trials, completed=self._done)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._notebook is not None:
            self._notebook.stop()
        if self._bar is not None:  # even after an error, or the terminal's cursor stays hidden
            self._bar.stop()

    def begin(self, number: int) -> None:
        """A trial begins."""
        self._show(f"trial {number}")

    def finished(self, result: SearchResult, number: int) -> None:
        """A trial has finished, and perhaps others in other processes."""
        self._done, candidate = len(result.candidates), result[number]
        if candidate.loss is None:
            text = candidate.stopped
        else:
            cost = result.cost(candidate)
            amount = f"{cost:.3f} ms" if result.metric == "latency" else f"{cost:,.0f} {result.metric}"
            on_front = "  on the front" if number in result.front else ""
            text = f"loss {candidate.loss:.4f}  accuracy {candidate.accuracy:.2%}  {amount}{on_front}"
        line = f"trial {number} ({self._done}/{self._trials})  {text}  {candidate.seconds:.1f} s"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._show(f"front of {len(result.front)}")

    def _show(self, text: str) -> None:
        if self._notebook is not None:
            self._notebook.update(self._done, text)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=text)
