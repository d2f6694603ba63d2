"""`python -m keraslight_serving.server`: a server in a process of its own, with TensorFlow Serving's flags."""

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server._flags import parse_flags
from keraslight_serving.server.settings import GRPC_PORT, ProcessSettings, Settings
from keraslight_serving.server.telemetry.json_lines import redirect_stderr
from keraslight_serving.server.telemetry.logging import configure_process, escaped
from keraslight_serving.server.workers.supervisor import Supervisor

logger = logging.getLogger("keraslight_serving.server")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a server until SIGTERM or SIGINT. Returns the exit code: 0, or 255 for a server that can't start.

    The first signal (also SIGHUP, unless the process ignores it) drains the server: health checks answer NOT_SERVING,
    new requests are rejected, and requests in flight have `--grace_seconds` to finish. A second signal, or one before
    the server listens, ends the process at once, with exit code 128 plus the signal's number, as shells report it.
    """
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--log_format=json" in arguments or "--log_format json" in " ".join(arguments)
    finish = redirect_stderr() if as_json else lambda: None
    try:
        return _run(argv, "json" if as_json else "text", finish)
    finally:
        finish()


def _run(argv: Sequence[str] | None, log_format: str, finish: Callable[[], None]) -> int:
    configure_process(log_format)
    _allow_many_files()
    signals = _Signals()
    try:
        flags = parse_flags(argv)
        names = {field.name for field in dataclasses.fields(ProcessSettings)}
        process = ProcessSettings(**{name: flags.pop(name) for name in names & flags.keys()})
        settings = Settings(**{"port": GRPC_PORT, **flags})
        server: ModelServer | Supervisor
        server = ModelServer(**vars(settings)) if process.workers == 1 else Supervisor(process.workers, settings)
        server.start()
    except (StartError, ValueError) as error:
        # In the log and on stdout, where TensorFlow Serving writes it.
        text = f"INVALID_ARGUMENT: {error}" if isinstance(error, ValueError) else str(error).removeprefix("Error: ")
        logger.error("Failed to start server. Error: %s", text)
        _say(f"Failed to start server. Error: {text}")
        return 255  # TensorFlow Serving's `return -1`
    ready = f"{', '.join(sorted(server.repository.models))}: listening on {server.address}"
    if settings.rest_api_port is not None:
        ready += f" and {server.rest_address}"
    logger.info("%s", ready)
    _say(ready)
    signals.wait()
    logger.info("Stopping")
    stopping = threading.Thread(target=server.stop, args=(process.grace_seconds,), daemon=True)
    stopping.start()
    stopping.join(process.grace_seconds + 2)
    if stopping.is_alive():  # a model that is still running can't be stopped, and Python would wait for it
        logger.warning("Grace period expired with requests still running; exiting")
        logging.shutdown()
        finish()
        os._exit(0)
    return 0


def _allow_many_files() -> None:
    """Raises the limit of open files as far as the system lets it: each connection is one."""
    try:
        import resource
    except ImportError:  # Windows, where there is no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(line: str) -> None:
    sys.stdout.write(f"{escaped(line)}\n")
    sys.stdout.flush()


class _Signals:
    """SIGTERM, SIGINT and SIGHUP: the first one after `wait` was called ends it; all others end the process."""

    def __init__(self) -> None:
        self._expected = False
        self._came = threading.Event()
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):  # nohup
                signal.signal(number, self._handle)

    def wait(self) -> None:
        self._expected = True
        # In slices: on Windows, Python can't run signal handlers during a wait without a timeout.
        while not self._came.wait(0.5):
            pass

    def _handle(self, number: int, _: object) -> None:
        if not self._expected or self._came.is_set():
            # Not by raising an exception, which would wait for the threads of the calls in flight.
            os._exit(128 + number)
        self._came.set()


if __name__ == "__main__":
    sys.exit(main())
