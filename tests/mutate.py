"""Breaks the code in many ways, one at a time, and checks that the named test notices.

`make mutate` makes all mutations of `tests/mutations.py`, `python -m tests.mutate TEXT ...` those whose file, test or
new text contains a text. `--skip N` and `--take N` choose a range of them, to resume a run or to divide it. Each
mutation is made in a copy of the packages, so the working tree stays as it is. The tests run in forks of a process that
has imported TensorFlow; the one that fails is run once more without the mutation, where it must pass.
"""

import argparse
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
COPIED = ("keraslight", "serving", "tests", "docs", "savedmodels", "pyproject.toml", "README.md", "Makefile")
LIMIT = 600  # seconds for each test; what hangs longer counts as caught


def problems() -> list[str]:
    """Why mutations can't be made: a text that is missing or ambiguous, or a test that doesn't exist."""
    found = []
    for file, old, _, test in MUTATIONS:
        path, _, function = test.partition("::")
        count = (ROOT / file).read_text(encoding="utf-8").count(old)
        if count != 1:
            found.append(f"{file} contains {old!r} {count} times")
        if not (ROOT / path).is_file() or f"def {function.partition('[')[0]}" not in (ROOT / path).read_text():
            found.append(f"{test} does not exist")
    return found


def run_test(folder: Path, test: str) -> tuple[int, str]:
    """Runs pytest in a fork, in a copy of the repository.

    Returns:
        pytest's exit code, or minus the number of the signal that ended the process; and what was printed.
    """
    printed = folder / "output"
    if not (child := os.fork()):
        code = 3
        try:
            signal.alarm(LIMIT)
            os.chdir(folder)
            sys.path[:0] = [str(folder), str(folder / "serving")]
            os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
            for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
                del sys.modules[name]  # the copy's are imported
            output = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            quick = [] if "[" in test else ["-m", "not slow"]  # a single case may be slow
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *quick, test])
            sys.stdout.flush()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, printed.read_text(encoding="utf-8", errors="replace")


def main(chosen: list[tuple[int, Mutation]], *, trust: bool) -> int:
    """Prints what became of each mutation, and the score; returns the number of mutations that weren't caught."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in tests/conftest.py, which imports what is mutated
    import keras  # noqa: F401 (and TensorFlow, which takes seconds)

    missed, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy
            copy(ROOT / item, folder / item)
        passes = cache(lambda test: run_test(folder, test)[0] == 0)
        seconds = itertools.count(time.time(), 2)

        def write(file: Path, text: str) -> None:
            file.write_text(text, encoding="utf-8")
            moment = next(seconds)
            os.utime(file, (moment, moment))  # Python compiles a file again if its time in seconds is another

        for number, mutation in chosen:
            file = folder / mutation.file
            text = file.read_text(encoding="utf-8")
            write(file, text.replace(mutation.old, mutation.new))
            code, printed = run_test(folder, mutation.test)
            write(file, text)
            failed = re.search(r"^FAILED (\S+?)(?:\[|\s|$)", printed, re.MULTILINE)
            if code == 0:
                what = "SURVIVES"
            elif code not in (1, -signal.SIGALRM):
                what = f"pytest ended with {code}"
            elif not trust and not passes(failed[1] if failed else mutation.test):
                what = "the test fails without it"
            else:
                what = "caught"
            missed += what != "caught"
            print(f"{number:3} {mutation.file}: {mutation.new!r} {what}: {mutation.test}", flush=True)
            if what not in ("caught", "SURVIVES"):
                print(printed[-3000:])
    print(f"{len(chosen) - missed} of {len(chosen)} mutations caught in {time.monotonic() - began:.0f} s")
    return missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="part of a file's or a test's name, or of the new text"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N of the mutations")
    parser.add_argument("--take", type=int, metavar="N", help="then make N mutations")
    parser.add_argument("--trust", action="store_true", help="don't run the failing tests without the mutations")
    arguments = parser.parse_args()
    if found := problems():
        sys.exit("\n".join(found))
    texts, skip, take = arguments.texts, arguments.skip, arguments.take
    numbered = [
        (number, mutation)
        for number, mutation in enumerate(MUTATIONS, 1)
        if not texts or any(text in mutation.file + mutation.test + mutation.new for text in texts)
    ]
    sys.exit(bool(main(numbered[skip:][:take], trust=arguments.trust)))
