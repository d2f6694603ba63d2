"""One model: the versions in its folder, which of them are loaded, and the thread that keeps the two together."""

import contextlib
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from keraslight_serving.server._choice import chosen_version, not_served
from keraslight_serving.server._config import ModelConfig
from keraslight_serving.server._errors import StatusError
from keraslight_serving.server._servable import Servable
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")

States = pb.ModelVersionStatus


@dataclass(frozen=True)
class LoadPolicy:
    """How versions are looked for and loaded.

    Attributes:
        load: makes a Servable of a model's name and a version folder; raises StatusError. Its third argument asks it to
            load the SavedModel, too.
        poll_seconds: between two looks at the folder; 0 or less: look once.
        retries: how often a version that failed is tried again while its files stay the same.
        retry_seconds: until the first of these; each next one waits twice as long.
        on_serving: called with a model's name and whether a version of it is served, each time that changes.
    """

    load: Callable[[str, Path, bool], Servable]
    poll_seconds: float = 1
    retries: int = 5
    retry_seconds: float = 60
    on_serving: Callable[[str, bool], None] = lambda name, serving: None


@dataclass(eq=False)
class _Loaded:
    number: int
    base_path: Path  # that it was found in
    servable: Servable
    requests: int = 0  # in flight
    retired: bool = False  # takes no new ones; whoever brings `requests` to 0 unloads it


@dataclass
class _Version:
    """What is known of a version, now or once."""

    state: int
    error: StatusError | None = None
    failed_files: frozenset = frozenset()  # of the folder, when it failed to load
    attempts: int = 0
    retry_at: float = field(default=math.inf)  # time.monotonic()


class Model:
    """Follows a model's folder and serves the versions that its policy wants.

    A wanted version is loaded beside those that serve; then new requests go to it, and one that is no longer wanted is
    unloaded when its last request is done. A version that can't be loaded is passed over (state END, with its error),
    the next lower one takes its place, and it is tried again when its files change, so that one that is still being
    copied comes up once it is complete, or after a while. Nothing that serves is given up for one that fails. All of
    this happens in a thread of the model's own: no model ever waits for another.

    As in TensorFlow Serving, a base path without any wanted version unloads what is loaded, a base path that can't be
    read does not, and names that are no whole number are ignored.

    Departures, all so that a restart finds what ran before it: where the newest version is broken, the next one is
    served; a broken version is END while it waits for its next try, not LOADING; and labels move once their version is
    loaded, where TensorFlow Serving refuses a configuration that names one that isn't.
    """

    def __init__(self, config: ModelConfig, how: LoadPolicy) -> None:
        self.name = config.name
        self._how = how
        self._config: ModelConfig | None = config  # None: the model is no longer wanted
        self._changed = threading.Condition()  # guards all below
        self._versions: dict[int, _Version] = {}
        self._loaded: dict[int, _Loaded] = {}
        self._leaving: list[_Loaded] = []  # until their last request is done and they are closed
        self._labels: dict[str, int] = {}
        self._configured = 0  # how many configurations came after the first
        self._followed = -1  # which of them was followed last, to its end or its first error
        self._found = False  # whether there were versions that it wants
        self._retry_at = math.inf  # time.monotonic() of the next try of one that failed
        self._problem: str | None = "its folder was not looked at yet"
        self._warned: set[Path] = set()
        self._stopping = False
        self._look_now = False
        self._thread: threading.Thread | None = None  # while there is something to follow

    def start(self) -> None:
        with self._changed:
            self._start()

    def close(self) -> None:
        """Unloads everything, each version when its last request is done, and returns then."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._changed:
            unused = self._retire(self._loaded)
        self._unload(unused)
        with self._changed:
            self._changed.wait_for(lambda: not self._leaving)

    def configure(self, config: ModelConfig | None) -> int:
        """Takes another configuration, or None for no version at all, and follows it at once.

        With None its thread ends when all is unloaded or left to its last request; another configuration starts it
        again.

        Returns:
            the number of this configuration, for `has_followed` and `settled`.
        """
        with self._changed:
            self._config = config
            self._configured += 1
            self._look_now = True
            self._changed.notify_all()
            if config is not None and self._thread is None:
                self._start()
            return self._configured

    def assign_labels(self, labels: Mapping[str, int]) -> None:
        """Sets labels now, whether or not their versions are loaded."""
        with self._changed:
            self._labels.update(labels)

    @property
    def labels(self) -> dict[str, int]:
        with self._changed:
            return dict(self._labels)

    def is_available(self, number: int) -> bool:
        with self._changed:
            return number in self._loaded

    @property
    def logging(self) -> pb.LoggingConfig | None:
        """Whether and where requests are logged."""
        config = self._config
        return config.logging if config is not None else None

    @property
    def base_path(self) -> Path | None:
        """The folder that it follows; None where it isn't wanted."""
        config = self._config
        return config.base_path if config is not None else None

    @property
    def is_wanted(self) -> bool:
        return self._config is not None

    @property
    def is_serving(self) -> bool:
        return bool(self._loaded)

    @property
    def problem(self) -> str:
        """Why it serves nothing, or has not served anything yet."""
        with self._changed:
            if self._config is None:
                return f"Model {self.name!r} must stay configured until it serves. Received: a configuration without it"
            if self._problem is not None:
                return self._problem
            failed = [f"version {n}: {v.error}" for n, v in sorted(self._versions.items(), reverse=True) if v.error]
            return f"Model {self.name!r} must have a version that loads. Received: {'; '.join(failed)}"

    def wait_for_look(self) -> None:
        """Until the folder was read and what it holds was tried (or could not be read)."""
        with self._changed:
            self._changed.wait_for(lambda: self._followed >= 0 or self._stopping)

    def has_followed(self, number: int) -> bool:
        """Whether its folder was read as this configuration (0 is the first) or a later one says."""
        with self._changed:
            return self._followed >= number

    def settled(self, number: int) -> bool:
        """Whether it has followed this configuration or a later one, and found versions or isn't wanted any more."""
        with self._changed:
            return self._followed >= number and (self._found or self._config is None)

    # ---------------------------------------------------------------- requests

    @contextlib.contextmanager
    def acquire(self, spec: pb.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The version that a request asks for; it stays loaded inside the `with`.

        Raises:
            StatusError: no such label, or this version isn't loaded.
        """
        with self._changed:
            number = chosen_version(spec, self._labels, self._loaded)
            loaded = self._loaded.get(number)
            if loaded is None:
                raise not_served(self.name, number)
            loaded.requests += 1
        try:
            yield loaded.number, loaded.servable
        finally:
            with self._changed:
                loaded.requests -= 1
                last = loaded.retired and loaded.requests == 0
            if last:
                # Not in this thread: its caller should not wait for it.
                threading.Thread(target=self._unload, args=([loaded],), name=f"unload {self.name}", daemon=True).start()

    @property
    def statuses(self) -> list[pb.ModelVersionStatus]:
        """The states of all versions that were ever seen, newest first."""
        return self.view()[0]

    def view(self) -> tuple[list[pb.ModelVersionStatus], dict[int, Servable], dict[str, int]]:
        """The statuses, the servables of the versions that take requests, and the labels, all of one moment."""
        with self._changed:
            versions = dict(self._versions)
            servables = {number: loaded.servable for number, loaded in self._loaded.items()}
            labels = dict(self._labels)
        statuses = [_version_status(number, versions[number]) for number in sorted(versions, reverse=True)]
        return statuses, servables, labels

    # ---------------------------------------------------------------- the thread

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._follow_until_stopped, name=f"model {self.name}", daemon=True)
        self._thread.start()

    def _follow_until_stopped(self) -> None:
        while True:
            with self._changed:
                config, number, self._look_now = self._config, self._configured, False
            problem, found = None, False
            try:
                found = self._follow(config)
            except OSError as error:
                # `.problem` is read at the start; later it is a warning, once for each kind of trouble.
                problem = f"`model_base_path` must be an existing folder. Received: {config.base_path}"
                if config.base_path.exists():
                    problem = f"`model_base_path` must be a readable folder. Received: {config.base_path}, {error}"
                if problem != self._problem:
                    logger.warning("Can't read the folder of %s, keeping what is loaded: %s", self.name, error)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                logger.exception("Following %s failed; trying again", self.name)
            with self._changed:
                if problem is None and config is not None and not found:
                    problem = (
                        "`model_base_path` must hold a version folder, named as a whole number, such as 1/. "
                        f"Received: {config.base_path}, without one that is wanted"
                    )
                self._problem, self._found = problem, found
                self._followed = number
                self._changed.notify_all()
                if self._config is not None or self._loaded:
                    self._changed.wait_for(lambda: self._stopping or self._look_now, self._seconds_to_next_look())
                elif not self._look_now:
                    self._thread = None
                    return
                if self._stopping:
                    return

    def _seconds_to_next_look(self) -> float | None:
        seconds = max(self._retry_at - time.monotonic(), 0.01)
        if self._how.poll_seconds > 0:
            seconds = min(seconds, self._how.poll_seconds)
        return None if seconds == math.inf else seconds

    def _follow(self, config: ModelConfig | None) -> bool:
        """Loads what is wanted, then gives up what is not. Returns whether there is something to want."""
        folders = self._find_versions(config.base_path) if config is not None else {}
        candidates = config.policy.candidates(folders) if config is not None else []
        for number in self._versions.keys() - folders.keys():
            # Gone: if it comes back, it gets another try.
            self._versions[number].failed_files, self._versions[number].retry_at = frozenset(), math.inf
        keep: list[int] = []
        self._retry_at = math.inf
        for number in candidates:
            if config.policy.most is not None and len(keep) == config.policy.most:
                break
            if self._stopping:
                return True
            if self._holds(number, config.base_path) or self._try_to_load(number, folders[number], config.base_path):
                keep.append(number)
            else:
                self._retry_at = min(self._retry_at, self._versions[number].retry_at)
        unused = []
        with self._changed:
            # What a configuration that came meanwhile wants is seen when it is followed, which is next.
            if self._config == config:
                self._move_labels(config.labels if config is not None else {})
                if keep or not candidates:
                    if self._loaded and not candidates and config is not None:
                        logger.warning(
                            "No wanted versions of %s found under %s: unloading", self.name, config.base_path
                        )
                    unused = self._retire(self._loaded.keys() - set(keep))
        self._unload(unused)
        return bool(candidates)

    def _holds(self, number: int, base_path: Path) -> bool:
        """Whether a version from this folder serves; one of the same number from another folder is another version."""
        with self._changed:
            loaded = self._loaded.get(number)
            if loaded is None or loaded.base_path != base_path:
                return False
            self._versions[number] = _Version(States.AVAILABLE)  # whatever was tried meanwhile from elsewhere
            return True

    def _find_versions(self, base_path: Path) -> dict[int, Path]:
        """The folder of each version, by number."""
        found: dict[int, Path] = {}
        for folder in sorted(base_path.iterdir()):
            if not re.fullmatch("[0-9]+", folder.name) or int(folder.name) >= 2**63 or not folder.is_dir():
                continue
            number = int(folder.name)
            if number in found:
                logger.warning("Two folders of version %d: %s is used, not %s", number, folder, found[number])
            found[number] = folder
        return found

    def _try_to_load(self, number: int, folder: Path, base_path: Path) -> bool:
        files, known = _files(folder), self._versions.get(number)
        attempts = 0
        if known is not None and known.error is not None and known.failed_files == files:
            if time.monotonic() < known.retry_at:
                return False
            attempts = known.attempts
        logger.info("Loading %s version %d from %s", self.name, number, folder)
        # One of the same number from another folder serves on until this one does.
        serves = number in self._loaded
        if not serves:
            self._set(number, _Version(States.LOADING))
        # Where TensorFlow is in use, the next version must not make its first caller wait for it, nor fail only then.
        eager = any(loaded.servable.saved_model_loaded for loaded in self._loaded.values())
        try:
            servable = self._how.load(self.name, folder, eager)
        except Exception as error:
            known_error = isinstance(error, StatusError)
            failure = error if known_error else StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            logger.error("Can't load %s version %d: %s", self.name, number, error, exc_info=not known_error)
            again = time.monotonic() + self._how.retry_seconds * 2**attempts
            retry_at = again if attempts < self._how.retries else math.inf
            state = States.AVAILABLE if serves else States.END
            self._set(number, _Version(state, failure, files, attempts + 1, retry_at))
            return False
        with self._changed:
            was_serving = bool(self._loaded)
            replaced = self._loaded.get(number)
            self._loaded[number] = _Loaded(number, base_path, servable)
            self._versions[number] = _Version(States.AVAILABLE)
            logger.info("Serving %s version %d", self.name, number)
            if not was_serving:
                self._how.on_serving(self.name, True)
            unused = [] if replaced is None else self._leave(replaced)
        self._unload(unused)
        return True

    def _retire(self, numbers: Iterable[int]) -> list[_Loaded]:
        """Takes versions out of service. Returns those that no request uses, to be unloaded without the lock."""
        unused = []
        for number in sorted(numbers):
            self._versions[number] = _Version(States.UNLOADING)
            unused += self._leave(self._loaded.pop(number))
            if not self._loaded:
                self._how.on_serving(self.name, False)
        return unused

    def _leave(self, loaded: _Loaded) -> list[_Loaded]:
        """Lets what takes no new requests go: the same, if no request uses it."""
        loaded.retired = True
        self._leaving.append(loaded)
        return [] if loaded.requests else [loaded]

    def _unload(self, unused: Iterable[_Loaded]) -> None:
        for loaded in unused:
            number = loaded.number
            loaded.servable.close()
            with self._changed:
                self._leaving.remove(loaded)
                # A version that came back meanwhile has a state of its own, and may be leaving again.
                if self._versions[number].state == States.UNLOADING and number not in {v.number for v in self._leaving}:
                    self._versions[number] = _Version(States.END)
                self._changed.notify_all()
            logger.info("Unloaded %s version %d", self.name, number)

    def _move_labels(self, wanted: Mapping[str, int]) -> None:
        """A label moves when its version is loaded, and before another is given up; one that was nowhere is set."""
        for label in self._labels.keys() - wanted.keys():
            del self._labels[label]
        for label, number in wanted.items():
            if number in self._loaded or label not in self._labels:
                self._labels[label] = number

    def _set(self, number: int, version: _Version) -> None:
        with self._changed:
            self._versions[number] = version


def _files(folder: Path) -> frozenset:
    """Names, sizes and times of all files, to see whether anything changed."""
    found = set()
    # Not rglob, which fails where a folder was just moved away.
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                found.add((path, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


def _version_status(number: int, version: _Version) -> pb.ModelVersionStatus:
    status = pb.ModelVersionStatus(version=number, state=version.state)
    status.status.error_code = version.error.code.value[0] if version.error else 0
    status.status.error_message = version.error.text if version.error else ""
    return status
