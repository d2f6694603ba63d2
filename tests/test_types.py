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


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Runs the type checker; later runs use what the first one has found out about the packages."""
    cache = tmp_path_factory.mktemp("mypy")

    def mypy(*files):
        run = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *map(str, files)]
        checked = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    return mypy


def test_the_type_checker_finds_nothing(mypy):
    mypy()


def test_it_accepts_a_users_program_and_reports_its_mistakes(mypy):
    mypy(ROOT / "tests" / "user_program.py")  # an ignored error that it doesn't report would be an error itself


def test_it_knows_every_public_name(mypy, tmp_path):
    public = re.findall(
        r"^(keraslight[\w.]*)\.(\w+)(?:\(|:)", (ROOT / "tests" / "public_api.txt").read_text(), re.MULTILINE
    )
    modules = {module for module, name in public if module.islower()}
    program = tmp_path / "program.py"
    names = sorted({f"{module}.{name}" for module, name in public if module in modules})
    imports, uses = (f"import {module}" for module in sorted(modules)), (f"used.append({name})" for name in names)
    program.write_text("\n".join([*imports, "used: list[object] = []", *uses]))
    assert len(names) > 300
    mypy(program)


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
