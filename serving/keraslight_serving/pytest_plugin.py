"""pytest fixtures. `pytest_plugins = ["keraslight_serving.pytest_plugin"]` in the top conftest.py turns them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from keraslight_serving.client import ClassifierClient


@pytest.fixture
def serve_in_process() -> Iterator[Callable[..., ClassifierClient]]:
    """`serve_in_process(servable, model="default", **options)`: a client for it; the servers end with the test."""
    from keraslight_serving import testing  # here: the server is for those who use the fixture

    with ExitStack() as stack:

        def serve(servable: Any, model: str = "default", **options: Any) -> ClassifierClient:
            return stack.enter_context(testing.serve_in_process(servable, model, **options))

        yield serve
