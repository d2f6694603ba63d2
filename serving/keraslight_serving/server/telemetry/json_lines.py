"""`python json_lines.py` copies its stdin to stderr, with each line that is not JSON in an object of its own.

With `--log_format=json`, a server's stderr goes through this process: what libraries in C++ write there, above all the
last words of one that aborts, would be lost in a thread of the server itself. It imports nothing of the package.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO

_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}  # the first letter of a line of absl's


def as_json(line: bytes) -> str:
    """The line if it is an object, else one that says it; empty for a blank line."""
    text = line.decode(errors="replace").rstrip()
    if text.startswith("{"):
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            return text
    level = re.match(r"([IWEF])\d{4} ", text)
    fields = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "level": _LEVELS[level[1]] if level else "INFO",
        "logger": "stderr",
        "message": text,
    }
    return json.dumps(fields) if text else ""


def copy(source: IO[bytes], target: IO[str]) -> None:
    """Copies lines until the source ends."""
    for line in source:
        if text := as_json(line):
            target.write(f"{text}\n")
            target.flush()


def redirect_stderr() -> Callable[[], None]:
    """Sends this process's stderr, and that of its children, through another process.

    Returns a function that waits until everything is written, after which there is no more stderr.
    """
    reading, writing = os.pipe()
    # Isolated and without site packages: it starts in 20 ms.
    process = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=reading)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)

    def finish() -> None:
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a worker still writes
            process.wait(2)

    return finish


if __name__ == "__main__":
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Ctrl-C reaches all processes, but the server still writes to the log
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    copy(sys.stdin.buffer, sys.stderr)
