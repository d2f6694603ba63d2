"""Optional dependencies of training, imported on first use."""

import importlib
from types import ModuleType

from keraslight.errors import MissingDependencyError


def require(module: str, package: str, extra: str = "train") -> ModuleType:
    """Imports a module of an extra; if it is missing, the error has the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"Training needs {package}: pip install 'keraslight[{extra}]'. Received: {error}."
        ) from error
