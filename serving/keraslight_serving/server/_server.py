"""The server as an object."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from keraslight_serving.server.base.budget import Budget
from keraslight_serving.server.calls.messages import Messages
from keraslight_serving.server.calls.observe import Observer
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.loading.loader import Loader
from keraslight_serving.server.models.config import ModelConfig, read_config_file
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.models.protocols import LoadedVersion
from keraslight_serving.server.rpc.security import Tokens, ssl_credentials
from keraslight_serving.server.rpc.server import OPEN_CALLS, Health, listen, make_server
from keraslight_serving.server.settings import Settings, takes
from keraslight_serving.server.telemetry.logging import configure
from keraslight_serving.server.telemetry.metrics import DEFAULT_PATH, Metrics, path_of
from keraslight_serving.server.telemetry.request_log import RequestLog

if TYPE_CHECKING:
    from keraslight_serving.server.rest import RestServer

logger = logging.getLogger("keraslight_serving.server")


class ModelServer:
    """Serves the newest version of one model, or a repository of models, over gRPC and optionally REST.

    gRPC reflection tells clients such as grpcurl which methods exist. `grpc.health.v1` reports the health of the server
    (""), of TensorFlow Serving's `ModelService` and `PredictionService`, and of each model by its name. A model is
    NOT_SERVING while none of its versions is loaded; when the server stops, so is everything else.

    Attributes:
        metrics: Counters and histograms of the server.

    Raises:
        ValueError: A number is out of range, a choice is unknown, or arguments contradict each other.
        StartError: The model config file can't be read.
    """

    @takes(Settings)
    def __init__(self, settings: Settings) -> None:
        configure_logging(settings)
        self._settings = settings
        self.metrics = Metrics(settings.metrics_directory)
        self._request_log = RequestLog(self.metrics)
        self._loader = Loader(settings, self.metrics)
        self._health = Health()
        self._budget = Budget(settings.max_request_bytes_in_flight)
        self._repository = make_repository(settings, self._loader, self._report_health)
        self._service = Service(
            self._repository,
            observer=Observer(self.metrics, self._request_log, self._repository.logging),
            check_methods=settings.enable_signature_method_name_check,
            # Somewhat more than run at once: while one waits for an interpreter, another is parsed or serialized.
            slots=settings.grpc_max_threads or self._loader.callers,
            waiting=OPEN_CALLS,
        )
        self._rest: RestServer | None = None
        self._started = False
        self._server: grpc.Server | None = None
        self._port: int | None = None

    @property
    def repository(self) -> Any:
        """The models, as returned by `make_repository`."""
        return self._repository

    @property
    def port(self) -> int:
        """The gRPC port.

        Raises:
            RuntimeError: The server is not started.
        """
        if self._port is None:
            raise RuntimeError("A server has a port once it is started. Received: a server that is not")
        return self._port

    @property
    def address(self) -> str:
        """`host:port`, as clients take it."""
        return f"{self._settings.host}:{self.port}"

    @property
    def rest_address(self) -> str:
        """`http://host:port`, as clients take it.

        Raises:
            RuntimeError: The server is not started, or has no REST API.
        """
        if self._rest is None or self._rest.port is None:
            raise RuntimeError("A server with `rest_api_port` has a REST address once it is started. Received: none")
        return f"http://{self._settings.host}:{self._rest.port}"

    def start(self) -> "ModelServer":
        """Loads the models, then opens the ports, so that whoever can connect is served.

        Raises:
            StartError: No version loads, a file can't be read, or a port is taken. Nothing stays open then.
            RuntimeError: The server was started before.
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
        settings = self._settings
        # The operator's files are checked first, because loading a model takes time.
        credentials = ssl_credentials(settings.ssl_config_file) if settings.ssl_config_file else None
        tokens = Tokens(settings.auth_token_file) if settings.auth_token_file else None
        metrics_path = path_of(settings.monitoring_config_file) if settings.monitoring_config_file else None
        if metrics_path and settings.rest_api_port is None:
            logger.warning("Metrics are published on the REST port: set `rest_api_port`, too")
        if tokens and settings.host not in ("127.0.0.1", "localhost", "[::1]"):
            if not credentials:
                logger.warning("Tokens travel without encryption to %s: set `ssl_config_file`, too", settings.host)
            elif settings.rest_api_port is not None:
                logger.warning("Tokens travel without encryption to the REST port of %s: use a proxy", settings.host)
        server = make_server(
            Messages(
                self._service,
                tensor_content=settings.enable_serialization_as_tensor_content,
                max_bytes=settings.max_request_bytes,
            ),
            checks=self._health,
            budget=self._budget,
            max_message=settings.max_request_bytes,
            channel_arguments=settings.grpc_channel_arguments or "",
            tokens=tokens,
            shared_port=settings.shared_port,
        )
        if settings.rest_api_port is not None:
            self._rest = self._make_rest(settings.rest_api_port, tokens, metrics_path)
        for service in ("", "ModelService", "PredictionService"):  # as in TensorFlow Serving
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        unix = [f"unix:{os.fspath(settings.grpc_socket_path)}"] if settings.grpc_socket_path else []
        self.metrics.start()
        self._repository.start()
        try:
            port = listen(server, [f"{settings.host}:{settings.port}", *unix], credentials)[0]
            if self._rest is not None:
                self._rest.start()
        except BaseException:
            # grpc only releases the ports of a server that has run; requests that arrive meanwhile are rejected.
            self._service.close()
            server.start()
            server.stop(None)
            raise
        server.start()
        self._server, self._port = server, port

    def _release(self) -> None:
        """Ends everything that `start` began except for the ports, however far it came."""
        self._repository.close()
        self._loader.close()
        self._health.pool.shutdown(wait=False)
        self._request_log.close()
        self.metrics.close()

    def _make_rest(self, port: int, tokens: Tokens | None, metrics_path: str | None) -> "RestServer":
        # Imported here, so that a server without REST doesn't wait for the import of its libraries.
        from keraslight_serving.server.rest import Handler, RestApp, RestServer

        settings = self._settings
        app = RestApp(
            Handler(self._service, tensor_content=settings.enable_serialization_as_tensor_content),
            timeout=settings.rest_api_timeout_in_ms / 1000 or None,
            threads=settings.rest_api_num_threads or OPEN_CALLS,
            cors=settings.rest_api_enable_cors_support,
            metrics=self.metrics.render if metrics_path else None,
            metrics_path=metrics_path or DEFAULT_PATH,
            authorize=tokens.authorize if tokens else None,
            observe=self.metrics.rest_request,
            max_body=settings.max_request_bytes,
            body_timeout=settings.rest_api_body_timeout_in_ms / 1000 or None,
            budget=self._budget,
        )
        idle = settings.rest_api_idle_timeout_in_ms / 1000
        return RestServer(app, settings.host, port, shared_port=settings.shared_port, idle_seconds=idle)

    def stop(self, grace: float | None = 5.0) -> None:
        """Rejects new requests, lets those in flight finish, and unloads the models. A second call does nothing.

        Args:
            grace: Seconds after which requests in flight are cancelled; None cancels them at once.
        """
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()  # before the port closes, so that load balancers send no more requests
        self._service.close()
        if grace:
            # A gRPC server shutting down answers CANCELLED, which clients don't retry; so we answer UNAVAILABLE first.
            time.sleep(min(grace, 0.1))
        stopped = self._server.stop(grace)
        if self._rest is not None:
            self._rest.stop(grace)
        stopped.wait()
        self._server = self._port = None
        self._release()

    def _report_health(self, model: str, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self._health.set(model, states.SERVING if serving else states.NOT_SERVING)

    def __enter__(self) -> "ModelServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def configure_logging(settings: Settings) -> None:
    """Sends the log to stderr if the settings have a format or a level; otherwise it is left to the program."""
    if settings.log_format or settings.log_level:
        configure(settings.log_format or "text", settings.log_level or "info")


def make_repository(
    settings: Settings,
    load: Callable[[str, Path, bool], LoadedVersion],
    on_serving: Callable[[str, bool], None] = lambda name, serving: None,
) -> Any:
    """Makes the repository of the models that the settings name; `load` and `on_serving` are those of `LoadPolicy`.

    Raises:
        StartError: The model config file can't be read.
    """
    if settings.model_config_file is not None:
        configs = read_config_file(Path(settings.model_config_file))
    else:
        assert settings.model_base_path is not None  # noqa: S101, since `Settings` requires one of them
        configs = [ModelConfig(settings.model_name, Path(settings.model_base_path).absolute())]
    how = LoadPolicy(
        load,
        poll_seconds=settings.file_system_poll_wait_seconds,
        retries=settings.max_num_load_retries,
        retry_seconds=settings.load_retry_interval_micros / 1e6,
        incomplete_seconds=settings.incomplete_version_wait_seconds,
        on_serving=on_serving,
    )
    return settings.make_repository(
        configs,
        how,
        allow_labels_anywhere=settings.allow_version_labels_for_unavailable_models,
        config_file=settings.model_config_file,
        config_file_poll_seconds=settings.model_config_file_poll_wait_seconds,
    )
