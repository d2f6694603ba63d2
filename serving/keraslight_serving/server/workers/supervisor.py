"""Several processes behind one port: `--workers=N`.

The GIL limits a single process, which leaves cores idle on a machine with many. Here, a supervisor keeps N workers,
each a whole server, that share the port: the kernel distributes the connections among them, and the supervisor serves
no requests. Only the supervisor reads the version folders. For its repository, a version is something that all workers
hold at once: it is loaded when every worker has loaded it, then shown to all of them, and unloaded by each worker when
its last request there is done. So all workers answer with the same version, except for the time that a message takes.

A worker that dies is replaced; its connections break, but not those of the others. Workers end when their supervisor
does.
"""

import dataclasses
import itertools
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import grpc

from keraslight_serving.server._server import configure_logging, make_repository
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.cpus import available_cpus, share_cpus
from keraslight_serving.server.base.errors import StartError, StatusError
from keraslight_serving.server.loading.loader import server_parameters
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import Model
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.settings import ProcessSettings, Settings
from keraslight_serving.server.workers.follower import ModelView
from keraslight_serving.server.workers.line import LineBroken
from keraslight_serving.server.workers.worker import Worker

logger = logging.getLogger("keraslight_serving.server")

SHOW_SECONDS = 0.05  # between two checks whether there is something new to show
LONGEST_PAUSE = 10.0  # seconds before a worker that keeps dying is replaced
STOPPED_AFTER = 5.0  # seconds after the grace period in which a worker has to end


@dataclasses.dataclass(frozen=True)
class SharedVersion:
    """A version that every worker has loaded, as the supervisor's repository sees it (a `LoadedVersion`)."""

    key: int  # in the workers
    in_use: Callable[[], bool]  # whether a worker has the SavedModel in use
    close: Callable[[], None]  # unloads the version in all workers

    @property
    def saved_model_loaded(self) -> bool:
        return self.in_use()


class Supervisor:
    """A ModelServer in several processes, which share the CPUs unless `num_threads` and `num_interpreters` are given.

    Raises:
        ValueError: `workers` is out of range, or the batching parameters can't be used.
        StartError: The system's sockets can't share a port, the model config file can't be read, or there is no place
            for temporary files.
    """

    def __init__(self, workers: int, settings: Settings) -> None:
        self._count = ProcessSettings(workers=workers).workers
        if not hasattr(socket, "SO_REUSEPORT"):
            raise StartError(f"`workers` must be 1 where sockets can't share a port. Received: {workers}")
        server_parameters(settings)  # an error here is clearer than one in each worker
        configure_logging(settings)
        self._settings = settings
        self.repository: Repository[SharedVersion] = make_repository(settings, self._load)
        # Each worker writes its metrics here, and publishes the sum of all.
        try:
            self._metrics = tempfile.TemporaryDirectory(prefix="keraslight-metrics-")
        except OSError as error:
            raise StartError(
                "Several `workers` need a directory for temporary files that can be written to, such as TMPDIR. "
                f"Received: {error}"
            ) from error
        self._keys = itertools.count()
        self._lock = threading.Lock()  # guards the five below
        self._workers: list[Worker] = []
        self._loaded: dict[int, tuple[str, Path, bool]] = {}  # what each worker has to hold: arguments of `load`
        self._shown: dict[str, ModelView] = {}
        self._shows = 1  # their number
        self._abandoned: set[str] = set()  # reloads that nobody waits for any more
        self._showing = threading.Lock()
        self._stopping = threading.Event()
        self._reservations: list[socket.socket] = []
        self._port = 0  # until it is reserved
        self._rest_port: int | None = None

    @property
    def address(self) -> str:
        """As `ModelServer.address`."""
        if not self._port:
            raise RuntimeError("A server has a port once it is started. Received: a server that is not")
        return f"{self._settings.host}:{self._port}"

    @property
    def rest_address(self) -> str:
        """As `ModelServer.rest_address`."""
        if self._rest_port is None:
            raise RuntimeError("A server with `rest_api_port` has a REST address once it is started. Received: none")
        return f"http://{self._settings.host}:{self._rest_port}"

    @property
    def metrics_directory(self) -> str:
        """Where the workers write their metrics; removed when the server stops, unless it is the user's."""
        return os.fspath(self._settings.metrics_directory or self._metrics.name)

    @property
    def pids(self) -> list[int]:
        with self._lock:
            return [worker.pid for worker in self._workers]

    def start(self) -> "Supervisor":
        """Starts the workers, loads the models in each of them, then opens the ports.

        Raises:
            StartError: No version loads, a port is taken, or a worker dies.
        """
        settings = self._settings
        try:
            self._port = self._reserve(settings.port)
            if settings.rest_api_port is not None:
                self._rest_port = self._reserve(settings.rest_api_port)
            self._workers = [self._new_worker(place) for place in range(self._count)]
            for worker in self._workers:
                worker.call("ready").result()
            self.repository.start()
            self._show()
            for worker in self._workers:
                worker.call("serve").result()
        except (StartError, LineBroken) as error:
            self._end(0)
            raise StartError(str(error)) from error
        for worker in self._workers:
            threading.Thread(target=self._replace, args=(worker,), daemon=True).start()
        threading.Thread(target=self._keep_showing, daemon=True).start()
        return self

    def stop(self, grace: float | None = 5.0) -> None:
        """As `ModelServer.stop`, in all workers at once."""
        if not self._stopping.is_set():
            self._end(grace or 0)

    def _end(self, grace: float) -> None:
        self._stopping.set()
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.call("stop", grace)
        until = time.monotonic() + grace + STOPPED_AFTER
        for worker in workers:
            worker.end(max(0, until - time.monotonic()))
        self.repository.close()
        for reservation in self._reservations:
            reservation.close()
        self._metrics.cleanup()

    def _reserve(self, port: int) -> int:
        """Binds a socket that keeps a port for the workers, without listening on it. Returns the port.

        Raises:
            StartError: The port is taken.
        """
        host = self._settings.host
        try:
            kind, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
            with socket.socket(kind, socket.SOCK_STREAM) as alone:  # the second bind would share another server's port
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
            shared = socket.socket(kind, socket.SOCK_STREAM)
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind(address)
        except OSError as error:
            text = f"The server must be able to listen on its address. Received: {host}:{port}, {error}"
            raise StartError(text) from error
        self._reservations.append(shared)
        return int(shared.getsockname()[1])

    # ---------------------------------------------------------------- versions

    def _load(self, model: str, folder: Path, eager: bool) -> SharedVersion:
        """Loads a version in every worker or, with a StatusError if one can't load it or dies of it, in none."""
        key, args = next(self._keys), (model, folder, eager)
        while True:
            with self._lock:
                missing = [worker for worker in self._workers if key not in worker.keys]
                if self._workers and not missing:
                    self._loaded[key] = args
                    return SharedVersion(key, partial(self._saved_model_in_use, key), partial(self._unload, key))
            if not missing:  # all have just died: their successors must not get what nobody has tried
                if self._stopping.wait(SHOW_SECONDS):
                    raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server stops")
                continue
            answers = [worker.call("load", key, *args) for worker in missing]
            failures = [error for answer in answers if (error := answer.exception()) is not None]
            for worker, answer in zip(missing, answers, strict=True):
                if answer.exception() is None:
                    worker.keys.add(key)
            if failures:
                self._unload_in_workers(key)
                if isinstance(failures[0], LineBroken):
                    # The next workers must not get files that abort TensorFlow.
                    raise StatusError(grpc.StatusCode.INTERNAL, f"Loading failed: {failures[0]}") from failures[0]
                raise failures[0]

    def _unload(self, key: int) -> None:
        if self._stopping.is_set():
            return  # the workers unload everything themselves
        self._show()  # no worker starts another request with it
        with self._lock:
            self._loaded.pop(key)
        self._unload_in_workers(key)

    def _unload_in_workers(self, key: int) -> None:
        """Unloads a version in all workers that hold it, and returns once they have."""
        holding = self._holding(key)
        answers = [worker.call("unload", key) for worker in holding]
        for worker in holding:
            worker.keys.discard(key)
        for answer in answers:
            answer.exception()

    def _saved_model_in_use(self, key: int) -> bool:
        answers = [worker.call("saved_model_loaded", key) for worker in self._holding(key)]
        return any(answer.result() for answer in answers if answer.exception() is None)

    def _holding(self, key: int) -> list[Worker]:
        with self._lock:
            return [worker for worker in self._workers if key in worker.keys]

    def _keep_showing(self) -> None:
        while not self._stopping.wait(SHOW_SECONDS):
            try:
                self._show()
            except Exception:
                logger.exception("Showing the versions to the workers failed; trying again")

    def _show(self) -> None:
        """Tells all workers which versions to serve, if that has changed."""
        with self._showing:
            views = {name: view_of(model) for name, model in self.repository.models.items()}
            with self._lock:
                if views == self._shown:
                    return
                self._shown = views
                self._shows += 1
                answers = [worker.call("show", self._shows, views) for worker in self._workers]
            for answer in answers:
                answer.exception()

    # ---------------------------------------------------------------- workers

    def _new_worker(self, place: int) -> Worker:
        settings = dataclasses.replace(
            worker_settings(self._settings, self._count),
            metrics_directory=self.metrics_directory,
            port=self._port,
            rest_api_port=self._rest_port,
            grpc_socket_path=None if place > 0 else self._settings.grpc_socket_path,  # it can't be shared
        )
        return Worker(settings, place, {"reload": self._reload, "abandon": self._abandoned.add})

    def _reload(self, configs: Sequence[ModelConfig], deadline: float | None, token: str) -> None:
        """Reloads the configuration for a worker that received the request."""
        try:
            self.repository.reload(configs, Call(deadline=deadline, is_active=lambda: token not in self._abandoned))
        finally:
            self._abandoned.discard(token)
        self._show()

    def _replace(self, worker: Worker) -> None:
        """Waits for a worker's death and puts another one in its place, again and again."""
        pause = 0.0
        while True:
            began = time.monotonic()
            worker.wait()
            if self._stopping.is_set():
                return
            logger.error("Worker %d (process %d) died, exit code %s", worker.place, worker.pid, worker.exit_code)
            with self._lock:
                self._workers = [other for other in self._workers if other is not worker]
            # Workers that die right after their start must not keep a core busy.
            pause = min(LONGEST_PAUSE, 2 * pause + 0.1) if time.monotonic() - began < 2 * LONGEST_PAUSE else 0.0
            if self._stopping.wait(pause):
                return
            worker = self._new_worker(worker.place)
            try:
                self._join(worker)
            except (LineBroken, StatusError, StartError) as error:
                logger.error("A new worker can't start: %s", error)
                worker.end(0)

    def _join(self, worker: Worker) -> None:
        """Brings a new worker to the state of the others, and lets it serve."""
        while True:
            with self._lock:
                missing = {key: args for key, args in self._loaded.items() if key not in worker.keys}
                if not missing:
                    self._workers.append(worker)
                    shown = worker.call("show", self._shows, self._shown)
                    break
            for key, args in missing.items():
                worker.call("load", key, *args).result()
                worker.keys.add(key)
        shown.result()
        with self._lock:
            gone = worker.keys - self._loaded.keys()
        for key in gone:
            worker.keys.discard(key)
            worker.call("unload", key).result()
        worker.call("serve").result()
        logger.info("Worker %d is process %d now", worker.place, worker.pid)


def worker_settings(settings: Settings, workers: int) -> Settings:
    """The settings of one of several workers: its share of the CPUs, and no model folders or files to read."""
    cpus = max(1, available_cpus() // workers)
    threads, interpreters = share_cpus(cpus, settings.num_threads, settings.num_interpreters)
    return dataclasses.replace(
        settings,
        num_threads=threads,
        num_interpreters=interpreters,
        model_base_path=os.curdir,  # not read; a model config file might be broken when a worker is replaced
        model_config_file=None,
    )


def view_of(model: Model[SharedVersion]) -> ModelView:
    """What the workers answer for a model."""
    statuses, versions, labels = model.versions.view()
    keys = {number: version.key for number, version in versions.items()}
    config = model.config
    log = config.logging.SerializeToString() if config and config.logging else None
    return ModelView(tuple(s.SerializeToString() for s in statuses), keys, labels, log, wanted=config is not None)
