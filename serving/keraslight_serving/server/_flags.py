"""The command line: TensorFlow Serving's 48 flags and our own.

Flags are written `--name=value`; a boolean also as `--name` alone. `--name value` works too, unlike in TensorFlow
Serving, which takes it for two unknown arguments and starts on its default port.

Command lines for TensorFlow Serving keep working: unknown flags are ignored with a warning, and so are those of
TensorFlow Serving that have no meaning here, with the reason. A value that can't be parsed ends the process with the
usage text and exit code 255.
"""

import argparse
import difflib
import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from keraslight_serving.server.settings import OURS, TENSORFLOW_SERVING, flags

logger = logging.getLogger("keraslight_serving.server")

DESCRIPTION = """\
Serves image classifiers over TensorFlow Serving's gRPC and REST protocols.

  python -m keraslight_serving.server --port=8500 --model_name=digits --model_base_path=savedmodels/digits

The base path contains one folder per version, named with a whole number. The highest version that loads is served;
a new one replaces it without interrupting requests. Publish a version by renaming a complete folder into place.

  savedmodels/digits/1/saved_model.pb, variables/   runs in TensorFlow (pip install tensorflow)
  savedmodels/digits/1/model.tflite                 optional: its signatures run in LiteRT, without TensorFlow

Once the model is loaded, the server prints a line with `listening on HOST:PORT` to stdout. It logs to stderr.
On SIGTERM or Ctrl-C it finishes the requests in flight and exits with 0; a second signal ends it at once. A server
that can't start prints the reason to stdout and exits with 255.
"""

EPILOG = (
    "TensorFlow Serving flags that are not listed here are accepted, but ignored with a warning that gives the reason."
)

_NO_ALTS = "ALTS is specific to Google Cloud; without --ssl_config_file, connections are NOT encrypted"
_NO_GPU = "models run on the CPU"
_NO_TENSORFLOW_POOL = "TensorFlow uses all CPUs; --num_threads is for LiteRT"
_INTERPRETERS = "--num_interpreters sets their number"
_PLATFORM = "there is only one platform; --engine selects what runs it"

# TensorFlow Serving's flags that have no meaning here, with the reason.
IGNORED: dict[str, tuple[type, str]] = {
    "enable_grpc_healthcheck_service": (bool, "grpc.health.v1 is always served"),
    "enable_profiler": (bool, "there is no profiler service"),
    "flush_filesystem_caches": (bool, "model files stay in the system's cache, which speeds up the next start"),
    "mixed_precision": (str, _NO_GPU),
    "num_load_threads": (int, "each model loads in its own thread, independently of the others"),
    "num_tflite_interpreters_per_pool": (int, _INTERPRETERS),
    "num_tflite_pools": (int, _INTERPRETERS),
    "num_unload_threads": (int, "a version is unloaded as soon as its last request is done"),
    "per_process_gpu_memory_fraction": (float, _NO_GPU),
    "platform_config_file": (str, _PLATFORM),
    "prefer_tflite_model": (bool, "--engine=auto runs model.tflite where there is one"),
    "remove_unused_fields_from_bundle_metagraph": (bool, "only the signatures of a graph's description are kept"),
    "saved_model_tags": (str, "the graph tagged `serve` is served"),
    "skip_initialize_tpu": (bool, _NO_GPU),
    "tensorflow_inter_op_parallelism": (int, _NO_TENSORFLOW_POOL),
    "tensorflow_intra_op_parallelism": (int, _NO_TENSORFLOW_POOL),
    "tensorflow_session_config_file": (str, _PLATFORM),
    "tensorflow_session_parallelism": (int, _NO_TENSORFLOW_POOL),
    "thread_pool_factory_config_file": (str, _NO_TENSORFLOW_POOL),
    "use_alts_credentials": (bool, _NO_ALTS),
    "xla_cpu_compilation_enabled": (bool, "graphs run as they were saved"),
    "xla_gpu_compilation_enabled": (bool, _NO_GPU),
}


def parse_flags(argv: Sequence[str] | None) -> dict[str, Any]:
    """Returns the flags of a command line (None for this process's) by name, and warns of what is ignored.

    An empty text and `rest_api_port` 0 count as not given. With a `model_config_file`, so do `model_name` and
    `model_base_path`, as in TensorFlow Serving.

    Raises:
        SystemExit: 255 after an error and the usage text; 0 after `--help` and `--version`.
        ValueError: Flags contradict each other; the texts are TensorFlow Serving's.
    """
    parser = _parser()
    namespace, unknown = parser.parse_known_args(argv)
    given = vars(namespace)
    if given.pop("version", False):
        sys.stdout.write(f"keraslight {importlib.metadata.version('keraslight')}\n")
        parser.exit()
    names = [*(flag.name for group in (TENSORFLOW_SERVING, OURS) for flag in flags(group)), *IGNORED]
    for argument in unknown:
        near = difflib.get_close_matches(argument.partition("=")[0].lstrip("-"), names, n=1, cutoff=0.75)
        hint = f"; did you mean --{near[0]}?" if near else ""
        logger.warning("unknown argument: %s (ignored%s)", argument, hint)
    for name in given.keys() & IGNORED.keys():
        logger.warning("--%s is ignored: %s", name, IGNORED[name][1])
    found = {name: value for name, value in given.items() if name not in IGNORED and value != ""}
    if found.get("rest_api_port") == 0:
        del found["rest_api_port"]
    if given.get("use_alts_credentials") and "ssl_config_file" in found:
        raise ValueError("Either use_alts_credentials must be false or ssl_config_file must be empty.")
    if "model_config_file" in found:
        found.pop("model_name", None)
        found.pop("model_base_path", None)
    elif "model_base_path" not in found:
        raise ValueError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(255, f"{self.prog}: error: {message}\n")  # TensorFlow Serving's exit code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m keraslight_serving.server",
        usage="%(prog)s --model_base_path=FOLDER [--flag=value ...]; --help lists the flags",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for title in (TENSORFLOW_SERVING, OURS):
        group = parser.add_argument_group(title)
        for flag in flags(title):
            text = flag.help
            if flag.default is not None:
                default = str(flag.default).lower() if flag.type is bool else flag.default
                text = f"{text.removesuffix('.')} (default: {default})"
            _add(group, flag.name, flag.type, text)
    for name, (kind, _) in IGNORED.items():
        _add(parser, name, kind, argparse.SUPPRESS)
    return parser


def _add(parser: argparse._ActionsContainer, name: str, kind: type, text: str) -> None:
    if kind is bool:
        parser.add_argument(f"--{name}", type=_boolean, nargs="?", const=True, metavar="true|false", help=text)
    else:
        parser.add_argument(f"--{name}", type=kind, metavar={int: "N", float: "X", str: "TEXT"}[kind], help=text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false. Received: {text!r}")
    return text == "true"
