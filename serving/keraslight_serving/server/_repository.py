"""The version folders of a model: finding them, serving the newest, replacing it without a gap."""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from keraslight_serving.server._errors import StartError, StatusError, invalid, not_found
from keraslight_serving.server._servable import Servable
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")


@dataclass
class _Version:
    """What is known of a version, now or once."""

    state: int  # of pb.ModelVersionStatus
    error: StatusError | None = None
    failed_files: frozenset = frozenset()  # the files of the folder when it failed to load


@dataclass
class _Loaded:
    number: int
    servable: Servable
    requests: int = 0  # in flight


class Repository:
    """Serves the newest version of a model that loads, and follows the folder.

    Every `poll_seconds` the base path is read. A new highest version is loaded beside the one that serves; then new
    requests go to it, and the old one is unloaded when its last request is done. A version that can't be loaded is
    passed over (state END, with its error) and tried again only when its files change: so one that is still being
    copied comes up once it is complete. Nothing that serves is given up for one that fails.

    As in TensorFlow Serving, a base path without any version unloads what is loaded, a base path that can't be read
    does not, and names that are no whole number are ignored.

    Two departures, both so that a restart finds what ran before it: where the newest version is broken, the next one
    is served, and a start with nothing to serve fails at once (TensorFlow Serving retries for five minutes, or waits
    for ever with its port closed).

    Args:
        name: of the model.
        base_path: the folder of the version folders.
        load: makes a Servable of a version folder; raises StatusError. Its second argument asks it to load the
            SavedModel too.
        poll_seconds: 0 or less: read once, at the start.
        on_serving: called with whether a version is served, each time another one, or none, takes over.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        load: Callable[[Path, bool], Servable],
        *,
        poll_seconds: float,
        on_serving: Callable[[bool], None] = lambda serving: None,
    ) -> None:
        self._name = name
        self._base_path = base_path
        self._load = load
        self._poll_seconds = poll_seconds
        self._on_serving = on_serving
        self._changed = threading.Condition()  # guards the two below, which only the polling thread changes
        self._versions: dict[int, _Version] = {}
        self._current: _Loaded | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads the first version and starts to poll.

        Raises:
            StartError: there is no version, or none that loads.
        """
        if not self._base_path.is_dir():
            raise StartError(f"`model_base_path` must be an existing folder. Received: {self._base_path}")
        folders = self._find_versions()
        if not folders:
            raise StartError(
                "`model_base_path` must hold a version folder, named as a whole number, such as 1/. "
                f"Received: {self._base_path}, without one"
            )
        self._follow(folders)
        if self._current is None:
            reasons = "; ".join(f"version {n}: {v.error}" for n, v in sorted(self._versions.items(), reverse=True))
            raise StartError(f"Model {self._name!r} must have a version that loads. Received: {reasons}")
        if self._poll_seconds > 0:
            self._thread = threading.Thread(target=self._poll, name=f"poll {self._name}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops polling and unloads what is loaded, when its last request is done."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._switch_to(None)

    @contextlib.contextmanager
    def acquire(self, spec: pb.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """The version that a request asks for; it stays loaded inside the `with`.

        Raises:
            StatusError: no model of this name, or this version isn't loaded.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        with self._changed:
            loaded = self._current
            wanted = spec.version.value if choice == "version" else None
            if spec.name != self._name or loaded is None or wanted not in (None, loaded.number):
                which = f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
                raise not_found(f"Servable not found for request: {which}")
            loaded.requests += 1
        try:
            yield loaded.number, loaded.servable
        finally:
            with self._changed:
                loaded.requests -= 1
                self._changed.notify_all()

    def status(self, spec: pb.ModelSpec) -> list[pb.ModelVersionStatus]:
        """The states of one version or of all that were ever seen, newest first.

        Raises:
            StatusError: NOT_FOUND.
        """
        with self._changed:
            versions = dict(self._versions) if spec.name == self._name else {}
            if spec.WhichOneof("version_choice") == "version":
                number = spec.version.value
                if number not in versions:
                    raise not_found(f"Could not find version {number} of model {spec.name}")
                versions = {number: versions[number]}
            elif not versions:
                raise not_found(f"Could not find any versions of model {spec.name}")
            return [_version_status(number, versions[number]) for number in sorted(versions, reverse=True)]

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._follow(self._find_versions())
            except OSError as error:
                logger.warning("Can't read %s, keeping what is loaded: %s", self._base_path, error)
            except Exception:
                logger.exception("Following %s failed; trying again", self._base_path)

    def _find_versions(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for folder in sorted(self._base_path.iterdir()):
            if not re.fullmatch("[0-9]+", folder.name) or int(folder.name) >= 2**63 or not folder.is_dir():
                continue
            number = int(folder.name)
            if number in found:
                logger.warning("Two folders of version %d: %s is used, not %s", number, folder, found[number])
            found[number] = folder
        return found

    def _follow(self, folders: dict[int, Path]) -> None:
        """Makes the highest version that loads the current one."""
        if not folders:
            if self._current is not None:
                logger.warning("No versions of %s found under %s: unloading", self._name, self._base_path)
            self._switch_to(None)
            return
        for number in self._versions.keys() - folders.keys():
            self._versions[number].failed_files = frozenset()  # gone: if it comes back, it gets another try
        for number in sorted(folders, reverse=True):
            if self._current is not None and number == self._current.number:
                return
            if self._stopping.is_set():
                return
            loaded = self._try_to_load(number, folders[number])
            if loaded is not None:
                self._switch_to(loaded)
                return

    def _try_to_load(self, number: int, folder: Path) -> _Loaded | None:
        files = _files(folder)
        known = self._versions.get(number)
        if known is not None and known.error is not None and known.failed_files == files:
            return None
        logger.info("Loading %s version %d from %s", self._name, number, folder)
        self._set(number, pb.ModelVersionStatus.LOADING)
        # Where TensorFlow is in use, the next version must not make its first caller wait for it, nor fail only then.
        eager = self._current is not None and self._current.servable.saved_model_loaded
        try:
            servable = self._load(folder, eager)
        except Exception as error:
            known_error = isinstance(error, StatusError)
            failure = error if known_error else StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            logger.error("Can't load %s version %d: %s", self._name, number, error, exc_info=not known_error)
            self._set(number, pb.ModelVersionStatus.END, failure, files)
            return None
        return _Loaded(number, servable)

    def _switch_to(self, new: _Loaded | None) -> None:
        with self._changed:
            old, self._current = self._current, new
            if new is not None:
                self._versions[new.number] = _Version(pb.ModelVersionStatus.AVAILABLE)
                logger.info("Serving %s version %d", self._name, new.number)
            self._on_serving(new is not None)
            if old is None:
                return
            self._versions[old.number] = _Version(pb.ModelVersionStatus.UNLOADING)
            self._changed.wait_for(lambda: old.requests == 0)
        old.servable.close()
        self._set(old.number, pb.ModelVersionStatus.END)
        logger.info("Unloaded %s version %d", self._name, old.number)

    def _set(self, number: int, state: int, error: StatusError | None = None, files: frozenset = frozenset()) -> None:
        with self._changed:
            self._versions[number] = _Version(state, error, files)


def _files(folder: Path) -> frozenset:
    """Names, sizes and times of all files, to see whether anything changed."""
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # just moved away
            stat = path.stat()
            found.add((str(path), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


def _version_status(number: int, version: _Version) -> pb.ModelVersionStatus:
    status = pb.ModelVersionStatus(version=number, state=version.state)
    status.status.error_code = version.error.code.value[0] if version.error else 0
    status.status.error_message = version.error.text if version.error else ""
    return status
