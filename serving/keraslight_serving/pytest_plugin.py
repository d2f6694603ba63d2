"""pytest fixtures. To enable them: `pytest_plugins = ["keraslight_serving.pytest_plugin"]` in the top conftest.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from keraslight_serving.client import ClassifierClient


@pytest.fixture
def serve_in_process() -> Iterator[Callable[..., ClassifierClient]]:
    """`serve_in_process(servable, model="default", **options)` returns a client; the server stops after the test."""
    from keraslight_serving import testing  # here, so that only users of the fixture need the server

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(testing.serve_in_process(*args, **options))
