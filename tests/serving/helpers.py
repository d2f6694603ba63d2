"""What several test modules need: version folders, stubs, waiting, specs, states and errors."""

import contextlib
import shutil
import time
from pathlib import Path

import grpc
import pytest
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.wire import serving_pb2 as pb
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

AVAILABLE, END, UNLOADING = pb.ModelVersionStatus.AVAILABLE, pb.ModelVersionStatus.END, pb.ModelVersionStatus.UNLOADING


class Publisher:
    """`publisher(version)` puts a copy of a version folder into a base path, and returns the base path."""

    def __init__(self, base: Path, version_folder: Path) -> None:
        self._base, self._version_folder = base, version_folder
        base.mkdir()

    def __call__(
        self, version: int = 1, *, without: tuple[str, ...] = (), files: dict[str, bytes] | None = None
    ) -> Path:
        copy = self._base / f".copy-{version}"
        shutil.copytree(self._version_folder, copy)
        for name in without:
            (copy / name).unlink()
        for name, data in (files or {}).items():
            (copy / name).write_bytes(data)
        copy.rename(self._base / str(version))
        return self._base


class Stubs:
    """TensorFlow Serving's own clients."""

    def __init__(self, address: str, options: list[tuple[str, int]] | None = None) -> None:
        self.channel = grpc.insecure_channel(address, options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)


def until(condition, seconds=30):
    """Waits until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def spec(name="a", version=None, label=""):
    """The spec of a model and possibly a version or label."""
    return ModelSpec(name, version, label or None)


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
