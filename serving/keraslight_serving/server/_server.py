"""The server as an object."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.observe import Observer
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.loading.loader import Loader
from keraslight_serving.server.models.config import ModelConfig, read_config_file
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.models.repository import Repository
from keraslight_serving.server.rpc.security import Tokens, ssl_credentials
from keraslight_serving.server.rpc.server import listen, make_server
from keraslight_serving.server.telemetry.logging import configure
from keraslight_serving.server.telemetry.metrics import DEFAULT_PATH, Metrics, path_of
from keraslight_serving.server.telemetry.request_log import RequestLog

if TYPE_CHECKING:
    from keraslight_serving.server.rest import RestServer

logger = logging.getLogger("keraslight_serving.server")

NOTICE_SECONDS = 0.1
# As TensorFlow Serving calls itself in health checks; it knows no models there.
_SERVICES = ("ModelService", "PredictionService")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class ModelServer:
    """Serves models over gRPC and REST, the newest version of one or a whole repository; openly, unless told otherwise.

    gRPC reflection tells clients such as grpcurl what can be called.
    `grpc.health.v1` is answered for the server (""), for TensorFlow Serving's `ModelService` and `PredictionService`,
    and for the model's name, which is NOT_SERVING while no version is loaded; all are once the server stops.

    Args:
        model_name: what clients ask for.
        model_base_path: the folder that holds the version folders.
        model_config_file: instead of these two, a `ModelServerConfig` in protobuf's text format, with the models, which
            of their versions are served, and labels for them.
        model_config_file_poll_wait_seconds: how often to read that file again; 0: only at the start.
        allow_version_labels_for_unavailable_models: a reload by a call may give a label that is not in use yet to a
            version that isn't loaded. (The file may in any case: a label moves when its version is loaded.)
        host: the address to listen on. Only this machine can reach the default; "0.0.0.0" is for all.
        port: 0 picks a free one.
        file_system_poll_wait_seconds: how often to look for new versions; 0: only at the start.
        max_num_load_retries: how often a version that can't be loaded is tried again, its files being the same.
        load_retry_interval_micros: until the first of these tries; each next one waits twice as long.
        num_threads: CPU threads of one LiteRT interpreter. Default: half of the CPUs, 1 to 4. More make one answer
            quicker on an idle machine; 1 gives most requests per second, and suffers least from busy neighbours.
        num_interpreters: LiteRT interpreters, that is requests that run at once. Default: as many as have a CPU for
            each of their threads.
        load_saved_model: load the SavedModel with its version, not at the first request that needs it. That request
            then doesn't wait for TensorFlow's import; a server that only runs `model.tflite` stays small without.
        grpc_max_threads: requests that are worked on at once, others wait. Default: enough for all interpreters.
        grpc_socket_path: a Unix socket to listen on as well.
        grpc_channel_arguments: `key=value,key=value`, grpc's own settings, such as
            `grpc.max_receive_message_length=4194304` (bytes; default: 2 GiB). A client that opens calls and never sends
            their messages keeps their threads, unless `grpc.max_connection_age_ms=...` together with
            `grpc.max_connection_age_grace_ms=...` ends old connections; others connect anew without noticing.
        ssl_config_file: see `_security.ssl_credentials`. Default: no encryption.
        auth_token_file: tokens, one a line, of which callers must send one as `authorization: Bearer ...`; health
            checks need none. Default: everybody may call.
        monitoring_config_file: where `metrics` are shown on the port of REST, see `_metrics.path_of`. Default: nowhere.
        metrics_directory: shared by servers on several processes, which then all show the sum of their metrics.
        log_format: sends the log to stderr as `text` or `json`, see `_logging.configure`.
        log_level: the same, from `debug`, `info`, `warning` or `error` on. Default of both: the log goes where the
            program sends it.
        enable_signature_method_name_check: answer Classify and Regress only by signatures whose `method_name` is
            TensorFlow Serving's for them, which those that TensorFlow 2 saves are not.
        enable_serialization_as_tensor_content: answer Predict with `tensor_content`, which is quicker to read, rather
            than with lists such as `float_val`, which old clients expect.
        make_repository, shared_port: for the workers of `_workers.py`: what is called in place of Repository, and
            whether other processes listen on the same port.
        rest_api_port: for the REST API; 0 picks a free one, None: there is none.
        rest_api_timeout_in_ms: milliseconds for an answer over REST; 0: no limit.
        rest_api_num_threads: REST requests that are worked on at a time. Default: as for gRPC.
        rest_api_enable_cors_support: let web pages of other origins ask over REST.
        engine: `auto` runs what it can in LiteRT and the rest in TensorFlow; `litert` serves only what needs no
            TensorFlow; `tensorflow` runs everything in the SavedModel, as TensorFlow Serving does.
        enable_batching: join requests to batches. It pays where a batch costs less than its rows do one by one, as with
            TensorFlow's engine; LiteRT's cost the same on a CPU.
        batching_parameters_file: TensorFlow Serving's BatchingParameters, as text; its defaults where left out.
        enable_per_model_batching_parameters: versions are batched as the `batching_params.pbtxt` in their folders says,
            those without one not at all. The threads are those of `batching_parameters_file`.
        enable_model_warmup: replay a version's `assets.extra/tf_serving_warmup_requests` before it is announced.
        num_request_iterations_for_warmup: how often.

    Attributes:
        metrics: what is counted.

    Raises:
        ValueError: a number is out of range, or a choice is unknown.
        StartError: the model config file can't be read.
    """

    def __init__(
        self,
        model_name: str = "default",
        model_base_path: str | os.PathLike | None = None,
        *,
        model_config_file: str | os.PathLike | None = None,
        model_config_file_poll_wait_seconds: float = 0,
        allow_version_labels_for_unavailable_models: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        file_system_poll_wait_seconds: float = 1,
        max_num_load_retries: int = 5,
        load_retry_interval_micros: int = 60_000_000,
        num_threads: int | None = None,
        num_interpreters: int | None = None,
        load_saved_model: bool = False,
        grpc_max_threads: int | None = None,
        grpc_socket_path: str | os.PathLike | None = None,
        grpc_channel_arguments: str | None = None,
        ssl_config_file: str | os.PathLike | None = None,
        auth_token_file: str | os.PathLike | None = None,
        monitoring_config_file: str | os.PathLike | None = None,
        metrics_directory: str | os.PathLike | None = None,
        log_format: str | None = None,
        log_level: str | None = None,
        enable_signature_method_name_check: bool = False,
        enable_serialization_as_tensor_content: bool = False,
        make_repository: Callable[..., Any] = Repository,
        shared_port: bool = False,
        rest_api_port: int | None = None,
        rest_api_timeout_in_ms: int = 30_000,
        rest_api_num_threads: int | None = None,
        rest_api_enable_cors_support: bool = False,
        engine: str = "auto",
        enable_batching: bool = False,
        batching_parameters_file: str | os.PathLike | None = None,
        enable_per_model_batching_parameters: bool = False,
        enable_model_warmup: bool = True,
        num_request_iterations_for_warmup: int = 1,
    ) -> None:
        if (model_base_path is None) == (model_config_file is None):
            raise ValueError(
                "Either `model_base_path` or `model_config_file` must be given. "
                f"Received: {model_base_path!r} and {model_config_file!r}"
            )
        if not model_name:
            raise ValueError("`model_name` must not be empty. Received: ''")
        if not 0 <= port < 2**16:
            raise ValueError(f"`port` must be between 0 and 65535. Received: {port}")
        if rest_api_port is not None and not 0 <= rest_api_port < 2**16:
            raise ValueError(f"`rest_api_port` must be between 0 and 65535. Received: {rest_api_port}")
        if rest_api_timeout_in_ms < 0:
            raise ValueError(f"`rest_api_timeout_in_ms` must be at least 0. Received: {rest_api_timeout_in_ms}")
        for name, value in (("grpc_max_threads", grpc_max_threads), ("rest_api_num_threads", rest_api_num_threads)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {value}")
        if log_format or log_level:
            configure(log_format or "text", log_level or "info")
        self.metrics = Metrics(metrics_directory)
        self._request_log = RequestLog(self.metrics)
        self._loader = Loader(
            num_threads=num_threads,
            num_interpreters=num_interpreters,
            load_saved_model=load_saved_model,
            engine=engine,
            enable_batching=enable_batching,
            batching_parameters_file=batching_parameters_file,
            enable_per_model_batching_parameters=enable_per_model_batching_parameters,
            enable_model_warmup=enable_model_warmup,
            num_request_iterations_for_warmup=num_request_iterations_for_warmup,
            metrics=self.metrics,
        )
        self._host = host
        self._wanted_port = port
        self._socket_path = grpc_socket_path
        self._channel_arguments = grpc_channel_arguments
        self._ssl_config_file = ssl_config_file
        self._auth_token_file = auth_token_file
        self._monitoring_config_file = monitoring_config_file
        self._health = health.HealthServicer()
        if model_config_file is None:
            configs = [ModelConfig(model_name, Path(model_base_path).absolute())]
        else:
            configs = read_config_file(Path(model_config_file))
        self._repository = make_repository(
            configs,
            LoadPolicy(
                self._loader,
                poll_seconds=file_system_poll_wait_seconds,
                retries=max_num_load_retries,
                retry_seconds=load_retry_interval_micros / 1e6,
                on_serving=self._report_health,
            ),
            allow_labels_anywhere=allow_version_labels_for_unavailable_models,
        )
        self._config_file = (model_config_file, model_config_file_poll_wait_seconds)
        self._shared_port = shared_port
        self._service = Service(
            self._repository,
            observer=Observer(self.metrics, self._request_log, self._repository.logging),
            check_methods=enable_signature_method_name_check,
            # Somewhat more than run at once: while one waits for an interpreter, another is read or written.
            slots=grpc_max_threads or self._loader.callers,
        )
        self._tensor_content = enable_serialization_as_tensor_content
        self._rest: RestServer | None = None
        self._wanted_rest_port = rest_api_port
        self._rest_options = {
            "timeout": rest_api_timeout_in_ms / 1000 or None,
            "threads": rest_api_num_threads or self._loader.callers,
            "cors": rest_api_enable_cors_support,
        }
        self._started = False
        self._server: grpc.Server | None = None
        self._port: int | None = None

    @property
    def repository(self) -> Any:
        """The models, as `make_repository` made them."""
        return self._repository

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            RuntimeError: the server is not started.
        """
        if self._port is None:
            raise RuntimeError("A server has a port once it is started. Received: a server that is not")
        return self._port

    @property
    def address(self) -> str:
        """`host:port`, as clients take it."""
        return f"{self._host}:{self.port}"

    @property
    def rest_address(self) -> str:
        """`http://host:port`, as clients take it.

        Raises:
            RuntimeError: the server is not started, or has no REST API.
        """
        if self._rest is None or self._rest.port is None:
            raise RuntimeError("A server with `rest_api_port` has a REST address once it is started. Received: none")
        return f"http://{self._host}:{self._rest.port}"

    def start(self) -> "ModelServer":
        """Loads the model, then opens the port: whoever can connect gets answers.

        Raises:
            StartError: no version that loads, a file that can't be read, or the port is taken. Nothing stays open then.
            RuntimeError: it was started before.
        """
        if self._started:
            raise RuntimeError("A server can be started once. Received: a second start()")
        self._started = True
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def _open(self) -> None:
        # All that can be wrong with the files of the operator comes first: loading a model takes its time.
        credentials = ssl_credentials(self._ssl_config_file) if self._ssl_config_file else None
        tokens = Tokens(self._auth_token_file) if self._auth_token_file else None
        metrics_path = path_of(self._monitoring_config_file) if self._monitoring_config_file else None
        if metrics_path and self._wanted_rest_port is None:
            logger.warning("Metrics are shown on the port of REST: give `rest_api_port`, too")
        if tokens and not credentials and self._host not in _LOOPBACK:
            logger.warning("Tokens travel without encryption to %s: give `ssl_config_file`, too", self._host)
        server = make_server(
            Messages(self._service, tensor_content=self._tensor_content),
            channel_arguments=self._channel_arguments or "",
            tokens=tokens,
            shared_port=self._shared_port,
        )
        if self._wanted_rest_port is not None:
            self._rest = self._make_rest(self._wanted_rest_port, tokens, metrics_path)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in ("", *_SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        targets = [f"{self._host}:{self._wanted_port}"]
        if self._socket_path:
            targets.append(f"unix:{os.fspath(self._socket_path)}")
        self.metrics.start()
        self._repository.start()
        path, seconds = self._config_file
        if path is not None and seconds > 0:
            self._repository.follow_file(Path(path), seconds)
        try:
            port = listen(server, targets, credentials)[0]
            if self._rest is not None:
                self._rest.start()
        except BaseException:
            # grpc gives back the ports of a server only when it has run; whoever gets in meanwhile is sent away.
            self._service.close()
            server.start()
            server.stop(None)
            raise
        server.start()
        self._server, self._port = server, port

    def _release(self) -> None:
        """Ends what start() began beside the ports, however far it came."""
        self._repository.close()
        self._loader.close()
        self._request_log.close()
        self.metrics.close()

    def _make_rest(self, port: int, tokens: Tokens | None, metrics_path: str | None) -> "RestServer":
        # Here, so that a server without REST doesn't wait for the import of its libraries.
        from keraslight_serving.server.rest import Handler, RestApp, RestServer

        app = RestApp(
            Handler(self._service, tensor_content=self._tensor_content),
            **self._rest_options,
            metrics=self.metrics.render if metrics_path else None,
            metrics_path=metrics_path or DEFAULT_PATH,
            authorize=tokens.authorize if tokens else None,
            observe=self.metrics.rest_request,
        )
        return RestServer(app, self._host, port, shared_port=self._shared_port)

    def stop(self, grace: float | None = 5.0) -> None:
        """Refuses new requests, lets those in flight finish, and unloads the model. Does nothing the second time.

        Args:
            grace: seconds after which requests in flight are cancelled; None: at once.
        """
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()  # before the port closes: a load balancer sends no more
        self._service.close()
        if grace:
            # gRPC answers CANCELLED, which nobody sends again, to calls that arrive while it shuts down. So the callers
            # hear UNAVAILABLE from us before.
            time.sleep(min(grace, NOTICE_SECONDS))
        stopped = self._server.stop(grace)
        if self._rest is not None:
            self._rest.stop(grace)
        stopped.wait()
        self._server = None
        self._port = None
        self._release()

    def _report_health(self, model: str, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self._health.set(model, states.SERVING if serving else states.NOT_SERVING)

    def __enter__(self) -> "ModelServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
