"""`python -m keraslight_serving.server`: a server in a process of its own, with TensorFlow Serving's flags."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from keraslight_serving.server import ModelServer, StartError

logger = logging.getLogger("keraslight_serving.server")

DESCRIPTION = """\
Serves an image classifier over TensorFlow Serving's gRPC protocol.

  python -m keraslight_serving.server --port=8500 --model_name=digits --model_base_path=savedmodels/digits

The base path holds one folder per version, named as a whole number; the highest that loads is served, and a new one
replaces it while requests go on. Publish a version by renaming a finished folder into place.

  savedmodels/digits/1/saved_model.pb, variables/   runs in TensorFlow (pip install tensorflow)
  savedmodels/digits/1/model.tflite                 optional: its signatures run in LiteRT, without TensorFlow

Once the model is loaded, a line with `listening on HOST:PORT` goes to stdout; the log goes to stderr.
SIGTERM and Ctrl-C let the requests in flight finish, and exit with 0. A server that can't start exits with 1.
"""

EPILOG = "Flags of TensorFlow Serving that are not listed here are ignored with a warning."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a server until SIGTERM or SIGINT. Returns the exit code."""
    parser = _parser()
    flags, unknown = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for argument in unknown:
        logger.warning("unknown argument: %s (ignored)", argument)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    options = vars(flags)
    grace = options.pop("grace_seconds")
    try:
        server = ModelServer(**options).start()
    except (StartError, ValueError) as error:
        logger.error("Failed to start server. %s", error)
        return 1
    logger.info("%s: listening on %s", flags.model_name, server.address)
    sys.stdout.write(f"{flags.model_name}: listening on {server.address}\n")
    sys.stdout.flush()
    # In slices: a wait without a time limit would not let Python run the signal handlers on Windows.
    while not stopping.wait(0.5):
        pass
    logger.info("Stopping")
    server.stop(grace)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keraslight_serving.server",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--port", type=int, default=8500, help="gRPC port; 0 picks a free one (default: 8500)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for other machines (default: 127.0.0.1)")
    add("--model_name", default="default", help="the name that clients ask for (default: default)")
    add("--model_base_path", help="the folder with the version folders")
    add("--model_config_file", help="a ModelServerConfig in protobuf text format: several models, versions, labels")
    add(
        "--file_system_poll_wait_seconds",
        type=float,
        default=1,
        help="seconds between two looks for new versions; 0: look only at the start (default: 1)",
    )
    add(
        "--num_threads",
        type=int,
        help="CPU threads of one LiteRT interpreter; 1 gives most requests per second (default: half the CPUs, 1 to 4)",
    )
    add("--num_interpreters", type=int, help="requests that run in LiteRT at once (default: CPUs / num_threads)")
    add(
        "--load_saved_model",
        action="store_true",
        help="load the SavedModel at the start, not at the first request that needs TensorFlow",
    )
    add("--grace_seconds", type=float, default=5, help="time for requests in flight when stopping (default: 5)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
