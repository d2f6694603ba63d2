"""The commands as a user types them."""

import json
import os

import filelock
import pytest
from typer.testing import CliRunner

from keraslight.cli import _common
from keraslight.cli.app import app


@pytest.fixture(scope="session", autouse=True)
def _wide_terminal():
    """Tables must not be wrapped in the middle of what a test looks for, nor in what fixtures of a module print."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_common.console, "width", 250)
        yield


@pytest.fixture(scope="session")
def run():
    """Runs a command that must end with `code`; returns what it prints, with `--json` on stdout alone."""

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout if "--json" in arguments else result.output

    return run


@pytest.fixture(scope="session")
def digits_run(run, tmp_path_factory):
    """A run folder of LeNet-5 on the digits, and what `--json` says of its training. Tests must not change it."""
    base = tmp_path_factory.getbasetemp()  # each worker's is in one of the whole run
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, said = base / "digits_run", base / "digits_run.json"
    with filelock.FileLock(base / "digits_run.lock"):
        if not said.exists():
            options = ("--data", "digits", "--size", 32, "--epochs", 4, "--to", folder, "--json")
            said.write_text(run("train", "lenet5_modern", *options))
    return folder, json.loads(said.read_text())


@pytest.fixture(scope="session")
def row():
    """The cells of the table row in `text` that begins with `name`; with `number`, of that one of several."""

    def row(text, name, number=None):
        lines = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        (line,) = lines if number is None else [lines[number]]
        return [cell.strip() for cell in line[1:-1].split("│")]

    return row
