"""Calls between two processes, in both directions over one pipe."""

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

import grpc

from keraslight_serving.server.base.errors import StartError, StatusError

logger = logging.getLogger("keraslight_serving.server")


class LineBroken(Exception):
    """The process at the other end is gone."""


class Line:
    """One end of a pipe. The other end, named `name` in texts, may call `commands`, each call in its own thread."""

    def __init__(self, pipe: "Connection[Any, Any]", name: str, commands: Mapping[str, Callable[..., Any]]) -> None:
        self._pipe, self._name, self._commands = pipe, name, commands
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._broken = False

    def call(self, command: str, *args: Any) -> Future[Any]:
        """Calls a command of the other end; arguments and results are pickled.

        The future has the result, the StatusError or StartError that the command raised, or LineBroken.
        """
        answer: Future[Any] = Future()
        number = next(self._numbers)
        with self._sending:
            try:
                if self._broken:
                    raise BrokenPipeError
                self._pipe.send((number, command, args))
                self._waiting[number] = answer
            except OSError:
                answer.set_exception(LineBroken(f"{self._name} is gone"))
        return answer

    def listen(self) -> None:
        """Runs the commands that the other end calls, and takes its results, until it is gone."""
        while True:
            try:
                number, command, value = self._pipe.recv()
            except (EOFError, OSError):
                break
            if command is None:
                with self._sending:
                    answer = self._waiting.pop(number)
                if isinstance(value, Exception):
                    answer.set_exception(value)
                else:
                    answer.set_result(value)
            else:
                threading.Thread(target=self._run, args=(number, command, value), daemon=True).start()
        with self._sending:
            self._broken = True
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(LineBroken(f"{self._name} is gone"))

    def _run(self, number: int, command: str, args: tuple[Any, ...]) -> None:
        try:
            value = self._commands[command](*args)
        except (StatusError, StartError) as error:
            value = error
        except Exception as error:
            logger.exception("%s failed", command)
            value = StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        with self._sending:
            try:
                self._pipe.send((number, None, value))
            except OSError:
                logger.debug("%s is gone and never got the result of %s", self._name, command)
