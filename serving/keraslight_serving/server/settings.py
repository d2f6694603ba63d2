"""The server's settings, each written once: name, type, defaults, limits and description.

`ModelServer`'s arguments and their documentation, the command line's flags, `--help`, and all checks derive from the
fields of `Settings` and `ProcessSettings`. To add a setting, add a field here and read it where it takes effect.
"""

# ruff: noqa: RUF009 (the calls in the dataclasses' defaults are `dataclasses.field`)

import dataclasses
import functools
import os
import typing
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.running.servable import ENGINES
from keraslight_serving.server.telemetry.logging import FORMATS, LEVELS

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")

StrPath = str | os.PathLike[str]

# The groups of flags in `--help`.
TENSORFLOW_SERVING = "TensorFlow Serving's flags"
OURS = "keraslight's own flags"

LARGEST = 2**31  # of numbers, as in TensorFlow Serving, whose flags are int32

GRPC_PORT = 8500  # of a server process; a `ModelServer` in a program or test picks a free port


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default."""

    help: str  # for `--help` and the documentation
    details: str = ""  # further sentences for the documentation
    group: str | None = TENSORFLOW_SERVING  # or OURS; None for a setting without a flag
    flag_default: int | str | None = None  # shown in `--help` where it differs from the keyword's
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()  # allowed texts; any if empty

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError for a value that is out of range or not a choice; None is always allowed."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise ValueError(f"`{name}` must be one of {', '.join(self.choices)}. Received: {value!r}")
        low, high = self.minimum, self.maximum
        if isinstance(value, int | float) and not abs(value) < LARGEST:  # nan and infinity, too
            raise ValueError(f"`{name}` must be a number below {LARGEST}. Received: {value}")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise ValueError(f"`{name}` must be {limits}. Received: {value}")


def _setting(default: T, help: str, details: str = "", **more: Any) -> T:
    return dataclasses.field(default=default, metadata={"setting": Setting(help, details, **more)})


@dataclass(frozen=True)
class Settings:
    """The settings of a `ModelServer`: its arguments, in this order, with these defaults.

    Raises:
        ValueError: A number is out of range, a choice is unknown, or settings contradict each other.
    """

    # fmt: off
    model_name: str = _setting("default", "Model name that clients request.")
    model_base_path: StrPath | None = _setting(None, "Folder that contains the version folders.")
    _: KW_ONLY
    model_config_file: StrPath | None = _setting(
        None, "Text proto ModelServerConfig that lists several models, instead of model_name and model_base_path.",
        "It also selects versions and assigns labels to them.")
    model_config_file_poll_wait_seconds: float = _setting(
        0, "Seconds between two reads of the model config file; 0 reads it only at startup.")
    allow_version_labels_for_unavailable_models: bool = _setting(
        False, "Allow reload requests to assign new labels to versions that aren't loaded.",
        "The model config file may always do so: a label moves once its version is loaded.")
    host: str = _setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 for all of this machine's.",
        "Only this machine can reach the default address.", group=OURS)
    port: int = _setting(0, "gRPC port; 0 picks a free one.", flag_default=GRPC_PORT, minimum=0, maximum=65535)
    file_system_poll_wait_seconds: float = _setting(
        1, "Seconds between two scans for new versions; 0 scans only at startup.",
        "A version that appears is loaded once its files are the same in two scans. One whose files change afterwards "
        "is loaded again.")
    incomplete_version_wait_seconds: float = _setting(
        10, "Seconds for which the files of a new version must not change before it is loaded, if it lacks a file that "
        "the serving version has.",
        "It may be a version that is still being copied.", group=OURS, minimum=0)
    max_num_load_retries: int = _setting(
        5, "Number of retries for a version that fails to load, as long as its files don't change.")
    load_retry_interval_micros: int = _setting(
        60_000_000, "Microseconds before the first of these retries; each later pause is twice as long.")
    num_threads: int | None = _setting(
        None, "CPU threads per LiteRT interpreter; 1 gives the most requests per second.",
        "By default half of the CPUs, 1 to 4. More threads shorten a single request on an idle machine; 1 also suffers "
        "least from busy neighbors.", group=OURS, flag_default="half the CPUs, 1 to 4", minimum=1)
    num_interpreters: int | None = _setting(
        None, "Number of LiteRT interpreters, which is the number of requests that run at once.",
        "By default as many as have one CPU per thread.", group=OURS, flag_default="CPUs / num_threads", minimum=1)
    load_saved_model: bool = _setting(
        False, "Load the SavedModel together with its version, not on the first request that needs it.",
        "That request then doesn't wait for TensorFlow's import. A server that only runs `model.tflite` needs less "
        "memory without this setting.", group=OURS)
    grpc_max_threads: int | None = _setting(
        None, "Maximum number of requests of each model processed at once; others wait. "
        "Derived from the CPUs if not given.",
        "Requests that run in LiteRT and in TensorFlow are counted separately.", minimum=1)
    grpc_socket_path: StrPath | None = _setting(None, "UNIX socket on which to listen for gRPC as well.")
    grpc_channel_arguments: str | None = _setting(
        None, "gRPC channel arguments, as key=value,key=value.",
        "`grpc.max_receive_message_length=...` takes precedence over `max_request_bytes`. Connections without calls "
        "are closed after `grpc.max_connection_idle_ms`, 300000 by default. Clients that open calls and "
        "never send their request occupy one thread per call; `grpc.max_connection_age_ms=...` together with "
        "`grpc.max_connection_age_grace_ms=...` closes old connections, and other clients reconnect transparently.")
    ssl_config_file: StrPath | None = _setting(
        None, "Text proto SSLConfig with the server's key and certificate and the CA of its clients.",
        "See `rpc.security.ssl_credentials`. Connections are not encrypted without it.")
    auth_token_file: StrPath | None = _setting(
        None, "File with one token per line; requests without one of them are rejected.",
        "Clients send a token as `authorization: Bearer ...`. Health checks need none.", group=OURS)
    monitoring_config_file: StrPath | None = _setting(
        None, "Text proto MonitoringConfig that publishes Prometheus metrics on the REST port.",
        "See `telemetry.metrics.path_of`.")
    metrics_directory: StrPath | None = _setting(
        None, "Directory through which several server processes share their metrics, to publish the sum.", group=None)
    log_format: str | None = _setting(
        None, "Log format, text or json.",
        "Sends the log to stderr. Without `log_format` and `log_level`, it goes where the program sends it.",
        group=OURS, flag_default="text", choices=FORMATS)
    log_level: str | None = _setting(
        None, "Lowest level to log: debug (one line per request), info, warning or error.",
        group=OURS, flag_default="info", choices=LEVELS)
    enable_signature_method_name_check: bool = _setting(
        False, "Answer Classify and Regress only with signatures whose method_name is made for them.",
        "Signatures saved by TensorFlow 2 have other method names.")
    enable_serialization_as_tensor_content: bool = _setting(
        False, "Answer Predict with tensor_content instead of lists such as float_val.",
        "It is faster to parse, but old clients expect lists.")
    make_repository: Callable[..., Any] = _setting(
        Repository, "Called instead of Repository; for the workers of a server.", group=None)
    shared_port: bool = _setting(
        False, "Whether other processes listen on the same port; for the workers of a server.", group=None)
    rest_api_port: int | None = _setting(
        None, "Port of the REST API; --rest_api_port=0 disables it.",
        "As a keyword, None disables it and 0 picks a free port.", flag_default=0, minimum=0, maximum=65535)
    rest_api_timeout_in_ms: int = _setting(
        30_000, "Time limit of a REST request, in milliseconds; 0 for none.", minimum=0)
    rest_api_num_threads: int | None = _setting(
        None, "Maximum number of REST requests that are processed or wait for their model at once.",
        "512 by default. See `grpc_max_threads` for those that are processed.", minimum=1)
    rest_api_body_timeout_in_ms: int = _setting(
        120_000, "Time in which the body of a REST request must arrive, in milliseconds; 0 for any.",
        group=OURS, minimum=0)
    rest_api_idle_timeout_in_ms: int = _setting(
        60_000, "Time after which a REST connection without a request is closed, in milliseconds.",
        "So are those that have sent only part of a request's headers.", group=OURS, minimum=1)
    max_request_bytes: int = _setting(
        100 * 2**20, "Maximum size of a request over either protocol, as sent and decompressed.",
        "It fits 174 images of 224x224x3 float32 pixels, or 697 of uint8 pixels.", group=OURS, minimum=1)
    max_request_bytes_in_flight: int = _setting(
        2**30, "Maximum size of all requests of more than 64 KiB that are received or processed at once.",
        "Further ones are rejected with RESOURCE_EXHAUSTED. One client address may have half of it over REST.",
        group=OURS, minimum=1)
    rest_api_enable_cors_support: bool = _setting(False, "Allow web pages of other origins to use the REST API.")
    engine: str = _setting(
        "auto", "Engine that runs the signatures: auto, litert or tensorflow.",
        "`auto` runs what it can in LiteRT and the rest in TensorFlow. `litert` only serves signatures that don't need "
        "TensorFlow. `tensorflow` runs everything in the SavedModel, as TensorFlow Serving does.",
        group=OURS, choices=ENGINES)
    enable_batching: bool = _setting(
        False, "Join concurrent requests into batches.",
        "It pays off where a batch costs less than its rows one by one, as in TensorFlow. With LiteRT on a CPU, both "
        "cost the same.")
    batching_parameters_file: StrPath | None = _setting(
        None, "Text proto BatchingParameters, for enable_batching.", "TensorFlow Serving's defaults fill the gaps.")
    enable_per_model_batching_parameters: bool = _setting(
        False, "Read the batching parameters of each version from batching_params.pbtxt in its folder.",
        "Versions without that file are not batched. The number of threads is still that of "
        "`batching_parameters_file`.")
    enable_model_warmup: bool = _setting(
        True, "Replay assets.extra/tf_serving_warmup_requests before a version is served.")
    num_request_iterations_for_warmup: int = _setting(1, "Number of times each warmup request is replayed.", minimum=1)
    # fmt: on

    def __post_init__(self) -> None:
        if (self.model_base_path is None) == (self.model_config_file is None):
            rule = "Either `model_base_path` or `model_config_file` must be given."
            raise ValueError(f"{rule} Received: {self.model_base_path!r} and {self.model_config_file!r}")
        if not self.model_name:
            raise ValueError("`model_name` must not be empty. Received: ''")
        _check(self)
        if self.batching_parameters_file and not self.enable_batching:
            raise ValueError(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )


@dataclass(frozen=True)
class ProcessSettings:
    """The settings of a server process that are not its `ModelServer`'s. Raises ValueError, as `Settings`."""

    version: bool = _setting(False, "Show the version and exit.")
    workers: int = _setting(1, "Processes that share the port, for machines with many cores.", group=OURS, minimum=1)
    grace_seconds: float = _setting(
        5, "Seconds that requests in flight have to finish at shutdown.", group=OURS, minimum=0
    )

    def __post_init__(self) -> None:
        _check(self)


def _check(settings: Settings | ProcessSettings) -> None:
    for field in dataclasses.fields(settings):
        field.metadata["setting"].check(field.name, getattr(settings, field.name))


class Flag(typing.NamedTuple):
    """A setting as a flag of the command line."""

    name: str
    type: type  # bool, int, float or str
    default: Any  # shown in `--help`; None for none
    help: str


def flags(group: str) -> list[Flag]:
    """The flags of a group, `TENSORFLOW_SERVING` or `OURS`."""
    found = []
    for field in (*dataclasses.fields(Settings), *dataclasses.fields(ProcessSettings)):
        setting: Setting = field.metadata["setting"]
        if setting.group == group:
            types = (field.type, *typing.get_args(field.type))
            kind = next(kind for kind in (bool, int, float, str) if kind in types)
            default = field.default if setting.flag_default is None else setting.flag_default
            found.append(Flag(field.name, kind, default, setting.help))
    return found


def takes(
    settings: Callable[P, Settings],
) -> Callable[[Callable[[S, Settings], None]], Callable[Concatenate[S, P], None]]:
    """Turns an `__init__` that takes `Settings` into one that takes its fields.

    The types of the arguments are those of the fields, for type checkers too, and so is their documentation.
    """

    def decorate(init: Callable[[S, Settings], None]) -> Callable[Concatenate[S, P], None]:
        def from_fields(self: S, /, *args: P.args, **keywords: P.kwargs) -> None:
            init(self, settings(*args, **keywords))

        functools.update_wrapper(from_fields, Settings.__init__, assigned=(), updated=())  # for the signature
        found = ((field.name, field.metadata["setting"]) for field in dataclasses.fields(Settings))
        lines = (f"    {name}: {setting.help} {setting.details}".rstrip() for name, setting in found)
        from_fields.__doc__ = "\n".join(["Args:", *lines])
        return from_fields

    return decorate
