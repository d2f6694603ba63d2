"""The commands as a user types them."""

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
def row():
    """The cells of the table row in `text` that begins with `name`; with `number`, of that one of several."""

    def row(text, name, number=None):
        lines = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        (line,) = lines if number is None else [lines[number]]
        return [cell.strip() for cell in line[1:-1].split("│")]

    return row
