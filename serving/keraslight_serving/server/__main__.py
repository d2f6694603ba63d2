"""`python -m keraslight_serving.server`: a server in a process of its own, with TensorFlow Serving's flags."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.settings import parse_flags
from keraslight_serving.server.telemetry.logging import handler
from keraslight_serving.server.workers.supervisor import Supervisor

logger = logging.getLogger("keraslight_serving.server")

# As TensorFlow Serving's `return -1`.
FAILED = 255


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a server until SIGTERM or SIGINT. Returns the exit code: 0, or 255 for a server that can't start.

    The first signal drains: health checks answer NOT_SERVING, new requests are refused, those in flight have
    `--grace_seconds` to finish. A second signal, or one before the server listens, ends the process at once, with 128
    and its number, as shells report it.
    """
    logging.basicConfig(level=logging.INFO, handlers=[handler()])
    signals = _Signals()
    try:
        flags = parse_flags(argv)
        grace, workers = flags.pop("grace_seconds", 5.0), flags.pop("workers", 1)
        options = {"port": 8500, **flags}
        server = (ModelServer(**options) if workers == 1 else Supervisor(workers, **options)).start()
    except (StartError, ValueError) as error:
        return _fail(error)
    ready = f"{', '.join(sorted(server.repository.models))}: listening on {server.address}"
    if "rest_api_port" in options:
        ready += f" and {server.rest_address}"
    logger.info("%s", ready)
    _say(ready)
    signals.wait()
    logger.info("Stopping")
    _stop(server, grace)
    return 0


def _stop(server: ModelServer | Supervisor, grace: float) -> None:
    """Drains the server. Ends the process where a model runs on: nothing can stop it, and Python would wait for it."""
    stopping = threading.Thread(target=server.stop, args=(grace,), daemon=True)
    stopping.start()
    stopping.join(grace + 2)
    if stopping.is_alive():
        logger.warning("Requests still run after the grace: ending all the same")
        logging.shutdown()
        os._exit(0)


def _fail(error: Exception) -> int:
    """On stdout, where TensorFlow Serving writes it, and in the log."""
    text = f"INVALID_ARGUMENT: {error}" if isinstance(error, ValueError) else str(error).removeprefix("Error: ")
    logger.error("Failed to start server. Error: %s", text)
    _say(f"Failed to start server. Error: {text}")
    return FAILED


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _Signals:
    """SIGTERM and SIGINT: the first one once somebody waits for it is told to them, all others end the process."""

    def __init__(self) -> None:
        self._expected = False
        self._came = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def wait(self) -> None:
        self._expected = True
        # In slices: a wait without a time limit would not let Python run the signal handlers on Windows.
        while not self._came.wait(0.5):
            pass

    def _handle(self, number: int, _: object) -> None:
        if not self._expected or self._came.is_set():
            # Not by an exception: that would wait for the threads of the calls in flight.
            os._exit(128 + number)
        self._came.set()


if __name__ == "__main__":
    sys.exit(main())
