"""A worker's repository: it serves the versions that the supervisor has it load and show."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.choice import chosen_statuses, chosen_version, not_served
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import serving_pb2 as pb


@dataclass(frozen=True)
class ModelView:
    """What all workers are to answer of one model.

    Attributes:
        statuses: serialized ModelVersionStatus messages, newest first.
        keys: which servable serves a version.
        labels: names of versions.
        logging: a serialized LoggingConfig; None: requests are not logged.
        wanted: whether the configuration still names the model.
    """

    statuses: tuple[bytes, ...] = ()
    keys: dict[int, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    logging: bytes | None = None
    wanted: bool = True

    def read_statuses(self) -> list[pb.ModelVersionStatus]:
        return [pb.ModelVersionStatus.FromString(status) for status in self.statuses]


@dataclass
class _Loaded:
    servable: Servable
    requests: int = 0  # in flight


class Follower:
    """Servables under keys, and the view of the models that says which of them answers what.

    Args:
        how: how servables are loaded, and who wants to know of models that are served.

    Attributes:
        reload: what a reload of the configuration is handed to.
    """

    def __init__(self, how: LoadPolicy) -> None:
        self._how = how
        self.reload: Callable[[Sequence[ModelConfig], Call], None] | None = None
        self._changed = threading.Condition()
        self._loaded: dict[int, _Loaded] = {}
        self._views: dict[str, ModelView] = {}
        self._shown = 0  # the number of these

    def start(self) -> None:
        """There is nothing to start: the supervisor has done it."""

    def load(self, key: int, *args: object) -> None:
        """Loads a servable. Raises whatever that raises."""
        loaded = _Loaded(self._how.load(*args))
        with self._changed:
            self._loaded[key] = loaded

    def show(self, number: int, views: dict[str, ModelView]) -> None:
        """Answers by these views from now on, unless by some with a higher number: a later call may come first."""
        with self._changed:
            if number <= self._shown:
                return
            self._shown, self._views = number, views
            for name, view in views.items():
                self._how.on_serving(name, bool(view.keys))

    def unload(self, key: int) -> None:
        """Unloads a servable, when its last request is done."""
        with self._changed:
            loaded = self._loaded.pop(key)
            self._changed.wait_for(lambda: loaded.requests == 0)
        loaded.servable.close()

    def saved_model_loaded(self, key: int) -> bool:
        """Whether a servable has its SavedModel in use."""
        return self._loaded[key].servable.saved_model_loaded

    def close(self) -> None:
        """Unloads all."""
        with self._changed:
            self._views = {}
        for key in list(self._loaded):
            self.unload(key)

    @contextlib.contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, Servable]]:
        """As `Repository.acquire`."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        with self._changed:
            view = self._views.get(spec.name, ModelView())
            number = chosen_version(spec, view.labels, view.keys)
            loaded = self._loaded.get(view.keys.get(number))
            if loaded is None:
                raise not_served(spec.name, number)
            loaded.requests += 1
        try:
            yield number, loaded.servable
        finally:
            with self._changed:
                loaded.requests -= 1
                self._changed.notify_all()

    def logging(self, name: str) -> pb.LoggingConfig | None:
        """As `Repository.logging`."""
        config = self._views.get(name, ModelView()).logging
        return None if config is None else pb.LoggingConfig.FromString(config)

    def statuses(self) -> dict[str, list[pb.ModelVersionStatus]]:
        """As `Repository.statuses`."""
        return {name: view.read_statuses() for name, view in self._views.items() if view.wanted}

    def status(self, spec: ModelSpec) -> list[pb.ModelVersionStatus]:
        """As `Repository.status`."""
        return chosen_statuses(spec, self._views.get(spec.name, ModelView()).read_statuses())
