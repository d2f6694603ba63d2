"""For tests of programs that classify images: a server in this process, with a real servable.

    from keraslight_serving.testing import serve_in_process

    def test_the_shop_window():
        with serve_in_process("savedmodels/digits") as client:
            assert client.classify("seven.png")[0][0].label == "seven"

In pytest, `pytest_plugins = ["keraslight_serving.pytest_plugin"]` in the top-level conftest.py makes it a fixture.
Without a servable, use the fake channels of `keraslight_serving.client.testing`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer


@contextmanager
def serve_in_process(
    servable: str | os.PathLike[str],
    model: str = "default",
    *,
    server_options: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[ClassifierClient]:
    """Serves a servable on a free local port for the duration of the `with`.

    Args:
        servable: Folder that contains the version folders, or one version folder.
        model: Name to serve it under.
        server_options: Arguments of `ModelServer`.
        options: Arguments of `ClassifierClient`. The default `timeout` is 60 seconds here.

    Yields:
        A client for the server.

    Raises:
        StartError: No version can be loaded.
    """
    folder = Path(servable)
    base = folder.parent if (folder / "saved_model.pb").exists() else folder
    with (
        ModelServer(model, base, **(server_options or {})) as server,
        ClassifierClient(server.address, model, **{"timeout": 60.0, **options}) as client,
    ):
        yield client
