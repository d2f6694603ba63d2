"""Several processes behind one port: `--workers=N`.

Python runs one thread at a time, so that one process leaves cores idle on a machine with many. Here a supervisor keeps
N workers, each a whole server, which share the port (the kernel deals the connections out); the supervisor answers no
request. It alone reads the version folders: its repository's servables are all workers' at once. A version is loaded
when each worker has it, and shown to all of them when that is so; it is unloaded by each worker when its last request
there is done. So all answer with the same version, but for the moment that a message to them takes.

A worker that dies is replaced; its connections break, and those of the others don't. Workers end when their supervisor
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
from pathlib import Path
from typing import Any

import grpc

from keraslight_serving.server._server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.cpus import available_cpus, share_cpus
from keraslight_serving.server.base.errors import StartError, StatusError
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import LoadPolicy, Model
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.workers.follower import ModelView
from keraslight_serving.server.workers.line import LineBroken
from keraslight_serving.server.workers.worker import Worker

logger = logging.getLogger("keraslight_serving.server")

SHOW_SECONDS = 0.05  # between two looks whether there is something new to show
LONGEST_PAUSE = 10.0  # seconds before a worker that died again and again is replaced
STOPPED_AFTER = 5.0  # seconds after the grace in which a worker has to end


class Supervisor:
    """A ModelServer in several processes.

    Args:
        workers: how many, at least 1.
        host, port: the address that they share; port 0 picks a free one.
        options: of ModelServer. What is not given of `num_threads` and `num_interpreters` is the worker's share of the
            CPUs.

    Raises:
        ValueError: an argument is out of range.
        StartError: the system's sockets can't share a port.
    """

    def __init__(self, workers: int, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        if workers < 1:
            raise ValueError(f"`workers` must be at least 1. Received: {workers}")
        if not hasattr(socket, "SO_REUSEPORT"):
            raise StartError(f"`workers` must be 1 where sockets can't share a port. Received: {workers}")
        self._count, self._host, self._wanted_port = workers, host, port
        self._options = {**_share_of_cpus(workers, options), **options, "host": host}
        # Never opened: its arguments are checked, and its repository made, as each worker's will be.
        planned = ModelServer(**self._options, port=port, make_repository=self._make_repository)
        self.repository: Repository = planned.repository
        self._config_file = self._options.pop("model_config_file", None)
        self._config_seconds = self._options.pop("model_config_file_poll_wait_seconds", 0)
        # For the workers, which look at no folder: the file may be broken when one of them is replaced.
        self._options["model_base_path"] = os.curdir
        # Each worker writes its metrics here, and whichever is asked adds up all of them.
        self._metrics = tempfile.TemporaryDirectory(prefix="keraslight-metrics-")
        self._options.setdefault("metrics_directory", self._metrics.name)
        self._keys = itertools.count()
        self._lock = threading.Lock()  # guards the four below
        self._workers: list[Worker] = []
        self._loaded: dict[int, tuple] = {}  # the arguments of what each worker has to hold
        self._shown: dict[str, ModelView] = {}
        self._shows = 1  # their number
        self._abandoned: set[str] = set()  # reloads that nobody waits for any more
        self._showing = threading.Lock()
        self._stopping = threading.Event()
        self._reservation: socket.socket | None = None
        self._rest_reservation: socket.socket | None = None

    @property
    def address(self) -> str:
        """`host:port`, as clients take it."""
        return f"{self._host}:{self._reservation.getsockname()[1]}"

    @property
    def rest_address(self) -> str:
        """As `ModelServer.rest_address`."""
        if self._rest_reservation is None:
            raise RuntimeError("A server with `rest_api_port` has a REST address once it is started. Received: none")
        return f"http://{self._host}:{self._rest_reservation.getsockname()[1]}"

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        with self._lock:
            return [worker.pid for worker in self._workers]

    def start(self) -> "Supervisor":
        """Starts the workers, loads the models in each, then opens the port.

        Raises:
            StartError: no version that loads, the port is taken, or a worker dies.
        """
        self._reservation = _reserve(self._host, self._wanted_port)
        try:
            if self._options.get("rest_api_port") is not None:
                self._rest_reservation = _reserve(self._host, self._options["rest_api_port"])
            self._workers = [self._new_worker(place) for place in range(self._count)]
            for worker in self._workers:
                worker.call("ready").result()
            self.repository.start()
            if self._config_file is not None and self._config_seconds > 0:
                self.repository.follow_file(Path(self._config_file), self._config_seconds)
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
        self._reservation.close()
        if self._rest_reservation is not None:
            self._rest_reservation.close()
        self._metrics.cleanup()

    # ---------------------------------------------------------------- versions

    def _make_repository(self, configs: list[ModelConfig], how: LoadPolicy, **options: Any) -> Repository:
        """The same one, but that it loads into the workers."""
        how = dataclasses.replace(how, load=self._load, on_serving=lambda name, serving: None)
        return Repository(configs, how, **options)

    def _load(self, *args: Any) -> "_Everywhere":
        """Loads a version in every worker, or in none.

        Raises:
            StatusError: a worker can't load it, or died of it.
        """
        key = next(self._keys)
        while True:
            with self._lock:
                missing = [worker for worker in self._workers if key not in worker.keys]
                if self._workers and not missing:
                    self._loaded[key] = args
                    return _Everywhere(self, key)
            if not missing:  # all have just died: what nobody has tried must not be given to those that come next
                if self._stopping.wait(SHOW_SECONDS):
                    raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server stops")
                continue
            answers = [worker.call("load", key, *args) for worker in missing]
            failures = [error for answer in answers if (error := answer.exception()) is not None]
            for worker, answer in zip(missing, answers, strict=True):
                if answer.exception() is None:
                    worker.keys.add(key)
            if failures:
                self._everywhere("unload", key)
                if isinstance(failures[0], LineBroken):
                    # Files that abort TensorFlow must not be given to the workers that come next.
                    raise StatusError(grpc.StatusCode.INTERNAL, f"Loading failed: {failures[0]}") from failures[0]
                raise failures[0]

    def _unload(self, key: int) -> None:
        if self._stopping.is_set():
            return  # the workers unload what they have
        self._show()
        with self._lock:
            self._loaded.pop(key)
        self._everywhere("unload", key)

    def _everywhere(self, command: str, key: int) -> list[Any]:
        """The answers of all workers that hold a servable, and live."""
        with self._lock:
            holding = [worker for worker in self._workers if key in worker.keys]
        answers = [worker.call(command, key) for worker in holding]
        if command == "unload":
            for worker in holding:
                worker.keys.discard(key)
        return [answer.result() for answer in answers if answer.exception() is None]

    def _keep_showing(self) -> None:
        while not self._stopping.wait(SHOW_SECONDS):
            try:
                self._show()
            except Exception:
                logger.exception("Showing the versions to the workers failed; trying again")

    def _show(self) -> None:
        """Tells all workers what to answer with, if that has changed."""
        with self._showing:
            views = {name: _view(model) for name, model in self.repository.models.items()}
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
        options = {**self._options, "port": self._reservation.getsockname()[1]}
        if self._rest_reservation is not None:
            options["rest_api_port"] = self._rest_reservation.getsockname()[1]
        if place > 0:
            options.pop("grpc_socket_path", None)  # a Unix socket can't be shared
        return Worker(options, place, {"reload": self._reload, "abandon": self._abandoned.add})

    def _reload(self, configs: list[ModelConfig], deadline: float | None, token: str) -> None:
        """What a worker was asked to reload."""
        try:
            self.repository.reload(configs, Call(deadline=deadline, is_active=lambda: token not in self._abandoned))
        finally:
            self._abandoned.discard(token)
        self._show()

    def _replace(self, worker: Worker) -> None:
        """Waits for a worker's death, and puts another one in its place."""
        pause = 0.0
        while True:
            began = time.monotonic()
            worker.wait()
            if self._stopping.is_set():
                return
            logger.error("Worker %d (process %d) died, exit code %s", worker.place, worker.pid, worker.exit_code)
            with self._lock:
                self._workers = [other for other in self._workers if other is not worker]
            # One that dies as soon as it lives must not keep a core busy.
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
        """Brings a new worker to where the others are, and lets it serve."""
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


class _Everywhere:
    """A version that every worker has loaded, as a Servable to the supervisor's repository."""

    def __init__(self, supervisor: Supervisor, key: int) -> None:
        self._supervisor = supervisor
        self.key = key

    @property
    def saved_model_loaded(self) -> bool:
        return any(self._supervisor._everywhere("saved_model_loaded", self.key))

    def close(self) -> None:
        self._supervisor._unload(self.key)


def _view(model: Model) -> ModelView:
    """What the workers are to answer of a model."""
    statuses, servables, labels = model.versions.view()
    keys = {number: servable.key for number, servable in servables.items()}
    log = None if model.logging is None else model.logging.SerializeToString()
    return ModelView(tuple(status.SerializeToString() for status in statuses), keys, labels, log, model.is_wanted)


def _share_of_cpus(workers: int, options: dict[str, Any]) -> dict[str, int]:
    threads, interpreters = share_cpus(max(1, available_cpus() // workers), options.get("num_threads"))
    return {"num_threads": threads, "num_interpreters": interpreters}


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps the port for the workers without listening on it.

    Raises:
        StartError: the port is taken. Another server that shares its port would not keep ours from binding it.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        shared = socket.socket(kind, socket.SOCK_STREAM)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(address)
    except OSError as error:
        raise StartError(
            f"The server must be able to listen on its address. Received: {host}:{port}, {error}"
        ) from error
    return shared
