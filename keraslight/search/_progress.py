"""Progress of a search on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keraslight._progress import ProgressBar

if TYPE_CHECKING:
    from keraslight.search._results import SearchResult


class SearchProgress(ProgressBar):
    """Prints a line per finished trial. The bar counts all trials."""

    def __init__(self, trials: int, done: int, *, shown: bool) -> None:
        super().__init__(shown=shown)
        self._trials, self._done = trials, done

    def begin(self, number: int) -> None:
        """A trial begins."""
        self.show(self._done, self._trials, f"trial {number}")

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
        self.print(line)
        self.show(self._done, self._trials, f"front of {len(result.front)}")
