"""A worker's repository: it serves the versions that the supervisor has it load and show."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from keraslight_serving.server._errors import invalid, not_found
from keraslight_serving.server._servable import Servable
from keraslight_serving.wire import serving_pb2 as pb


@dataclass(frozen=True)
class ModelView:
    """What all workers are to answer of one model.

    Attributes:
        statuses: serialized ModelVersionStatus messages, newest first.
        keys: which servable serves a version.
        latest: the version for requests that name none; None: none is served.
        labels: names of versions.
    """

    statuses: tuple[bytes, ...] = ()
    keys: dict[int, int] = field(default_factory=dict)
    latest: int | None = None
    labels: dict[str, int] = field(default_factory=dict)


@dataclass
class _Loaded:
    servable: Servable
    requests: int = 0  # in flight


class Follower:
    """Servables under keys, and the view of the models that says which of them answers what.

    Args:
        load: makes a Servable.
        on_serving: called with whether a version is served, each time that the view changes.
    """

    def __init__(self, load: Callable[..., Servable], on_serving: Callable[[bool], None]) -> None:
        self._load = load
        self._on_serving = on_serving
        self._changed = threading.Condition()
        self._loaded: dict[int, _Loaded] = {}
        self._views: dict[str, ModelView] = {}

    def start(self) -> None:
        """There is nothing to start: the supervisor has done it."""

    def load(self, key: int, *args: object) -> None:
        """Loads a servable. Raises whatever that raises."""
        loaded = _Loaded(self._load(*args))
        with self._changed:
            self._loaded[key] = loaded

    def show(self, views: dict[str, ModelView]) -> None:
        """Answers by these views from now on."""
        with self._changed:
            self._views = views
            for view in views.values():
                self._on_serving(view.latest is not None)

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
    def acquire(self, spec: pb.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """As `Repository.acquire`."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        with self._changed:
            view = self._views.get(spec.name, ModelView())
            wanted = view.latest
            if choice == "version":
                wanted = spec.version.value
            elif choice == "version_label":
                if spec.version_label not in view.labels:
                    raise invalid(f"Unrecognized servable version label: {spec.version_label}")
                wanted = view.labels[spec.version_label]
            if wanted not in view.keys:
                which = f"Specific({spec.name}, {wanted})" if choice else f"Latest({spec.name})"
                raise not_found(f"Servable not found for request: {which}")
            loaded = self._loaded[view.keys[wanted]]
            loaded.requests += 1
        try:
            yield wanted, loaded.servable
        finally:
            with self._changed:
                loaded.requests -= 1
                self._changed.notify_all()

    def status(self, spec: pb.ModelSpec) -> list[pb.ModelVersionStatus]:
        """As `Repository.status`."""
        statuses = [pb.ModelVersionStatus.FromString(one) for one in self._views.get(spec.name, ModelView()).statuses]
        if spec.WhichOneof("version_choice") == "version":
            number = spec.version.value
            statuses = [status for status in statuses if status.version == number]
            if not statuses:
                raise not_found(f"Could not find version {number} of model {spec.name}")
        elif not statuses:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return statuses
