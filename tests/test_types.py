"""The type checkers: mypy, as `make lint` runs it, and pyright, which editors run, as users have it."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (ROOT / "keraslight", ROOT / "serving" / "keraslight_serving")
SOURCES = [file for package in PACKAGES for file in package.rglob("*.py") if not file.name.endswith("_pb2.py")]


@pytest.fixture(scope="module")
def names():
    """A program that imports every public module and name, and uses every public member of a class."""
    recorded = (ROOT / "tests" / "public_api.txt").read_text()
    paths = [path.rpartition(".") for path in re.findall(r"^(keraslight(?:_serving)?\.[\w.]+)", recorded, re.MULTILINE)]
    modules = sorted({owner for owner, _, _ in paths if owner.islower()} | {"keraslight"})
    program = [f"import {module}" for module in modules] + ["used: list[object] = []"]
    for number, (owner, _, name) in enumerate(paths):
        if owner in modules:
            program += [f"from {owner} import {name} as name{number}", f"used.append({owner}.{name})"]
        else:
            program += [f"def use{number}(it: {owner}) -> object:", f"    return it.{name}"]
    assert len(paths) > 600
    return "\n".join(program)


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


def test_it_knows_every_public_name(mypy, names, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(names)
    mypy(program)


@pytest.fixture(scope="module")
def pyright(tmp_path_factory, names):
    """What pyright's "standard" mode reports about programs of users, who have the packages in site-packages.

    basedpyright is pyright with its own Node.js: pyright's own package downloads both when it first runs.
    """
    folder = tmp_path_factory.mktemp("pyright")
    venv.create(folder / "venv", with_pip=False)
    scheme = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=scheme))
    for package in PACKAGES:
        (packages / package.name).symlink_to(package)
    (packages / "rest.pth").write_text("\n".join(filter(None, sys.path)))
    program = (ROOT / "tests" / "user_program.py").read_text()
    (folder / "program.py").write_text(program)
    (folder / "names.py").write_text(names)
    settings = {
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
        "include": ["*.py"],
        "venvPath": ".",
        "venv": "venv",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    run = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(folder)]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 1, done.stdout + done.stderr  # the program has mistakes
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == 2
    return found["generalDiagnostics"], program.splitlines()


def test_pyright_knows_every_public_name(pyright):
    assert [found for found in pyright[0] if found["file"].endswith("names.py")] == []


def test_pyright_reports_a_users_mistakes_and_nothing_else(pyright):
    found, lines = pyright
    reported = {each["range"]["start"]["line"] for each in found if each["file"].endswith("program.py")}
    wrong = {number for number, line in enumerate(lines) if "# type: ignore" in line}
    assert {lines[number].strip() for number in reported} == {lines[number].strip() for number in wrong}
    texts = "\n".join(each["message"] for each in found)
    assert 'No parameter named "clases"' in texts
    assert '"MobilNetV4" is not a known attribute of module "keraslight"' in texts


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
