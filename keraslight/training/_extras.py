"""The optional packages of training, imported only where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from keraslight.errors import MissingDependencyError


def require(module: str, package: str) -> ModuleType:
    """Imports a module of the `train` extra.

    Raises:
        MissingDependencyError: `package` is not installed; the text gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"Training needs {package}: pip install 'keraslight[train]'. Received: {error}."
        ) from error
