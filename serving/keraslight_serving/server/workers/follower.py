"""A worker's repository: it serves the versions that the supervisor tells it to load and show."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.choice import chosen_statuses, chosen_version, not_served
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import serving_pb2 as pb


@dataclass(frozen=True)
class ModelView:
    """What all workers answer for one model."""

    statuses: tuple[bytes, ...] = ()  # serialized ModelVersionStatus messages, newest first
    keys: dict[int, int] = field(default_factory=dict)  # of the servables, by version
    labels: dict[str, int] = field(default_factory=dict)  # versions, by label
    logging: bytes | None = None  # serialized LoggingConfig; None if requests are not logged
    wanted: bool = True  # whether the configuration still names the model

    def read_statuses(self) -> list[pb.ModelVersionStatus]:
        return [pb.ModelVersionStatus.FromString(status) for status in self.statuses]


@dataclass
class _Loaded:
    servable: Servable
    requests: int = 0  # in flight


class Follower:
    """Servables by key, and the views of the models that tell which of them serves which version (`ServedModels`).

    `how` tells how servables are loaded, and `reload` reloads the configuration in all workers.
    """

    def __init__(self, how: LoadPolicy[Servable], reload: Callable[[Sequence[ModelConfig], Call], None]) -> None:
        self._how = how
        self.reload = reload
        self._changed = threading.Condition()
        self._loaded: dict[int, _Loaded] = {}
        self._views: dict[str, ModelView] = {}
        self._shown = 0  # number of the views

    def start(self) -> None:
        """Does nothing: the supervisor loads the models."""

    def load(self, key: int, model: str, folder: Path, eager: bool) -> None:
        """Loads a servable. Raises what `LoadPolicy.load` raises."""
        loaded = _Loaded(self._how.load(model, folder, eager))
        with self._changed:
            self._loaded[key] = loaded

    def show(self, number: int, views: dict[str, ModelView]) -> None:
        """Serves these views from now on, unless a call with a higher number came first."""
        with self._changed:
            if number <= self._shown:
                return
            self._shown, self._views = number, views
            for name, view in views.items():
                self._how.on_serving(name, bool(view.keys))

    def unload(self, key: int) -> None:
        """Unloads a servable when its last request is done, and returns then."""
        with self._changed:
            loaded = self._loaded.pop(key)
            self._changed.wait_for(lambda: loaded.requests == 0)
        loaded.servable.close()

    def saved_model_loaded(self, key: int) -> bool:
        return self._loaded[key].servable.saved_model_loaded

    def close(self) -> None:
        with self._changed:
            self._views = {}
        for key in list(self._loaded):
            self.unload(key)

    @contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, Servable]]:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        with self._changed:
            view = self._views.get(spec.name, ModelView())
            number = chosen_version(spec, view.labels, view.keys)
            loaded = None if number is None else self._loaded.get(view.keys.get(number, -1))
            if number is None or loaded is None:
                raise not_served(spec.name, number)
            loaded.requests += 1
        try:
            yield number, loaded.servable
        finally:
            with self._changed:
                loaded.requests -= 1
                self._changed.notify_all()

    def runs_in(self, spec: ModelSpec) -> str:
        with self._changed, suppress(StatusError):
            view = self._views.get(spec.name, ModelView())
            number = chosen_version(spec, view.labels, view.keys)
            loaded = None if number is None else self._loaded.get(view.keys.get(number, -1))
            return "" if loaded is None else loaded.servable.runs_in(spec.signature)
        return ""

    def logging(self, name: str) -> pb.LoggingConfig | None:
        config = self._views.get(name, ModelView()).logging
        return None if config is None else pb.LoggingConfig.FromString(config)

    def statuses(self) -> dict[str, list[pb.ModelVersionStatus]]:
        return {name: view.read_statuses() for name, view in self._views.items() if view.wanted}

    def status(self, spec: ModelSpec) -> list[pb.ModelVersionStatus]:
        return chosen_statuses(spec, self._views.get(spec.name, ModelView()).read_statuses())
