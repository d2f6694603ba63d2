"""The `keraslight` command: thin commands over the package's functions."""

import sys


def main() -> None:
    """Runs the command line. Errors raised by keraslight become one line on stderr and exit code 1."""
    try:
        from keraslight.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "keraslight").startswith("keraslight"):
            raise
        sys.exit(f'The keraslight command needs {str(error.name).partition(".")[0]}: pip install "keraslight[cli]".')
    from keraslight_serving.extras import MissingDependencyError

    from keraslight.errors import KeraslightError

    try:
        app.main(sys.argv[1:])
    except (KeraslightError, MissingDependencyError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except ModuleNotFoundError as error:  # a library that no door requires, such as NumPy for a load test
        if (error.name or "keraslight").startswith("keraslight"):
            raise
        sys.exit(f'This command needs {error.name}, which is not installed: pip install "keraslight[all]".')
