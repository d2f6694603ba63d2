"""The type checker, as `make lint` runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    file
    for package in (ROOT / "keraslight", ROOT / "serving" / "keraslight_serving")
    for file in package.rglob("*.py")
    if not file.name.endswith("_pb2.py")
]


def test_the_type_checker_finds_nothing(tmp_path):
    run = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    checked = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_ignored_error_has_its_code_and_a_reason():
    bare = []
    for file in SOURCES:
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if "# type: ignore" not in line:
                continue
            reason = re.search(r"# type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]\s+# \w", line)
            before = number > 0 and lines[number - 1].lstrip().startswith("#")
            if not re.search(r"# type: ignore\[[a-z-]", line) or not (reason or before):
                bare.append(f"{file.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize("package", ["keraslight", "serving/keraslight_serving"])
def test_both_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
