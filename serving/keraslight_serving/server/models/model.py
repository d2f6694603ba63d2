"""One model: the thread that reads its folder, and loads and unloads versions accordingly."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import grpc

from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.folders import Files, files_of, find_versions, names_in
from keraslight_serving.server.models.protocols import V
from keraslight_serving.server.models.versions import Failure, Versions

logger = logging.getLogger("keraslight_serving.server")


@dataclass(frozen=True)
class LoadPolicy(Generic[V]):
    """How versions are found and loaded.

    `load` gets the model's name, the version folder, and whether to load the SavedModel even if nothing needs it yet;
    it raises StatusError. `on_serving` gets a model's name and whether a version of it serves, when that changes.
    """

    load: Callable[[str, Path, bool], V]
    poll_seconds: float = 1  # between two reads of the folder; 0 or less reads it once
    retries: int = 5  # of a version that failed, as long as its files stay the same
    retry_seconds: float = 60  # before the first retry; each later pause is twice as long
    settle_seconds: float = 1  # in which the files of a version that appears don't change before it is loaded
    incomplete_seconds: float = 10  # the same for a version without some file that the serving version has
    on_serving: Callable[[str, bool], None] = lambda name, serving: None


class Model(Generic[V]):
    """Follows a model's folder and serves the versions that its policy wants.

    A wanted version is loaded next to those that serve. Then new requests go to it, and a version that is no longer
    wanted is unloaded when its last request is done. A version that can't be loaded is skipped (state END, with its
    error), and the next lower one takes its place. It is retried when its files change, or after a pause. Nothing that
    serves is unloaded for a version that fails. All of this happens in a thread per model, so that no model ever waits
    for another.

    Versions that are copied into the folder, file by file, may load before they are complete, with some of their
    signatures. So a version that appears is loaded once its files haven't changed for a moment, longer if it lacks a
    file that the serving version has; and a loaded version whose files change is loaded again, and served until then.

    As in TensorFlow Serving, a base path without any wanted version unloads what is loaded, a base path that can't be
    read doesn't, and names that are not whole numbers are ignored. There are three differences, so that a restart leads
    to the same state as before: if the newest version is broken, the next one is served; a broken version is END while
    it waits for its next retry, not LOADING; and labels move once their version is loaded, where TensorFlow Serving
    rejects a configuration with a label for a version that isn't.
    """

    def __init__(self, config: ModelConfig, how: LoadPolicy[V]) -> None:
        self.name = config.name
        self._how = how
        self.config: ModelConfig | None = config  # None if the model is no longer wanted
        self.versions: Versions[V] = Versions(config.name, how.on_serving)
        self._changed = self.versions.changed  # guards all below, too
        self._configured = 0  # number of configurations after the first
        self._followed = -1  # the last one that was followed, to its end or its first error
        self._found = False  # whether there were wanted versions
        self._retry_at = math.inf  # time.monotonic() of the next retry, or of the next look at files that change
        self._seen: dict[int, tuple[Files, float]] = {}  # files of versions to load, and since when they are unchanged
        self._refused: dict[int, Files] = {}  # of loaded versions, that could not be loaded again
        self._checks: dict[int, tuple[float, float]] = {}  # of loaded versions: when loaded, when to look again
        self._problem: str | None = "its folder has not been read yet"
        self._stopping = False
        self._look_now = False
        self._thread: threading.Thread | None = None  # None while there is nothing to follow

    def start(self) -> None:
        with self._changed:
            self._thread = threading.Thread(target=self._follow_until_stopped, name=f"model {self.name}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Unloads everything, each version when its last request is done, and returns then."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        self.versions.close()

    def configure(self, config: ModelConfig | None) -> int:
        """Follows another configuration at once, or None for no versions at all.

        With None, the thread ends when everything is unloaded or only waits for its last request; another configuration
        starts it again. Returns the number of this configuration, for `has_followed` and `settled`.
        """
        with self._changed:
            self.config = config
            self._configured += 1
            self._look_now = True
            self._changed.notify_all()
            if config is not None and self._thread is None:
                self.start()
            return self._configured

    @property
    def problem(self) -> str:
        """Why it serves nothing, or hasn't served anything yet."""
        with self._changed:
            if self.config is None:
                return f"Model {self.name!r} must stay configured until it serves. Received: a configuration without it"
            loads = f"Model {self.name!r} must have a version that loads. Received: {self.versions.errors}"
            return loads if self._problem is None else self._problem

    def wait_for_look(self) -> None:
        """Waits until the folder was read and its versions were tried, or it could not be read."""
        with self._changed:
            self._changed.wait_for(lambda: self._followed >= 0 or self._stopping)

    def has_followed(self, number: int) -> bool:
        """Whether its folder was read for this configuration (0 is the first) or a later one."""
        with self._changed:
            return self._followed >= number

    def settled(self, number: int) -> bool:
        """Whether it has followed this configuration or a later one, and found versions or is no longer wanted."""
        with self._changed:
            return self._followed >= number and (self._found or self.config is None)

    def _follow_until_stopped(self) -> None:
        while True:
            with self._changed:
                config, number, self._look_now = self.config, self._configured, False
            problem, found = self._follow_once(config, at_once=self._followed < number)
            with self._changed:
                self._problem, self._found, self._followed = problem, found, number
                self._changed.notify_all()
                if self.config is not None or self.versions.are_serving:
                    self._changed.wait_for(lambda: self._stopping or self._look_now, self._seconds_to_next_look())
                elif not self._look_now:
                    self._thread = None
                    return
                if self._stopping:
                    return

    def _follow_once(self, config: ModelConfig | None, *, at_once: bool) -> tuple[str | None, bool]:
        """Follows a configuration. Returns why nothing can be served, if so, and whether there are wanted versions.

        With `at_once`, versions are loaded as they are: someone waits for a new configuration.
        """
        try:
            if config is None:
                self._retry_at = math.inf
                self.versions.forget_failures_of_all_but(())
                with self._changed:
                    if self.config is None:
                        self.versions.move_labels({})
                        self.versions.retire_all_but(())
                return None, False
            if self._follow(config, at_once):
                return None, True
            problem = "`model_base_path` must hold a version folder, named as a whole number, such as 1/. "
            return f"{problem}Received: {config.base_path}, without one that is wanted", False
        except OSError as error:
            base_path = config.base_path if config is not None else None
            problem = f"`model_base_path` must be an existing folder. Received: {base_path}"
            if base_path is not None and base_path.exists():
                problem = f"`model_base_path` must be a readable folder. Received: {base_path}, {error}"
            if problem != self._problem:  # one warning for each kind of trouble; at startup, `problem` is read instead
                logger.warning("Can't read the folder of %s, keeping what is loaded: %s", self.name, error)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            logger.exception("Following %s failed; trying again", self.name)
        return problem, False

    def _seconds_to_next_look(self) -> float | None:
        poll_seconds = self._how.poll_seconds if self._how.poll_seconds > 0 else math.inf
        seconds = min(max(self._retry_at - time.monotonic(), 0.01), poll_seconds)
        return None if seconds == math.inf else seconds

    def _follow(self, config: ModelConfig, at_once: bool) -> bool:
        """Loads the wanted versions, then unloads the others. Returns whether there are wanted versions."""
        self._retry_at = math.inf  # even if the folder can't be read and nothing is tried
        folders, wanted = find_versions(config.base_path), config.policy.versions
        candidates = sorted((number for number in folders if wanted is None or number in wanted), reverse=True)
        self.versions.forget_failures_of_all_but(folders)
        keep: list[int] = []
        for number in candidates:
            if config.policy.most is not None and len(keep) == config.policy.most:
                break
            if self._stopping:
                return True
            holds = self.versions.holds(number, config.base_path)
            if (
                self._is_due(number, folders[number], holds, at_once) and self._try_to_load(number, folders[number])
            ) or (holds):
                keep.append(number)
        with self._changed:
            # What a configuration that arrived meanwhile wants is seen when it is followed, which is next.
            if self.config == config:
                self.versions.move_labels(config.labels)
                if keep or not candidates:
                    if self.versions.are_serving and not candidates:
                        logger.warning("No wanted versions of %s in %s: unloading", self.name, config.base_path)
                    self.versions.retire_all_but(keep)
        return bool(candidates)

    def _is_due(self, number: int, folder: Path, loaded: bool, at_once: bool) -> bool:
        """Whether a version is to be loaded now; if its files may still change, `_retry_at` is set to the next look."""
        now = time.monotonic()
        if loaded:
            began, again = self._checks.get(number, (now, now))
            if now < again:
                return False
            # Ever less often: most copies end within seconds, and folders may be on slow disks.
            self._checks[number] = began, now + min(max((now - began) / 10, 0), 30)
        files, before = files_of(folder), self.versions.files_of(number if loaded else None)
        if loaded and files in (before, self._refused.get(number)):
            return False
        if at_once and not loaded:
            return True
        if number not in self._seen or self._seen[number][0] != files:
            self._seen[number] = files, now
        pause = self._how.incomplete_seconds
        if before is None or names_in(before) <= names_in(files):
            pause = min(self._how.settle_seconds, self._how.poll_seconds)
        due = self._seen[number][1] + pause
        if now < due:
            self._retry_at = min(self._retry_at, due)
            if loaded:
                self._checks[number] = self._checks[number][0], due
            return False
        return True

    def _try_to_load(self, number: int, folder: Path) -> bool:
        """Whether the version could be loaded; if not, `_retry_at` is set to the next retry."""
        files, failed, attempts = files_of(folder), self.versions.failure_of(number), 0
        if failed is not None and failed.files == files:
            if time.monotonic() < failed.retry_at:
                self._retry_at = min(self._retry_at, failed.retry_at)
                return False
            attempts = failed.attempts
        logger.info("Loading %s version %d from %s", self.name, number, folder)
        self._seen.pop(number, None)
        self.versions.loads(number)
        # If TensorFlow is in use, the next version must not make its first caller wait for it, nor fail only then.
        eager = self.versions.use_saved_models
        try:
            servable = self._how.load(self.name, folder, eager)
        except Exception as error:
            unknown = StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            failure = error if isinstance(error, StatusError) else unknown
            logger.error("Can't load %s version %d: %s", self.name, number, error, exc_info=failure is not error)
            again = time.monotonic() + self._how.retry_seconds * 2**attempts
            retry_at = again if attempts < self._how.retries else math.inf
            self._retry_at = min(self._retry_at, retry_at)
            self._refused[number] = files
            self.versions.failed(number, Failure(failure, files, attempts + 1, retry_at))
            return False
        logger.info("Serving %s version %d", self.name, number)
        self._checks.pop(number, None)
        self.versions.serve(number, folder.parent, servable, files)
        return True
