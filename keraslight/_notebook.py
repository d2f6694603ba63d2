"""What notebooks show: reports as text instead of their fields, and progress bars."""

from __future__ import annotations

import html
import sys
import time
from typing import Any


class Report:
    """A report whose `str()` is a table, which notebooks show instead of the report's fields."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class Bar:
    """A progress bar in a notebook's output, where rich shows none. It disappears when it is stopped."""

    _SECONDS = 0.2  # between two updates: more of them would slow the notebook down, not the work

    def __init__(self, total: int) -> None:
        from IPython.display import HTML, display

        self._html, self._total, self._shown = HTML, total, 0.0
        self._handle: Any = display(HTML(self._text(0, "")), display_id=True)

    def update(self, done: int, text: str) -> None:
        """Shows that `done` steps are done."""
        if time.monotonic() - self._shown >= self._SECONDS:
            self._shown = time.monotonic()
            self._handle.update(self._html(self._text(done, text)))

    def stop(self) -> None:
        """Removes the bar."""
        self._handle.update(self._html(""))

    def _text(self, done: int, text: str) -> str:
        return (
            f'<progress value="{done}" max="{self._total}" style="width:20em"></progress> '
            f"{done}/{self._total} {html.escape(text)}"
        )


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
