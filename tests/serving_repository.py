"""Repositories over servables that only pretend to be loaded, and what tests ask of them."""

import contextlib
import time
from pathlib import Path

import pytest
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.wire import serving_pb2 as pb

AVAILABLE, END, UNLOADING = pb.ModelVersionStatus.AVAILABLE, pb.ModelVersionStatus.END, pb.ModelVersionStatus.UNLOADING


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def spec(name="a", version=None, label=""):
    return ModelSpec(name, version, label or None)


def refused(call, *args):
    def enter():
        result = call(*args)
        if isinstance(result, contextlib.AbstractContextManager):
            result.__enter__()

    with pytest.raises(StatusError) as caught:
        enter()
    return caught.value.code.name, caught.value.text


class FakeServable:
    """Loads unless its folder holds a file `broken`."""

    saved_model_loaded = False

    def __init__(self, folder: Path) -> None:
        if (folder / "broken").exists():
            raise invalid("broken on purpose")
        self.folder, self.closed = folder, False

    def close(self):
        self.closed = True


def states(repository, name="a"):
    """{} before any version was seen."""
    with contextlib.suppress(StatusError):
        return {status.version: status.state for status in repository.status(spec(name))}
    return {}


def served(repository, *args, **options):
    with repository.acquire(spec(*args, **options)) as (number, servable):
        assert servable.folder.name == str(number)
        return number
