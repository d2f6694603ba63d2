"""One of the processes of `--workers=N`: as its supervisor sees it, and what it does itself."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

from keraslight_serving.server._server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.settings import Settings
from keraslight_serving.server.telemetry.logging import configure_process
from keraslight_serving.server.workers.follower import Follower
from keraslight_serving.server.workers.line import Line

logger = logging.getLogger("keraslight_serving.server")


class Worker:
    """A worker as its supervisor sees it. It may call `commands` there; its replacement gets the same `place`."""

    def __init__(self, settings: Settings, place: int, commands: dict[str, Callable[..., Any]]) -> None:
        self.place = place
        self.keys: set[int] = set()  # of the servables that it holds
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")  # not "fork", which loses the threads of gRPC and TensorFlow
        self._process = context.Process(target=_work, args=(theirs, settings), daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0
        theirs.close()
        line = Line(ours, f"Worker {place} (process {self.pid})", commands)
        self.call = line.call
        threading.Thread(target=line.listen, daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> None:
        multiprocessing.connection.wait([self._process.sentinel])

    def end(self, seconds: float) -> None:
        """Gives it some seconds to end, then kills it."""
        self._process.join(seconds)
        if self._process.is_alive():
            logger.warning("Worker %d did not end in time", self.place)
            self._process.kill()
            self._process.join()


def _work(pipe: "multiprocessing.connection.Connection[Any, Any]", settings: Settings) -> None:
    """In the worker: follows the supervisor's commands until it says stop, or is gone."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Ctrl-C reaches all processes, but the supervisor drains the workers
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    configure_process(settings.log_format or "text")

    def follow(configs: Sequence[ModelConfig], how: LoadPolicy[Servable], **options: Any) -> Follower:
        return Follower(how, reload)

    def reload(configs: Sequence[ModelConfig], call: Call) -> None:
        token = uuid.uuid4().hex
        answer = line.call("reload", configs, call.deadline, token)
        while not futures.wait([answer], 0.05).done:
            try:
                call.check()
            except StatusError:
                line.call("abandon", token)
                raise
        answer.result()

    def serve() -> None:
        server.start()

    def stop(grace: float) -> None:
        stopping = threading.Thread(target=server.stop, args=(grace,), daemon=True)
        stopping.start()
        stopping.join(grace + 1)
        logging.shutdown()
        os._exit(0)  # a model that is still running can't be stopped, and Python would wait for it

    server = ModelServer(**{**vars(settings), "make_repository": follow, "shared_port": True})
    follower: Follower = server.repository
    commands: dict[str, Callable[..., Any]] = {
        "ready": lambda: None,
        "load": follower.load,
        "show": follower.show,
        "unload": follower.unload,
        "saved_model_loaded": follower.saved_model_loaded,
        "serve": serve,
        "stop": stop,
    }
    line = Line(pipe, "The supervisor", commands)
    line.listen()
    logger.error("The supervisor is gone; exiting")
    stop(5.0)
