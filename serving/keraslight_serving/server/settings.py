"""The command line's flags: TensorFlow Serving's 48 and our own.

Written `--name=value`; a boolean also as `--name` alone. Beyond TensorFlow Serving, `--name value` is taken too: there
it would be two unknown arguments, and a server on a port that nobody meant.

An unknown flag is named and ignored, and so is each of TensorFlow Serving's that has no meaning here, with the reason:
command lines written for it go on working. A value that can't be read ends the process with usage and 255.
"""

import argparse
import difflib
import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

logger = logging.getLogger("keraslight_serving.server")

DESCRIPTION = """\
Serves image classifiers over TensorFlow Serving's gRPC and REST protocols.

  python -m keraslight_serving.server --port=8500 --model_name=digits --model_base_path=savedmodels/digits

The base path holds one folder per version, named as a whole number; the highest that loads is served, and a new one
replaces it while requests go on. Publish a version by renaming a finished folder into place.

  savedmodels/digits/1/saved_model.pb, variables/   runs in TensorFlow (pip install tensorflow)
  savedmodels/digits/1/model.tflite                 optional: its signatures run in LiteRT, without TensorFlow

Once the model is loaded, a line with `listening on HOST:PORT` goes to stdout; the log goes to stderr.
SIGTERM and Ctrl-C let the requests in flight finish, and exit with 0; a second one ends the server at once. A server
that can't start says why on stdout and exits with 255.
"""

EPILOG = "Flags of TensorFlow Serving that are not listed here are accepted, and ignored with a warning that says why."


class Flag(NamedTuple):
    """A flag that works: `ModelServer` takes an argument of its name, unless `main` uses it up."""

    name: str
    type: type  # bool, int, float or str
    default: bool | int | float | str | None  # None: the help says what happens without
    help: str


TENSORFLOW_SERVING = (
    Flag("port", int, 8500, "gRPC port; 0 picks a free one"),
    Flag("grpc_socket_path", str, None, "also listen for gRPC on this UNIX socket"),
    Flag("rest_api_port", int, 0, "HTTP port of the REST API; 0: none"),
    Flag("rest_api_timeout_in_ms", int, 30000, "milliseconds after which a REST call fails"),
    Flag("rest_api_num_threads", int, None, "REST calls that run at once; without it, as many as suit the CPUs"),
    Flag("rest_api_enable_cors_support", bool, False, "let web pages of other origins call the REST API"),
    Flag("model_name", str, "default", "the name that clients ask for"),
    Flag("model_base_path", str, None, "the folder with the version folders"),
    Flag("model_config_file", str, None, "text proto ModelServerConfig: several models, in place of the two above"),
    Flag("model_config_file_poll_wait_seconds", float, 0, "seconds between two readings of that file; 0: read it once"),
    Flag("file_system_poll_wait_seconds", float, 1, "seconds between two looks for new versions; 0: only at the start"),
    Flag("allow_version_labels_for_unavailable_models", bool, False, "let labels name versions that aren't loaded yet"),
    Flag("max_num_load_retries", int, 5, "how often a version that fails to load is tried again"),
    Flag("load_retry_interval_micros", int, 60_000_000, "microseconds between two of these tries"),
    Flag("enable_batching", bool, False, "run requests that come together in one go"),
    Flag("batching_parameters_file", str, None, "text proto BatchingParameters, for --enable_batching"),
    Flag("enable_per_model_batching_parameters", bool, False, "read batching_params.pbtxt in each version folder"),
    Flag("enable_model_warmup", bool, True, "replay assets.extra/tf_serving_warmup_requests before a version serves"),
    Flag("num_request_iterations_for_warmup", int, 1, "how often each of these requests is replayed"),
    Flag("enable_signature_method_name_check", bool, False, "Classify and Regress only by signatures made for them"),
    Flag("enable_serialization_as_tensor_content", bool, False, "answer with tensor_content rather than lists"),
    Flag("grpc_max_threads", int, None, "gRPC calls that are worked on at once; without it, as many as suit the CPUs"),
    Flag("grpc_channel_arguments", str, None, "gRPC's own options, name=value,name=value"),
    Flag("ssl_config_file", str, None, "text proto SSLConfig: the server's key and certificate, and the clients' CA"),
    Flag("monitoring_config_file", str, None, "text proto MonitoringConfig: metrics for Prometheus on the REST port"),
    Flag("version", bool, False, "show the version and exit"),
)

OURS = (
    Flag("host", str, "127.0.0.1", "address to listen on; 0.0.0.0 for other machines"),
    Flag("engine", str, "auto", "auto, litert or tensorflow: what runs the signatures"),
    Flag(
        "num_threads",
        int,
        None,
        "CPU threads of one LiteRT interpreter; 1 gives most requests per second (default: half the CPUs, 1 to 4)",
    ),
    Flag("num_interpreters", int, None, "requests that run in LiteRT at once (default: CPUs / num_threads)"),
    Flag("load_saved_model", bool, False, "load TensorFlow at the start, not at the first request that needs it"),
    Flag("workers", int, 1, "processes that share the port, for machines with many cores"),
    Flag("grace_seconds", float, 5, "time for requests in flight when stopping"),
    Flag("auth_token_file", str, None, "file with tokens, one a line; calls without one of them are refused"),
    Flag("log_format", str, "text", "text or json"),
    Flag("log_level", str, "info", "debug (a line a request), info, warning or error"),
)

_NO_GPU = "models run on the CPU"
_NO_TENSORFLOW_POOL = "TensorFlow uses all CPUs; --num_threads is LiteRT's"
_INTERPRETERS = "--num_interpreters sets their number"
_PLATFORM = "there is one platform, and --engine chooses what runs it"

# TensorFlow Serving's flags that have no meaning here, and why.
IGNORED: dict[str, tuple[type, str]] = {
    "enable_grpc_healthcheck_service": (bool, "grpc.health.v1 is always served"),
    "enable_profiler": (bool, "there is no profiler service"),
    "flush_filesystem_caches": (bool, "model files stay in the system's cache, which speeds up the next start"),
    "mixed_precision": (str, _NO_GPU),
    "num_load_threads": (int, "each model loads in a thread of its own, and none waits for another"),
    "num_tflite_interpreters_per_pool": (int, _INTERPRETERS),
    "num_tflite_pools": (int, _INTERPRETERS),
    "num_unload_threads": (int, "a version is unloaded as soon as its last request is done"),
    "per_process_gpu_memory_fraction": (float, _NO_GPU),
    "platform_config_file": (str, _PLATFORM),
    "prefer_tflite_model": (bool, "--engine=auto runs model.tflite where there is one"),
    "remove_unused_fields_from_bundle_metagraph": (bool, "nothing but the signatures is kept of a graph's description"),
    "saved_model_tags": (str, "the graph tagged `serve` is served"),
    "skip_initialize_tpu": (bool, _NO_GPU),
    "tensorflow_inter_op_parallelism": (int, _NO_TENSORFLOW_POOL),
    "tensorflow_intra_op_parallelism": (int, _NO_TENSORFLOW_POOL),
    "tensorflow_session_config_file": (str, _PLATFORM),
    "tensorflow_session_parallelism": (int, _NO_TENSORFLOW_POOL),
    "thread_pool_factory_config_file": (str, _NO_TENSORFLOW_POOL),
    "use_alts_credentials": (bool, "ALTS is Google Cloud's; connections are NOT encrypted without --ssl_config_file"),
    "xla_cpu_compilation_enabled": (bool, "graphs run as they were saved"),
    "xla_gpu_compilation_enabled": (bool, _NO_GPU),
}

_NAMES = [*(flag.name for flag in TENSORFLOW_SERVING + OURS), *IGNORED]
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def parse_flags(argv: Sequence[str] | None) -> dict[str, Any]:
    """Reads a command line; warns of what is ignored.

    Args:
        argv: None: that of this process.

    Returns:
        The flags that were given, by name. An empty text, and `rest_api_port` 0, count as not given; with a
        `model_config_file` so do `model_name` and `model_base_path`, as in TensorFlow Serving.

    Raises:
        SystemExit: 255 after an error and usage; 0 after --help and --version.
        ValueError: flags that don't go together, with TensorFlow Serving's texts.
    """
    parser = _parser()
    namespace, unknown = parser.parse_known_args(argv)
    given = vars(namespace)
    if given.pop("version", False):
        sys.stdout.write(f"keraslight {importlib.metadata.version('keraslight')}\n")
        parser.exit()
    for argument in unknown:
        near = difflib.get_close_matches(argument.partition("=")[0].lstrip("-"), _NAMES, n=1, cutoff=0.75)
        hint = f"; did you mean --{near[0]}?" if near else ""
        logger.warning("unknown argument: %s (ignored%s)", argument, hint)
    for name in given.keys() & IGNORED.keys():
        logger.warning("--%s is ignored: %s", name, IGNORED[name][1])
    alts = given.get("use_alts_credentials", False)
    flags = {name: value for name, value in given.items() if name not in IGNORED and value != ""}
    if flags.get("rest_api_port") == 0:
        del flags["rest_api_port"]
    if alts and "ssl_config_file" in flags:
        raise ValueError("Either use_alts_credentials must be false or ssl_config_file must be empty.")
    if "model_config_file" in flags:
        flags.pop("model_name", None)
        flags.pop("model_base_path", None)
    elif "model_base_path" not in flags:
        raise ValueError("Both server_options.model_base_path and server_options.model_config_file are empty!")
    return flags


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse's, with TensorFlow Serving's exit code."""
        self.print_usage(sys.stderr)
        self.exit(255, f"{self.prog}: error: {message}\n")


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
    for title, flags in (("TensorFlow Serving's flags", TENSORFLOW_SERVING), ("keraslight's own", OURS)):
        group = parser.add_argument_group(title)
        for flag in flags:
            text = flag.help if flag.default is None else f"{flag.help} (default: {_shown(flag.default)})"
            _add(group, flag.name, flag.type, text)
    for name, (kind, _) in IGNORED.items():
        _add(parser, name, kind, argparse.SUPPRESS)
    return parser


def _add(parser, name: str, kind: type, text: str) -> None:
    if kind is bool:
        parser.add_argument(f"--{name}", type=_boolean, nargs="?", const=True, metavar="true|false", help=text)
    else:
        parser.add_argument(f"--{name}", type=kind, metavar=_METAVARS[kind], help=text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false. Received: {text!r}")
    return text == "true"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
