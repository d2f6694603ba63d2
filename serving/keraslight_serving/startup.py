"""Keeps lines that TensorFlow and LiteRT write when they start, and that tell users nothing, from stderr.

Their C++ code writes to file descriptor 2 before it reads any log level: that no GPU was found on a machine without
one, that a delegate was created. While a library starts, descriptor 2 is a pipe to a helper process, which passes on
every line but those. It is a process, not a thread, so that what a crash writes last is passed on too.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's variable: 0 shows all of its messages, 1 no information, 2 no warnings, 3 no errors."""

_HARMLESS = (
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$",
    r"[IW]\d{4} \d\d:\d\d:\d\d",  # information and warnings of absl's logging: the level that hides them comes too late
    r"[IW]\d{4} \d\d:\d\d:\d{10}",  # the same before a time zone is known
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] ",  # and of TensorFlow's own logging
    r"To enable the following instructions: .*rebuild TensorFlow with the appropriate compiler flags\.$",
    r"INFO: ",  # LiteRT's
    r"fully_quantize: \d, inference_type: ",  # the converter's, of each int8 file
)
# An error wherever there is a GPU; without one it is how TensorFlow finds that out.
_HARMLESS_WITHOUT_GPU = (r"E\d{4} .*failed call to cuInit",)
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia", "/dev/dxg", "/dev/nvhost-ctrl")

_HELPER = """
import os, re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
harmless = re.compile(os.fsencode(sys.argv[1])).match
for line in sys.stdin.buffer:
    if not harmless(line):
        os.write(2, line)
"""

_before = None if "jax" in sys.modules else os.environ.get(LEVEL)  # JAX sets it to 1 where it is not set
_lock = threading.Lock()
_started: set[str] = set()
_helpers: list[subprocess.Popen[bytes]] = []  # of processes that began meanwhile, and still write to the pipe


@contextlib.contextmanager
def quiet(library: str | None = None) -> Iterator[None]:
    """Filters descriptor 2 during the first start of a library in this process; later ones write nothing.

    None filters each time, for what writes each time.

    Does nothing if `TF_CPP_MIN_LOG_LEVEL` asks for information or warnings, or where there is no such helper process
    (on Windows, or in a program that embeds Python).
    """
    # Where two libraries start at once in two threads, only one's lines are left out: they share the descriptor.
    if library in _started or not _lock.acquire(blocking=False):
        yield
        return
    try:
        if library is not None:
            _started.add(library)
        with _filtered():
            yield
    finally:
        _lock.release()


def harmless() -> str:
    """The regular expression of the lines that are left out on this machine."""
    has_gpu = any(Path(file).exists() for file in _GPU_FILES)
    return "|".join(_HARMLESS if has_gpu else _HARMLESS + _HARMLESS_WITHOUT_GPU)


def _wanted() -> bool:
    """Whether whoever started the program asks for information or warnings."""
    level = os.environ.get(LEVEL)
    return level == "0" or (level == "1" and (_before == "1" or "jax" not in sys.modules))


@contextlib.contextmanager
def _filtered() -> Iterator[None]:
    python = Path(sys.executable or "").name.startswith("python")
    if _wanted() or os.name != "posix" or not python:
        yield
        return
    try:
        before = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        command = [sys.executable, "-I", "-S", "-c", _HELPER, harmless()]
        reading, writing = os.pipe()
        helper = subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL)
    except OSError:
        os.close(before)
        yield
        return
    _flush()
    os.dup2(writing, 2)
    os.close(writing)
    os.close(reading)
    try:
        yield
    finally:
        _flush()
        os.dup2(before, 2)
        os.close(before)
        try:
            helper.wait(timeout=1)
        except subprocess.TimeoutExpired:
            _helpers.append(helper)


def _flush() -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # None, or closed
        sys.stderr.flush()
