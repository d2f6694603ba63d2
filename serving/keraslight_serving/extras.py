"""Optional dependencies: whoever lacks one reads the command that installs it, at the first import that needs it."""

import importlib


class MissingDependencyError(ImportError):
    """An optional dependency is not installed. The text gives the command that installs it."""


def require(needed_by: str, extra: str, *modules: str, error: type[ImportError] = MissingDependencyError) -> None:
    """Imports modules of an extra.

    Args:
        needed_by: Public name that needs them.
        extra: Extra of the distribution that installs them.
        modules: Full names of the modules.
        error: Class of the error.

    Raises:
        MissingDependencyError: One is not installed, or `error`. A module that is installed and fails raises its own.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            raise error(
                f'{needed_by} needs {missing.name}, which is not installed: pip install "keraslight[{extra}]".',
                name=missing.name,
            ) from missing
