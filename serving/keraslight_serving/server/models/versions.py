"""The versions of one model: which ones serve, which are on their way out, what became of the others, and labels."""

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.choice import chosen_version, not_served
from keraslight_serving.server.models.folders import Files
from keraslight_serving.server.models.protocols import V
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

States = pb.ModelVersionStatus


@dataclass
class Failure:
    """Why a version could not be loaded."""

    error: StatusError
    files: Files  # of its folder at that time
    attempts: int  # with these files
    retry_at: float  # time of the next attempt, by `time.monotonic()`


@dataclass(eq=False)
class _Loaded(Generic[V]):
    number: int
    base_path: Path  # in which it was found
    servable: V
    files: Files  # from which it was loaded
    requests: int = 0  # in flight
    retired: bool = False  # takes no new requests; whoever brings `requests` to 0 unloads it


class Versions(Generic[V]):
    """The versions of a model, shared by threads.

    What serves changes at once; what no longer serves is closed when its last request is done. `changed` guards
    everything, and is notified when a version is unloaded. It may be held around several calls, so that nobody sees a
    state between them.
    """

    def __init__(self, model: str, on_serving: Callable[[str, bool], None]) -> None:
        self._model, self._on_serving = model, on_serving
        self.changed = threading.Condition()
        self._states: dict[int, States.State] = {}  # of all versions seen so far
        self._failures: dict[int, Failure] = {}
        self._loaded: dict[int, _Loaded[V]] = {}
        self._leaving: list[_Loaded[V]] = []  # until they are closed
        self._labels: dict[str, int] = {}

    # ---------------------------------------------------------------- requests

    @contextlib.contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[tuple[int, V]]:
        """As `ServedModels.acquire`."""
        with self.changed:
            number = chosen_version(spec, self._labels, self._loaded)
            loaded = None if number is None else self._loaded.get(number)
            if loaded is None:
                raise not_served(self._model, number)
            loaded.requests += 1
        try:
            yield loaded.number, loaded.servable
        finally:
            with self.changed:
                loaded.requests -= 1
                if loaded.retired and loaded.requests == 0:
                    self._unload_soon(loaded)

    def peek(self, spec: ModelSpec) -> V | None:
        """The version that `acquire` would find, without keeping it; None if there is none."""
        with self.changed, contextlib.suppress(StatusError):
            number = chosen_version(spec, self._labels, self._loaded)
            loaded = None if number is None else self._loaded.get(number)
            return None if loaded is None else loaded.servable
        return None

    def view(self) -> tuple[list[pb.ModelVersionStatus], dict[int, V], dict[str, int]]:
        """The states of all versions seen so far, newest first; the serving versions; the labels: all at one moment."""
        with self.changed:
            statuses = [self._status(number) for number in sorted(self._states, reverse=True)]
            return statuses, {n: loaded.servable for n, loaded in self._loaded.items()}, dict(self._labels)

    @property
    def statuses(self) -> list[pb.ModelVersionStatus]:
        return self.view()[0]

    @property
    def are_serving(self) -> bool:
        return bool(self._loaded)

    @property
    def use_saved_models(self) -> bool:
        """Whether a serving version has its SavedModel in use."""
        with self.changed:
            loaded = list(self._loaded.values())
        return any(version.servable.saved_model_loaded for version in loaded)

    @property
    def errors(self) -> str:
        """Why versions could not be loaded, newest first."""
        with self.changed:
            return "; ".join(f"version {n}: {f.error}" for n, f in sorted(self._failures.items(), reverse=True))

    def _status(self, number: int) -> pb.ModelVersionStatus:
        status = pb.ModelVersionStatus(version=number, state=self._states[number])
        failure = self._failures.get(number)
        status.status.error_code = failure.error.code.value[0] if failure else 0
        status.status.error_message = failure.error.text if failure else ""
        return status

    # ---------------------------------------------------------------- labels

    @property
    def labels(self) -> dict[str, int]:
        with self.changed:
            return dict(self._labels)

    def assign_labels(self, labels: Mapping[str, int]) -> None:
        """Sets labels now, whether or not their versions are loaded."""
        with self.changed:
            self._labels.update(labels)

    def move_labels(self, wanted: Mapping[str, int]) -> None:
        """Moves each label whose version is loaded, sets new labels at once, and drops all that aren't wanted."""
        with self.changed:
            for label in self._labels.keys() - wanted.keys():
                del self._labels[label]
            for label, number in wanted.items():
                if number in self._loaded or label not in self._labels:
                    self._labels[label] = number

    # ---------------------------------------------------------------- loading

    def holds(self, number: int, base_path: Path | None = None) -> bool:
        """Whether a version serves and comes from this base path; the same number in another folder doesn't count."""
        with self.changed:
            loaded = self._loaded.get(number)
            if loaded is None or base_path not in (None, loaded.base_path):
                return False
            if base_path is not None:
                self._failures.pop(number, None)  # of attempts from another folder meanwhile
            return True

    def files_of(self, number: int | None) -> Files | None:
        """The files from which a version was loaded, by default the highest; None if it isn't loaded."""
        with self.changed:
            loaded = self._loaded.get(max(self._loaded, default=0) if number is None else number)
            return None if loaded is None else loaded.files

    def loads(self, number: int) -> None:
        """Notes that a version is being loaded; the same number from another folder serves until then."""
        with self.changed:
            if number not in self._loaded:
                self._states[number] = States.LOADING
                self._failures.pop(number, None)

    def failed(self, number: int, failure: Failure) -> None:
        """Notes that a version could not be loaded."""
        with self.changed:
            if number not in self._loaded:
                self._states[number] = States.END
            self._failures[number] = failure

    def failure_of(self, number: int) -> Failure | None:
        with self.changed:
            return self._failures.get(number)

    def forget_failures_of_all_but(self, numbers: Iterable[int]) -> None:
        """Grants versions that are gone another attempt if they come back; until then their errors stay visible."""
        with self.changed:
            for number in self._failures.keys() - set(numbers):
                self._failures[number].files, self._failures[number].retry_at = frozenset(), math.inf

    def serve(self, number: int, base_path: Path, servable: V, files: Files = frozenset()) -> None:
        """Directs new requests to a version, and retires the one with the same number."""
        with self.changed:
            was_serving, replaced = bool(self._loaded), self._loaded.get(number)
            self._loaded[number] = _Loaded(number, base_path, servable, files)
            self._states[number] = States.AVAILABLE
            self._failures.pop(number, None)
            if not was_serving:
                self._on_serving(self._model, True)
            if replaced is not None:
                self._leave(replaced)

    # ---------------------------------------------------------------- unloading

    def retire_all_but(self, keep: Iterable[int]) -> None:
        """Directs no more requests to the other versions, and unloads each when its last request is done."""
        with self.changed:
            for number in sorted(self._loaded.keys() - set(keep)):
                self._states[number] = States.UNLOADING
                self._failures.pop(number, None)
                self._leave(self._loaded.pop(number))
                if not self._loaded:
                    self._on_serving(self._model, False)

    def close(self) -> None:
        """Unloads every version when its last request is done, and returns then."""
        self.retire_all_but(())
        with self.changed:
            self.changed.wait_for(lambda: not self._leaving)

    def _leave(self, loaded: _Loaded[V]) -> None:
        loaded.retired = True
        self._leaving.append(loaded)
        if not loaded.requests:
            self._unload_soon(loaded)

    def _unload_soon(self, loaded: _Loaded[V]) -> None:
        # Neither the caller of the last request nor the next version should wait for this: in workers, requests may
        # still be running. The thread must not be a daemon, which it would inherit from the thread that starts it: a
        # daemon that still frees a network's memory when the process exits aborts it.
        threading.Thread(target=self._unload, args=(loaded,), name=f"unload {self._model}", daemon=False).start()

    def _unload(self, loaded: _Loaded[V]) -> None:
        number = loaded.number
        try:
            loaded.servable.close()
            logger.info("Unloaded %s version %d", self._model, number)  # before `close` returns and logging may end
        finally:
            with self.changed:
                self._leaving.remove(loaded)
                # A version that came back meanwhile has a state of its own, and may be leaving again.
                if self._states[number] == States.UNLOADING and number not in {v.number for v in self._leaving}:
                    self._states[number] = States.END
                self.changed.notify_all()
