"""The `keraslight` command: thin commands over the package's functions."""

import sys


def main() -> None:
    """Runs the command line. Errors raised by keraslight become one line on stderr and exit code 1."""
    try:
        from keraslight.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(f'The keraslight command needs {error.name}: pip install "keraslight[cli]".')
    from keraslight.errors import KeraslightError

    try:
        app()
    except KeraslightError as error:
        sys.exit(f"{type(error).__name__}: {error}")
