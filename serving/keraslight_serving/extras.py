"""Optional dependencies: the first import that needs a missing one raises an error with the pip command for it."""

import importlib
import importlib.util
from collections.abc import Sequence


class MissingDependencyError(ImportError):
    """An optional dependency is not installed. The text gives the command that installs it."""


def require(
    needed_by: str,
    extra: str,
    *modules: str,
    later: Sequence[str] = (),
    error: type[ImportError] = MissingDependencyError,
) -> None:
    """Imports modules of an extra.

    Args:
        needed_by: Public name that needs them.
        extra: Extra of the distribution that installs them.
        modules: Full names of the modules.
        later: Packages that must be installed, too, but are imported only where they are used.
        error: Class of the error.

    Raises:
        MissingDependencyError: One is not installed, or `error`. A module that is installed and fails raises its own.
    """

    def failure(name: str | None) -> ImportError:
        text = f'{needed_by} needs {name}, which is not installed: pip install "keraslight[{extra}]".'
        return error(text, name=name)

    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            raise failure(missing.name) from missing
    for package in later:
        if importlib.util.find_spec(package) is None:
            raise failure(package)
