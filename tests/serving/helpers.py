"""What tests of repositories need: waiting, specs, states and errors."""

import contextlib
import time

import pytest
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.wire import serving_pb2 as pb

AVAILABLE, END, UNLOADING = pb.ModelVersionStatus.AVAILABLE, pb.ModelVersionStatus.END, pb.ModelVersionStatus.UNLOADING


def until(condition, seconds=30):
    """Waits until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def spec(name="a", version=None, label=""):
    """The spec of a model and possibly a version or label."""
    made = pb.ModelSpec(name=name, version_label=label) if label else pb.ModelSpec(name=name)
    if version is not None:
        made.version.value = version
    return made


def refused(call, *args):
    """The code and the text of the StatusError that a call or context manager raises."""

    def enter():
        result = call(*args)
        if isinstance(result, contextlib.AbstractContextManager):
            result.__enter__()

    with pytest.raises(StatusError) as caught:
        enter()
    return caught.value.code.name, caught.value.text


def states(repository, name="a"):
    """The state of each version; {} before any version was seen."""
    with contextlib.suppress(StatusError):
        return {status.version: status.state for status in repository.status(spec(name))}
    return {}


def served(repository, *args, **options):
    """The version that serves a spec."""
    with repository.acquire(spec(*args, **options)) as (number, servable):
        assert servable.folder.name == str(number)
        return number
