"""One model: the thread that reads its folder, and loads and gives up versions accordingly."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.folders import files_of, find_versions
from keraslight_serving.server.models.versions import Failure, Versions
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")


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

    Attributes:
        versions: what requests are answered from.
    """

    def __init__(self, config: ModelConfig, how: LoadPolicy) -> None:
        self.name = config.name
        self._how = how
        self._config: ModelConfig | None = config  # None: the model is no longer wanted
        self.versions = Versions(config.name, how.on_serving)
        self._changed = self.versions.changed  # guards all below, too
        self._configured = 0  # how many configurations came after the first
        self._followed = -1  # which of them was followed last, to its end or its first error
        self._found = False  # whether there were versions that it wants
        self._retry_at = math.inf  # time.monotonic() of the next try of one that failed
        self._problem: str | None = "its folder was not looked at yet"
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
        self.versions.close()

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
        return self.versions.are_serving

    @property
    def problem(self) -> str:
        """Why it serves nothing, or has not served anything yet."""
        with self._changed:
            if self._config is None:
                return f"Model {self.name!r} must stay configured until it serves. Received: a configuration without it"
            if self._problem is not None:
                return self._problem
            return f"Model {self.name!r} must have a version that loads. Received: {self.versions.errors}"

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
                if self._config is not None or self.versions.are_serving:
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
        self._retry_at = math.inf  # also where the folder can't be read, and nothing tried
        folders = find_versions(config.base_path) if config is not None else {}
        candidates = config.policy.candidates(folders) if config is not None else []
        self.versions.forget_failures_of_all_but(folders)
        keep: list[int] = []
        for number in candidates:
            if config.policy.most is not None and len(keep) == config.policy.most:
                break
            if self._stopping:
                return True
            base_path = config.base_path
            if self.versions.holds(number, base_path) or self._try_to_load(number, folders[number], base_path):
                keep.append(number)
        with self._changed:
            # What a configuration that came meanwhile wants is seen when it is followed, which is next.
            if self._config == config:
                self.versions.move_labels(config.labels if config is not None else {})
                if keep or not candidates:
                    if self.is_serving and not candidates and config is not None:
                        folder = config.base_path
                        logger.warning("No wanted versions of %s found under %s: unloading", self.name, folder)
                    self.versions.retire_all_but(keep)
        return bool(candidates)

    def _try_to_load(self, number: int, folder: Path, base_path: Path) -> bool:
        """Whether it could be loaded; if not, `_retry_at` takes note of the next try."""
        files, failed = files_of(folder), self.versions.failure_of(number)
        attempts = 0
        if failed is not None and failed.files == files:
            if time.monotonic() < failed.retry_at:
                self._retry_at = min(self._retry_at, failed.retry_at)
                return False
            attempts = failed.attempts
        logger.info("Loading %s version %d from %s", self.name, number, folder)
        self.versions.loads(number)
        # Where TensorFlow is in use, the next version must not make its first caller wait for it, nor fail only then.
        eager = self.versions.use_saved_models
        try:
            servable = self._how.load(self.name, folder, eager)
        except Exception as error:
            known_error = isinstance(error, StatusError)
            failure = error if known_error else StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
            logger.error("Can't load %s version %d: %s", self.name, number, error, exc_info=not known_error)
            again = time.monotonic() + self._how.retry_seconds * 2**attempts
            retry_at = again if attempts < self._how.retries else math.inf
            self._retry_at = min(self._retry_at, retry_at)
            self.versions.failed(number, Failure(failure, files, attempts + 1, retry_at))
            return False
        logger.info("Serving %s version %d", self.name, number)
        self.versions.serve(number, base_path, servable)
        return True
