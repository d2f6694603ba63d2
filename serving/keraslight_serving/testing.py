"""For tests of programs that classify: a server in this process, over a real servable.

    from keraslight_serving.testing import serve_in_process

    def test_the_shop_window():
        with serve_in_process("savedmodels/digits") as client:
            assert client.classify("seven.png")[0][0].label == "seven"

In a pytest suite, `pytest_plugins = ["keraslight_serving.pytest_plugin"]` in the top conftest.py makes it a fixture.
Without a servable, `keraslight_serving.client.testing` has channels that answer what they are told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer


@contextmanager
def serve_in_process(
    servable: str | os.PathLike, model: str = "default", *, server_options: dict[str, Any] | None = None, **options: Any
) -> Iterator[ClassifierClient]:
    """Serves a servable on a free port of this machine while the `with` lasts, and gives a client for it.

    Args:
        servable: the folder that holds the version folders, or one version folder.
        model: the name to serve it under.
        server_options: arguments of `ModelServer`.
        options: arguments of `ClassifierClient`; `timeout` is 60 seconds here.

    Raises:
        StartError: there is no version that loads.
    """
    folder = Path(servable)
    base = folder.parent if (folder / "saved_model.pb").exists() else folder
    with (
        ModelServer(model, base, **(server_options or {})) as server,
        ClassifierClient(server.address, model, **{"timeout": 60.0, **options}) as client,
    ):
        yield client
