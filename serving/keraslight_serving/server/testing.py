"""Fakes of the server's seams, for tests that need no network.

    engine = FakeEngine(lambda inputs: {"double": 2 * inputs["x"]})
    servable = Servable({"serving_default": signature}, {"serving_default": engine})
    service = Service(FakeRepository({"digits": {1: servable}}))

`FakeEngine` stands in for `running.engines.Engine`, `FakeRepository` for `models.protocols.ServedModels`, and
`FakeServable` for `models.protocols.LoadedVersion`, where only loading and unloading matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.choice import chosen_statuses, chosen_version, not_served
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.running.signatures import Arrays
from keraslight_serving.wire import serving_pb2 as pb


class FakeEngine:
    """An engine that computes with a function from inputs to outputs, both by alias."""

    def __init__(self, function: Callable[[Arrays], dict[str, NDArray[Any]]], name: str = "fake") -> None:
        self._function = function
        self.name = name  # in metrics
        self.ran: list[str] = []  # names of the signatures that ran, in order
        self.closed = False

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> dict[str, NDArray[Any]]:
        call.check()
        self.ran.append(signature)
        found = self._function(inputs)
        return {alias: found[alias] for alias in outputs}

    def close(self) -> None:
        self.closed = True


class FakeServable:
    """A loaded version without a network. Raises INVALID_ARGUMENT if its folder contains a file named `broken`."""

    saved_model_loaded = False

    def __init__(self, folder: Path = Path("1")) -> None:
        if (folder / "broken").exists():
            raise invalid("broken on purpose")
        self.folder, self.closed = folder, False

    def close(self) -> None:
        self.closed = True


class FakeRepository:
    """Models, by name and version number, whose versions are all loaded and never change; labels by model name."""

    def __init__(
        self, models: Mapping[str, Mapping[int, Any]], labels: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self._models, self._labels = models, labels or {}
        self.reloads: list[Sequence[ModelConfig]] = []  # of all calls of `reload`, which change nothing else

    @contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, Any]]:
        versions = self._models.get(spec.name, {})
        number = chosen_version(spec, self._labels.get(spec.name, {}), versions)
        if number is None or number not in versions:
            raise not_served(spec.name, number)
        yield number, versions[number]

    def runs_in(self, spec: ModelSpec) -> str:
        versions = self._models.get(spec.name, {})
        number = spec.version or max(versions, default=0)
        return versions[number].runs_in(spec.signature) if isinstance(versions.get(number), Servable) else ""

    def status(self, spec: ModelSpec) -> list[pb.ModelVersionStatus]:
        return chosen_statuses(spec, self.statuses().get(spec.name, []))

    def statuses(self) -> dict[str, list[pb.ModelVersionStatus]]:
        status, available = pb.ModelVersionStatus, pb.ModelVersionStatus.AVAILABLE
        return {
            name: [status(version=n, state=available, status=pb.StatusProto()) for n in sorted(versions, reverse=True)]
            for name, versions in self._models.items()
        }

    def logging(self, name: str) -> None:
        """No requests are logged."""

    def reload(self, configs: Sequence[ModelConfig], call: Call) -> None:
        self.reloads.append(configs)
